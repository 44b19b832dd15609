//! A place for one test: a thread in a network and a mount namespace of its own, with a BPF file
//! system of its own. All of it ends with the thread, also after a panic.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use daemon::bpf::Bpf;
use model::LinkIndex;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;

/// The pins of a place.
pub(crate) const PINS: &str = "/sys/fs/bpf/terway/v1";

/// Runs a test.
pub(crate) fn run(test: impl FnOnce() + Send + 'static) {
    let inside = move || {
        enter();
        test();
    };
    if let Err(panic) = thread::spawn(inside).join() {
        resume_unwind(panic);
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread is the test's own, and dies with it")]
fn enter() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .expect("tests of eBPF run as root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).unwrap();
}

/// The object under test, freshly loaded.
pub(crate) fn load() -> Bpf {
    load_from(&stage("terway.bpf.o"))
}

/// Another object.
pub(crate) fn load_from(object: &Path) -> Bpf {
    match Bpf::load(object, Path::new(PINS)) {
        Ok(bpf) => bpf,
        Err(error) => panic!("{:#}", anyhow::Error::from(error)),
    }
}

/// A file of the stage directory.
pub(crate) fn stage(name: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stage/dev");
    let path = std::env::var_os("TERWAY_STAGE").map_or_else(default, PathBuf::from).join(name);
    assert!(path.exists(), "{} is missing: run cargo xtask build", path.display());
    path
}

/// Runs `ip`, `tc` or `bpftool` in the place and gives what it printed.
pub(crate) fn tool(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}` failed: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Index of a link of the place.
pub(crate) fn index(name: &str) -> LinkIndex {
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    LinkIndex::try_from(index).unwrap()
}

/// Whether it becomes true within 20 s.
pub(crate) fn eventually(condition: impl Fn() -> bool) -> bool {
    let ask = |_| {
        thread::sleep(Duration::from_millis(5));
        condition()
    };
    condition() || (0..4000).any(ask)
}
