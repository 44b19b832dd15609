//! Nothing is left of a lab, whichever way it ends.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;
use terway_lab::node::traces;
use tokio::process::Command;

use crate::vpc::{Vpc, lab_name, options, run};

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
