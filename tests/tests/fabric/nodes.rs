//! Nodes: their own paths, links and processes.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use terway_lab::node::{Process, V6Default};
use tokio::process::Command;

use crate::vpc::{LIMIT, Vpc, ip, lab_name, node, run};

/// Waits until `found` says so.
async fn until(mut found: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let wait = async {
        while !found().await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await?
}

#[tokio::test]
async fn the_standard_paths_of_a_node_are_its_own() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let lab = lab_name()?;
    let one = node(&lab, &directory, "one", V6Default::Static).await?;
    let two = node(&lab, &directory, "two", V6Default::Static).await?;
    for path in ["/run/terway", "/etc/cni", "/opt/cni", "/var/lib/terway", "/run/netns"] {
        let file = format!("{path}/of-{lab}");
        run(&one, &["touch", &file]).await?;
        assert!(one.host_path(&file).exists(), "{file}");
        assert!(!std::path::Path::new(&file).exists(), "{file} is on the host");
        assert!(run(&two, &["cat", &file]).await.is_err(), "{file} is on the other node");
    }
    // A bpffs of its own, its own links in sysfs, and the machine's cgroups.
    run(&one, &["mkdir", "/sys/fs/bpf/mine"]).await?;
    assert!(run(&two, &["ls", "/sys/fs/bpf/mine"]).await.is_err());
    assert_eq!(run(&one, &["ls", "/sys/class/net"]).await?.trim(), "lo");
    let cgroups = fs::read_dir("/sys/fs/cgroup")?.count();
    let seen = run(&one, &["ls", "/sys/fs/cgroup"]).await?.lines().count();
    assert_eq!(seen, cgroups);
    // containerd wants to spread its mounts.
    let root = run(&one, &["findmnt", "-n", "-o", "PROPAGATION", "/"]).await?;
    assert_eq!(root.trim(), "shared");
    assert_eq!(run(&one, &["ls", "/run/netns"]).await?.trim(), format!("of-{lab}"));
    Ok(())
}

#[tokio::test]
async fn a_pod_namespace_is_pinned_on_its_node_only_and_goes_with_its_handle() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = node(&lab_name()?, &directory, "one", V6Default::Static).await?;
    let pod = node.pod("web").await?;
    assert_eq!(pod.path().to_str(), Some("/run/netns/web"));
    assert_eq!(run(&node, &["ls", "/run/netns"]).await?.trim(), "web");
    let links = run(&node, &["ip", "-n", "web", "-j", "link"]).await?;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&links)?[0]["ifname"], "lo");
    let inside = pod.namespace().run(|| fs::read_link("/proc/thread-self/ns/net")).await??;
    let outside = node.run(|| fs::read_link("/proc/thread-self/ns/net")).await??;
    assert_ne!(inside, outside);
    let again = node.open_namespace(pod.path()).await?;
    assert_eq!(again.identity()?, pod.namespace().identity()?);
    assert!(node.pod("web").await.is_err());
    assert_eq!(run(&node, &["ls", "/run/netns"]).await?.trim(), "web", "the first one stays");
    drop(pod);
    assert_eq!(run(&node, &["ls", "/run/netns"]).await?.trim(), "");
    Ok(())
}

#[tokio::test]
async fn a_process_runs_on_its_node_with_a_log_and_is_killed_with_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = node(&lab_name()?, &directory, "one", V6Default::Static).await?;
    let log = directory.path().join("log");
    let mut command = Command::new("sh");
    command.args(["-c", "echo $GREETING; ip -j link; exec sleep 1000"]).env("GREETING", "hello");
    let mut process = node.spawn("sleeper", command, &log).await?;
    until(async || Ok(fs::read_to_string(&log)?.contains("]\n"))).await?;
    let text = fs::read_to_string(&log)?;
    assert!(text.starts_with("hello\n") && !text.contains("eth"), "{text}");
    assert!(process.is_running());
    let pid = process.pid().context("it runs")?;
    let mounts = fs::read_link(format!("/proc/{pid}/ns/mnt"))?;
    assert_eq!(mounts, fs::read_link(format!("/proc/{}/ns/mnt", node.pid()))?);
    // One that makes itself independent.
    run(&node, &["sh", "-c", "setsid -f sleep 1000 >/dev/null 2>&1"]).await?;
    drop(node);
    // The handle of the process does not keep the node.
    let status = process.wait(LIMIT).await?;
    assert!(Process::was_killed(status), "{status}");
    until(async || {
        let left =
            Command::new("grep").args(["-l", "-r", "-s", &mounts.to_string_lossy()]).output();
        drop(left.await?);
        Ok(inhabitants(&mounts)?.is_empty())
    })
    .await
}

/// Processes in a mount namespace.
fn inhabitants(mounts: &std::path::Path) -> Result<Vec<String>> {
    let entries = fs::read_dir("/proc")?.flatten();
    let pids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let inside = |pid: &String| {
        fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|link| link == mounts)
    };
    Ok(pids.filter(|pid| pid.parse::<u32>().is_ok()).filter(inside).collect())
}

#[tokio::test]
async fn a_process_is_stopped_by_a_signal_and_after_its_grace_by_force() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = node(&lab_name()?, &directory, "one", V6Default::Static).await?;
    let log = directory.path().join("log");
    let mut gentle = Command::new("sh");
    gentle.args(["-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"]);
    let process = node.spawn("gentle", gentle, &log).await?;
    until(async || Ok(fs::read_to_string(&log)?.contains("ready"))).await?;
    assert_eq!(process.stop(LIMIT).await?.code(), Some(7));
    let mut stubborn = Command::new("sh");
    stubborn.args(["-c", "trap '' TERM; echo stubborn; while :; do sleep 0.01; done"]);
    let process = node.spawn("stubborn", stubborn, &log).await?;
    until(async || Ok(fs::read_to_string(&log)?.contains("stubborn"))).await?;
    assert!(Process::was_killed(process.stop(Duration::from_millis(50)).await?));
    Ok(())
}

#[tokio::test]
async fn a_node_learns_its_default_route_by_advertisement_and_again_when_it_is_lost() -> Result<()>
{
    let vpc = Vpc::new().await?;
    let route = async || -> Result<Option<String>> {
        let routes = ip(&vpc.node2, &["-6", "route", "show", "default"]).await?;
        Ok(routes[0]["protocol"].as_str().map(str::to_owned))
    };
    assert_eq!(route().await?.as_deref(), Some("ra"));
    let own = ip(&vpc.node1, &["-6", "route", "show", "default"]).await?;
    assert_eq!(own[0]["protocol"], "static");
    run(&vpc.node2, &["ip", "-6", "route", "del", "default"]).await?;
    until(async || Ok(route().await?.as_deref() == Some("ra"))).await
}
