//! What each command of `terway-lab` does.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::iter;
use std::path::{self, Path};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use terway_lab::bench::{self, BenchOptions, Effort};
use terway_lab::demo::{self, DemoOptions, Kept};
use terway_lab::driver;
use terway_lab::ecs::Control;
use terway_lab::fabric::{MemberMacs, Neighbours};
use terway_lab::lab::{Claim, DaemonSettings, Document, Lab, LabOptions, NodeSpec};
use terway_lab::node::{LabName, V6Default};
use terway_lab::server::{self, PodWish, Tried};
use tokio::process::Command as Process;
use tokio::time;

use super::{Bench, Command, Fault, Measured, Pod, Up};

/// How long a lab may take to come up or to go.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn run(dir: &Path, name: LabName, command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(up) => start(dir, &name, &up).await?,
        Command::Serve(up) => serve(dir, name, &up).await?,
        Command::Down => down(dir, name).await?,
        Command::Enter { node, command } => return enter(dir, &node, &command).await,
        Command::Pod(pod) => change_pod(dir, pod).await?,
        Command::Reach => return reach(dir).await,
        Command::Fault(fault) => set_fault(dir, fault).await?,
        Command::Dump => print(&serde_json::to_string_pretty(&control(dir)?.dump().await?)?),
        Command::Bench(bench) => measure(dir, bench).await?,
        Command::Demo { keep, json } => {
            let lab = LabOptions::new(name, dir.to_owned());
            let (facts, kept) = demo::run(DemoOptions { lab, keep, json }).await?;
            if let Some(Kept { lab, daemons, pods }) = kept {
                server::hold(lab, daemons, pods).await?;
            }
            if !facts.wrong.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// In a lab of its own, beside one that may be up.
async fn measure(dir: &Path, bench: Bench) -> Result<()> {
    let options = |measured: Measured| -> Result<BenchOptions> {
        let effort = if measured.quick { Effort::Quick } else { Effort::Full };
        let lab = LabOptions::new("tlbench".parse()?, dir.join("bench"));
        Ok(BenchOptions { lab, effort, json: measured.json })
    };
    match bench {
        Bench::Add(measured) => drop(bench::add::run(options(measured)?).await?),
        Bench::Burst(measured) => drop(bench::burst::run(options(measured)?).await?),
        Bench::Forward(measured) => drop(bench::forward::run(options(measured)?).await?),
    }
    Ok(())
}

/// Starts `serve` in the background and waits until it says that the lab is up.
async fn start(dir: &Path, name: &LabName, up: &Up) -> Result<()> {
    if Document::of_live(dir).is_ok() {
        anyhow::bail!("a lab is up in {} already: `terway-lab down` removes it", dir.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let log = dir.join("lab.log");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut serve = Process::new("setsid");
    serve.arg(env::current_exe()?).arg("--dir").arg(dir);
    serve.args(["--name", name.as_str(), "serve", "--nodes", &up.nodes.to_string()]);
    serve.args(["--instance-type", &up.instance_type]);
    for (set, flag) in [
        (up.no_daemon, "--no-daemon"),
        (up.arp, "--arp"),
        (up.own_member_macs, "--own-member-macs"),
    ] {
        serve.args(set.then_some(flag));
    }
    serve.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = serve.spawn().context("cannot start the lab's process")?;
    let ready = async {
        loop {
            if let Some(status) = child.try_wait()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                anyhow::bail!("the lab's process ended with {status}\n{said}");
            }
            if let Ok(document) = Document::read(dir)
                && document.lab.is_some()
                && Some(document.pid) == child.id()
            {
                return Ok(document);
            }
            time::sleep(LOOK).await;
        }
    };
    let late = || format!("the lab is not up after {PATIENCE:?}; its log: {}", log.display());
    let document = time::timeout(PATIENCE, ready).await.with_context(late)??;
    let nodes: Vec<_> = document.nodes.iter().map(|node| node.name.as_str()).collect();
    print(&format!("up: {} in {}", nodes.join(", "), dir.display()));
    Ok(())
}

async fn serve(dir: &Path, name: LabName, up: &Up) -> Result<()> {
    let mut options = LabOptions::new(name, dir.to_owned());
    options.nodes = (1..=up.nodes)
        .map(|number| NodeSpec {
            name: format!("node{number}"),
            kind: up.instance_type.clone(),
            v6_default: if number % 2 == 0 { V6Default::Advertised } else { V6Default::Static },
        })
        .collect();
    if up.arp {
        options.neighbours = Neighbours::Asked;
    }
    if up.own_member_macs {
        options.member_macs = MemberMacs::Own;
    }
    let lab = Lab::up(options).await?;
    let own_member_macs = up.own_member_macs;
    let settings = DaemonSettings { own_member_macs, ..DaemonSettings::default() };
    let mut daemons = Vec::new();
    if !up.no_daemon {
        for node in lab.nodes() {
            daemons.push(lab.start_daemon(node.node.name(), &settings).await?);
        }
    }
    server::hold(lab, daemons, Vec::new()).await
}

async fn down(dir: &Path, name: LabName) -> Result<()> {
    let document = Document::read(dir).ok();
    let name = document.as_ref().map_or(Ok(name), |document| document.name.parse())?;
    let claim = match document.filter(Document::is_live) {
        Some(document) => end(Pid::from_raw(document.pid.try_into()?), &name).await?,
        None => Claim::take(&name)?,
    };
    Lab::sweep(&name, dir, &claim)?;
    print(&format!("down; what its processes said is in {}", dir.join("log").display()));
    Ok(())
}

/// Ends a lab's process, which takes its lab with it; by force if it takes too long.
async fn end(lab: Pid, name: &LabName) -> Result<Claim> {
    let released = || async {
        loop {
            if let Ok(claim) = Claim::take(name) {
                return claim;
            }
            time::sleep(LOOK).await;
        }
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        kill(lab, signal).with_context(|| format!("cannot stop the lab (process {lab})"))?;
        if let Ok(claim) = time::timeout(PATIENCE, released()).await {
            return Ok(claim);
        }
    }
    anyhow::bail!("the lab's process {lab} does not end")
}

async fn enter(dir: &Path, node: &str, command: &[String]) -> Result<ExitCode> {
    let document = Document::of_live(dir)?;
    let pid = document.node(node)?.pid.to_string();
    let shell = [env::var("SHELL").unwrap_or_else(|_unset| "/bin/sh".to_owned())];
    let command = if command.is_empty() { shell.as_slice() } else { command };
    let status = Process::new("nsenter")
        .env("PATH", path_of_stage()?)
        .args(["-t", &pid, "-n", "-m", "--"])
        .args(command)
        .status()
        .await
        .context("cannot run nsenter")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The caller's `PATH`, behind the directory of what was built: `terwayctl` is a word on a node.
fn path_of_stage() -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = iter::once(path::absolute(driver::stage())?).chain(env::split_paths(&path));
    env::join_paths(directories).context("the stage directory cannot be in PATH")
}

async fn change_pod(dir: &Path, pod: Pod) -> Result<()> {
    let lab = holder(dir)?;
    let client = reqwest::Client::new();
    match pod {
        Pod::Add { node, name, pod_networking } => {
            let wish = PodWish { node, name, pod_networking };
            let answer = client.post(format!("{lab}/pods")).json(&wish).send().await?;
            let result: serde_json::Value = serde_json::from_str(&accepted(answer).await?)?;
            print(&serde_json::to_string_pretty(&result)?);
        }
        Pod::Del { name } => {
            let answer = client.delete(format!("{lab}/pods/{name}")).send().await?;
            accepted(answer).await?;
        }
    }
    Ok(())
}

async fn reach(dir: &Path) -> Result<ExitCode> {
    let answer = reqwest::get(format!("{}/reach", holder(dir)?)).await?;
    let tried: Vec<Tried> = serde_json::from_str(&accepted(answer).await?)?;
    let mut all = true;
    for one in tried {
        all &= one.reached;
        print(&format!("{:<16} -> {:<16} {:<24} {}", one.from, one.to, one.address, one.answer));
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn set_fault(dir: &Path, fault: Fault) -> Result<()> {
    let control = control(dir)?;
    match fault {
        Fault::Set { json } => {
            let fault = serde_json::from_str(&json).context("that is no fault")?;
            control.add_fault(&fault).await?;
        }
        Fault::List => print(&serde_json::to_string_pretty(&control.faults().await?)?),
        Fault::Clear => control.clear_faults().await?,
    }
    Ok(())
}

fn control(dir: &Path) -> Result<Control> {
    Ok(Control::new(Document::of_live(dir)?.control))
}

fn holder(dir: &Path) -> Result<String> {
    Document::of_live(dir)?
        .lab
        .context("the lab is held by a test; only `terway-lab up` serves this")
}

async fn accepted(answer: reqwest::Response) -> Result<String> {
    let status = answer.status();
    let text = answer.text().await?;
    anyhow::ensure!(status.is_success(), "{text}");
    Ok(text)
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn print(text: &str) {
    println!("{text}");
}
