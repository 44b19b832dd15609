//! Processes on a node that end with it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time;

use super::Node;

/// A process on a node; killed on drop, and when the lab dies in whatever way.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Node {
    /// Starts `command` (made with `Command::new`, not with [`Node::command`]) on the node. Both
    /// of its outputs go to the file `log` on the host, after what is there.
    pub async fn spawn(&self, name: &str, command: Command, log: &Path) -> Result<Process> {
        let mut mortal = mortal(&command);
        let file = open_log(log)?;
        mortal.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        // A child is born in the namespaces of the thread that makes it, and dies with it.
        let spawned = self.resident().run(move || mortal.spawn()).await?;
        let child = spawned.with_context(|| format!("cannot start {name} on {}", self.name()))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }
}

/// The same command, killed when the thread that spawned it dies.
fn mortal(command: &Command) -> Command {
    let command = command.as_std();
    let mut mortal = Command::new("/usr/bin/setpriv");
    mortal.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => mortal.env(key, value),
            None => mortal.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        mortal.current_dir(directory);
    }
    mortal
}

fn open_log(path: &Path) -> Result<fs::File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open the log {}", path.display()))
}

impl Process {
    /// Its id; `None` once it was waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its log, on the host.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to it alone; succeeds if it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return Ok(());
        };
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot send {signal} to {}", self.name))
            }
        }
    }

    /// Waits for its end; an error names the process and its log.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = time::timeout(limit, self.child.wait()).await;
        let ended = ended.with_context(|| {
            format!("{} did not end in {limit:?}; its log: {}", self.name, self.log.display())
        })?;
        Ok(ended?)
    }

    /// `SIGTERM`, then `SIGKILL` if it has not ended after `grace`.
    pub async fn stop(mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        if let Ok(status) = self.wait(grace).await {
            return Ok(status);
        }
        self.kill().await
    }

    /// `SIGKILL`, and waits for the end.
    pub async fn kill(mut self) -> Result<ExitStatus> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))?;
        Ok(self.child.wait().await?)
    }

    /// Whether an end was by `SIGKILL`.
    pub fn was_killed(status: ExitStatus) -> bool {
        status.signal() == Some(nix::libc::SIGKILL)
    }
}
