//! The README's first command, as a person runs it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use terway_lab::driver::{stage, staged};

#[test]
fn the_demo_shows_the_main_job_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("facts.json");
    let output = Command::new(staged("terway-lab").unwrap())
        .env("TERWAY_STAGE", stage())
        .args(["--dir", "/run/terway-lab-tests/demo", "--name", "demo", "demo", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let facts: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let list = |key: &str| facts[key].as_array().unwrap().clone();
    assert_eq!(list("pods").len(), 8);
    assert!(list("left").is_empty() && list("wrong").is_empty());
    // Eight pods, two nodes, one outside: each to the ten others by both families.
    let reach = list("reach");
    assert_eq!(reach.len(), 11 * 10 * 2);
    let refused: Vec<_> = reach.iter().filter(|one| one["reached"] == false).collect();
    // The two `db` pods: to `web` and the other `db`'s peers outside of their group.
    assert!(!refused.is_empty());
    for one in refused {
        assert_eq!(one["refused_by"], serde_json::json!(["sg-db"]), "{one}");
        assert!(one["to"].as_str().unwrap().starts_with("db-"), "{one}");
    }
    assert!(!Path::new("/run/netns/demo-vpc").exists());
}
