//! `terwayd` on a node of the lab.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio::time;

use super::settings::{DB, SG_DB, SG_WEB, WEB, pod_networking};
use super::{DaemonSettings, Lab, LabNode};
use crate::driver::staged;
use crate::fabric::{API, METADATA};
use crate::node::Process;

/// Where the daemon's directory is on its node.
pub(super) const STANDALONE: &str = "/etc/terway";

/// How long a daemon may take until it serves.
const START: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(20);

/// A running daemon; killed on drop.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    node: LabNode,
    /// Length of its log when it started, bytes.
    logged_before: u64,
}

impl Lab {
    /// Installs the binary, the eBPF object and the configuration on a node, as an
    /// administrator would: `eni_conf` and the PodNetworkings `web` and `db`.
    pub fn install(&self, node: &str, settings: &DaemonSettings) -> Result<()> {
        let node = self.node(node)?;
        let put = |from: &str, to: &str| -> Result<()> {
            let to = node.node.host_path(to);
            make_parent(&to)?;
            std::fs::copy(staged(from)?, &to)
                .with_context(|| format!("cannot write {}", to.display()))?;
            Ok(())
        };
        put("terway", "/opt/cni/bin/terway")?;
        put("terway.bpf.o", "/usr/lib/terway/terway.bpf.o")?;
        let conf = serde_json::to_string_pretty(&settings.eni_conf())?;
        self.configure(&node.node, "eni_conf", &conf)?;
        self.configure(&node.node, "web.yaml", &pod_networking("web", WEB, SG_WEB))?;
        self.configure(&node.node, "db.yaml", &pod_networking("db", DB, SG_DB))
    }

    /// Writes one file of the daemon's directory.
    pub fn configure(&self, node: &crate::node::Node, file: &str, text: &str) -> Result<()> {
        let path = node.host_path(Path::new(STANDALONE).join(file));
        make_parent(&path)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Installs and starts a daemon, and waits until it takes an ADD and its pool is filled.
    pub async fn start_daemon(&self, node: &str, settings: &DaemonSettings) -> Result<Daemon> {
        self.install(node, settings)?;
        let mut daemon = self.spawn_daemon(node, settings).await?;
        daemon.wait_ready().await?;
        self.wait_filled(node).await?;
        Ok(daemon)
    }

    /// Waits until the node's ENIs are in use, the trunk among them, and its pool is filled: what
    /// the daemon does at first, without any pod.
    pub async fn wait_filled(&self, node: &str) -> Result<()> {
        let filled = async {
            while !self.is_filled(node).await? {
                time::sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        let late = || format!("the pool of {node} is not filled after {START:?}");
        time::timeout(START, filled).await.with_context(late)?
    }

    async fn is_filled(&self, node: &str) -> Result<bool> {
        let (enis, status) =
            (self.terwayctl(node, "enis").await?, self.terwayctl(node, "status").await?);
        let enis = enis.get("enis").and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |eni: &Value, key: &str| eni.get(key).and_then(Value::as_str).map(str::to_owned);
        let in_use = enis.iter().all(|eni| text(eni, "phase").as_deref() == Some("in_use"));
        let trunk = enis.iter().any(|eni| text(eni, "kind").as_deref() == Some("trunk"));
        let idle = status.pointer("/pool/idle").and_then(Value::as_u64).unwrap_or_default();
        let standalone = self.node(node)?.node.host_path(STANDALONE).join("eni_conf");
        let conf: Value = serde_json::from_str(&std::fs::read_to_string(&standalone)?)?;
        let trunking = conf.get("enable_eni_trunking").and_then(Value::as_bool) == Some(true);
        let wanted = conf.get("min_pool_size").and_then(Value::as_u64).unwrap_or_default();
        Ok(in_use && (trunk || !trunking) && idle >= wanted)
    }

    /// Starts an installed daemon and does not wait.
    pub async fn spawn_daemon(&self, node: &str, settings: &DaemonSettings) -> Result<Daemon> {
        let node = self.node(node)?.clone();
        let mut command = Command::new(staged("terwayd")?);
        command
            .args(["--standalone", STANDALONE])
            .env("ECS_ENDPOINT", format!("http://{API}"))
            .env("VPC_ENDPOINT", format!("http://{API}:81"))
            .env("TERWAYD_METADATA", format!("http://{METADATA}"))
            .envs(settings.environment.iter().map(|(key, value)| (key, value)));
        let log = self.logs().join(format!("terwayd-{}.log", node.node.name()));
        // It goes on behind what an earlier daemon, or lab of this name, has left.
        let logged_before = std::fs::metadata(&log).map_or(0, |file| file.len());
        let process = node.node.spawn("terwayd", command, &log).await?;
        Ok(Daemon { process, node, logged_before })
    }

    /// What `terwayctl` says on a node, as JSON.
    pub async fn terwayctl(&self, node: &str, what: &str) -> Result<Value> {
        let output = self
            .node(node)?
            .node
            .command(staged("terwayctl")?)
            .args([what, "-o", "json"])
            .output()
            .await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "terwayctl {what} on {node}: {stderr}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Its log on the host.
    pub fn log(&self) -> PathBuf {
        self.process.log().to_owned()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it takes an ADD, which it says by STATUS.
    pub async fn wait_ready(&mut self) -> Result<()> {
        match time::timeout(START, self.until_ready()).await {
            Ok(ready) => ready,
            Err(_late) => anyhow::bail!("terwayd is not ready after {START:?}\n{}", self.tail()),
        }
    }

    async fn until_ready(&mut self) -> Result<()> {
        loop {
            let running = self.process.is_running();
            anyhow::ensure!(running, "terwayd ended\n{}", self.tail());
            let status = self
                .node
                .node
                .command(staged("terwayctl")?)
                .args(["status", "-o", "json"])
                .output()
                .await?;
            let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            if status.get("ready").and_then(Value::as_bool) == Some(true) {
                return Ok(());
            }
            time::sleep(LOOK).await;
        }
    }

    /// `SIGTERM`, and waits; pods keep their network.
    pub async fn stop(self) -> Result<()> {
        let log = self.log();
        let status = self.process.stop(Duration::from_secs(15)).await?;
        anyhow::ensure!(status.success(), "terwayd ended with {status}; log: {}", log.display());
        Ok(())
    }

    /// `SIGKILL`, and waits.
    pub async fn kill(self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.kill().await?;
        Ok(())
    }

    /// What it has logged itself.
    pub fn said(&self) -> Result<String> {
        let log = std::fs::read(self.log())?;
        let own = log.get(usize::try_from(self.logged_before)?..).unwrap_or_default();
        Ok(String::from_utf8_lossy(own).into_owned())
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let log = self.log();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
        format!("{}:\n{}", log.display(), end.join("\n"))
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a file lies in a folder")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))
}
