//! `terway-lab` as a person uses it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use terway_lab::driver::{stage, staged};
use terway_lab::lab::Document;
use terway_lab::node::traces;

/// Takes its lab down when the test ends, in whatever way.
struct Hand {
    name: &'static str,
    dir: PathBuf,
}

impl Hand {
    fn new(name: &'static str) -> Self {
        Self { name, dir: Path::new("/run/terway-lab-tests").join(name) }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(staged("terway-lab").unwrap());
        command.env("TERWAY_STAGE", stage()).args(["--name", self.name, "--dir"]).arg(&self.dir);
        command.args(words).output().unwrap()
    }

    fn succeeds(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refuses(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?} succeeds");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What of the lab is on the machine.
    fn traces(&self) -> Vec<String> {
        traces(&self.name.parse().unwrap()).unwrap()
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let _down_already = self.run(&["down"]);
    }
}

#[test]
fn a_lab_is_made_looked_into_and_taken_down_from_a_shell() {
    let hand = Hand::new("shell");
    hand.succeeds(&["up", "--nodes", "1"]);
    let result = hand.succeeds(&["pod", "add", "node1", "web-a", "--pod-networking", "web"]);
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    let (address, _prefix) = address.split_once('/').unwrap();
    let pods = hand.succeeds(&["enter", "node1", "terwayctl", "pods"]);
    assert!(pods.contains("web-a") && pods.contains(address), "{pods}");
    let reach = hand.succeeds(&["reach"]);
    assert!(reach.lines().any(|line| line.starts_with("outside") && line.contains(address)));
    let again = hand.refuses(&["pod", "add", "node1", "web-a"]);
    assert!(again.contains("there is a pod web-a already"), "{again}");
    hand.succeeds(&["pod", "del", "web-a"]);

    let twice = hand.refuses(&["up"]);
    assert!(twice.contains("a lab is up in /run/terway-lab-tests/shell already"), "{twice}");
    let elsewhere = Hand { name: hand.name, dir: hand.dir.join("elsewhere") };
    for words in [["up"], ["down"]] {
        let said = elsewhere.refuses(&words);
        assert!(said.contains("a lab named shell is up, held by process"), "{words:?}: {said}");
    }
    assert_eq!(hand.succeeds(&["enter", "node1", "echo", "still there"]), "still there\n");

    // The document knows the lab's name.
    let down = Hand { name: "another", dir: hand.dir.clone() }.succeeds(&["down"]);
    assert!(down.contains("/run/terway-lab-tests/shell/log"), "{down}");
    assert_eq!(hand.traces(), [""; 0]);
    let gone = hand.refuses(&["enter", "node1", "true"]);
    assert!(gone.contains("no lab in /run/terway-lab-tests/shell"), "{gone}");
}

#[test]
fn a_killed_lab_is_not_entered_and_all_that_it_left_is_cleared_away() {
    let hand = Hand::new("killed");
    hand.succeeds(&["up", "--nodes", "1"]);
    let daemon = hand.succeeds(&["enter", "node1", "pidof", "terwayd"]);
    // Like a shim of containerd: it lives on when its parent dies.
    let start = "setsid -f sleep 1000 >/dev/null 2>&1; pidof sleep";
    let sleeper = hand.succeeds(&["enter", "node1", "sh", "-c", start]);
    let node = fs::metadata("/run/netns/killed-node1").unwrap().ino();
    let on_node = |pid: &str| {
        let network = fs::metadata(format!("/proc/{pid}/ns/net"));
        network.is_ok_and(|network| network.ino() == node)
    };
    let daemon = daemon.split_whitespace().find(|pid| on_node(pid)).unwrap();
    let sleeper = sleeper.split_whitespace().find(|pid| on_node(pid)).unwrap();

    let lab = Document::read(&hand.dir).unwrap().pid;
    kill(Pid::from_raw(lab.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let lives = || Document::of_live(&hand.dir).is_ok() || on_node(daemon);
    for _look in 0..4000 {
        if !lives() {
            break;
        }
        sleep(Duration::from_millis(5));
    }
    assert!(!lives(), "the lab's process or the daemon lives on");
    assert!(on_node(sleeper));
    assert!(!hand.traces().is_empty());
    let dead = hand.refuses(&["enter", "node1", "true"]);
    assert!(dead.contains(&format!("its process {lab} has ended")), "{dead}");

    for _twice in 0..2 {
        hand.succeeds(&["down"]);
        assert_eq!(hand.traces(), [""; 0]);
        assert!(!on_node(sleeper) && !hand.dir.join("nodes").exists());
    }
}
