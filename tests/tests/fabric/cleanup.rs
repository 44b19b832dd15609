//! Nothing is left of a lab, whichever way it ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use terway_lab::node::{self, CGROUP_ROOT, LabName};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::vpc::{Vpc, lab_name, options, run};

/// What of a lab can be seen from outside: pins, mounts, cgroups.
fn traces(lab: &LabName) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let prefix = format!("{lab}-");
    for entry in fs::read_dir("/run/netns")?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path().display().to_string());
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    found.extend(mounts.lines().filter(|line| line.contains(&prefix)).map(str::to_owned));
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let own = hierarchy.path().join(CGROUP_ROOT.trim_start_matches('/')).join(lab.as_str());
        if own.exists() {
            found.push(own.display().to_string());
        }
    }
    Ok(found)
}

async fn host_links() -> Result<BTreeSet<String>> {
    let output = Command::new("ip").args(["-o", "link"]).output().await?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned).collect())
}

#[tokio::test]
async fn a_lab_leaves_nothing_behind() -> Result<()> {
    let links = host_links().await?;
    let vpc = Vpc::new().await?;
    vpc.plug_trunk().await?;
    vpc.plug_member(101, 10).await?;
    let pod = vpc.node1.pod("web").await?;
    let lab = vpc.lab.clone();
    let nodes = vpc.directory.path().join("nodes");
    assert!(!traces(&lab)?.is_empty());
    drop(pod);
    let Vpc { fabric, node1, node2, directory, .. } = vpc;
    drop((fabric, node1, node2));
    assert_eq!(traces(&lab)?, [""; 0]);
    assert_eq!(fs::read_dir(&nodes)?.count(), 0);
    drop(directory);
    let left: Vec<_> = host_links().await?.difference(&links).cloned().collect();
    let ours = left.iter().filter(|name| name.contains(lab.as_str())).count();
    assert_eq!(ours, 0, "{left:?}");
    Ok(())
}

#[tokio::test]
async fn a_lab_leaves_nothing_behind_after_a_panic() -> Result<()> {
    let name = lab_name()?;
    let options = terway_lab::fabric::FabricOptions { lab: name.clone(), ..options()? };
    let task = tokio::spawn(async move {
        let vpc = Vpc::with(options).await;
        assert!(vpc.is_err(), "a test fails");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(traces(&name)?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_in_use_is_refused_and_its_lab_lives_on() -> Result<()> {
    let vpc = Vpc::new().await?;
    let same = terway_lab::fabric::FabricOptions { lab: vpc.lab.clone(), ..options()? };
    let error = terway_lab::fabric::Fabric::create(same).await.unwrap_err();
    assert!(format!("{error:#}").contains("does a lab of this name run already?"), "{error:#}");
    run(&vpc.node1, &["ping", "-c", "1", "-W", "2", "10.0.0.12"]).await?;
    Ok(())
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
#[ignore = "another test runs it, and kills it"]
async fn victim() -> Result<()> {
    let vpc = Vpc::new().await?;
    let _pod = vpc.node1.pod("web").await?;
    let log = vpc.directory.path().join("log");
    let mut sleeper = Command::new("sleep");
    sleeper.arg("1000");
    let process = vpc.node1.spawn("sleeper", sleeper, &log).await?;
    let supervised = process.pid().context("it runs")?;
    // Like a shim of containerd: it lives on when its parent dies.
    run(&vpc.node1, &["sh", "-c", "setsid -f sleep 1000 >/dev/null 2>&1"]).await?;
    let directory = vpc.directory.path().display();
    println!("\nvictim {} {directory} {supervised}", vpc.lab);
    tokio::time::sleep(Duration::from_mins(2)).await;
    anyhow::bail!("nobody killed it")
}

#[tokio::test]
async fn down_takes_away_what_a_killed_lab_left() -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["cleanup::victim", "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(victim.stdout.take().context("it is piped")?).lines();
    let said = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(said) = line.strip_prefix("victim ") {
                return Ok(said.to_owned());
            }
        }
        anyhow::bail!("the victim died by itself")
    };
    let said = tokio::time::timeout(Duration::from_mins(1), said).await??;
    let mut words = said.split(' ');
    let lab: LabName = words.next().context("its lab")?.parse()?;
    let directory = Path::new(words.next().context("its directory")?);
    let supervised: u32 = words.next().context("its process")?.parse()?;
    victim.kill().await?;
    assert!(!traces(&lab)?.is_empty(), "a killed lab leaves its namespaces");
    let gone = async {
        while fs::metadata(format!("/proc/{supervised}/exe")).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.context("a process outlived")?;
    let sleepers = namespaced(&lab)?;
    assert_eq!(sleepers.len(), 1, "the independent one lives on");
    node::down(&lab, directory)?;
    assert_eq!(traces(&lab)?, [""; 0]);
    for pid in sleepers {
        assert!(fs::read_to_string(format!("/proc/{pid}/exe")).is_err());
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
    assert!(!directory.join("nodes").exists());
    // Twice is fine.
    node::down(&lab, directory)?;
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// Processes in the network namespaces of a lab.
fn namespaced(lab: &LabName) -> Result<Vec<u32>> {
    use std::os::unix::fs::MetadataExt as _;
    let node = fs::metadata(lab.namespace("node1"))?.ino();
    let pids = fs::read_dir("/proc")?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|one| one.ino() == node)
        })
        .collect())
}
