//! CNI plugins under measurement: spawned directly on the node, the same way whoever it is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Map, json};

use crate::driver::{self, Attachment, Verb};
use crate::node::Node;

/// Whose plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Peer {
    /// `terway`, dual stack.
    #[serde(rename = "terway")]
    Ours,
    /// `ptp` with `host-local`, IPv4.
    #[serde(rename = "ptp + host-local")]
    Ptp,
}

impl Peer {
    /// In the order in which they take turns.
    pub const BOTH: [Self; 2] = [Self::Ours, Self::Ptp];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "terway",
            Self::Ptp => "ptp + host-local",
        }
    }

    const fn directory(self) -> &'static str {
        match self {
            Self::Ours => "/opt/cni/bin",
            Self::Ptp => "/usr/lib/cni",
        }
    }

    const fn binary(self) -> &'static str {
        match self {
            Self::Ours => "terway",
            Self::Ptp => "ptp",
        }
    }
}

/// A plugin with its configuration. Calls are made by the thread that calls, in whatever
/// namespaces it is.
#[derive(Debug, Clone)]
pub(super) struct Plugin {
    peer: Peer,
    configuration: PathBuf,
}

/// Times of calls that were made side by side.
#[derive(Debug, Clone)]
pub(super) struct Parallel {
    /// Of each call.
    pub(super) each: Vec<Duration>,
    /// From the first spawn to the last exit.
    pub(super) all: Duration,
}

impl Plugin {
    /// Writes its configuration, on the node.
    pub(super) fn new(peer: Peer, node: &Node) -> Result<Self> {
        let is_there = peer == Peer::Ours || Path::new("/usr/lib/cni/ptp").exists();
        anyhow::ensure!(
            is_there,
            "/usr/lib/cni/ptp is missing: apt-get install containernetworking-plugins"
        );
        let configuration = Path::new("/var/lib/cni").join(format!("{}.json", peer.binary()));
        let file = node.host_path(&configuration);
        let text = match peer {
            Peer::Ours => driver::configuration(&Attachment::default(), &Map::new()),
            Peer::Ptp => json!({
                "cniVersion": "1.0.0",
                "name": "peer",
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": "172.31.0.0/16" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }),
        };
        std::fs::write(&file, text.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { peer, configuration })
    }

    /// Calls one after another; an error if any fails.
    pub(super) fn calls(&self, verb: Verb, sandboxes: &[Attachment]) -> Result<Vec<Duration>> {
        sandboxes.iter().map(|sandbox| Ok(self.call(verb, sandbox)?.1)).collect()
    }

    /// Calls side by side, each by a thread of its own, let loose at once.
    pub(super) fn parallel(&self, verb: Verb, sandboxes: &[Attachment]) -> Result<Parallel> {
        let start = Barrier::new(sandboxes.len());
        let calls = thread::scope(|scope| {
            let threads: Vec<_> = sandboxes
                .iter()
                .map(|sandbox| {
                    scope.spawn(|| {
                        start.wait();
                        self.call(verb, sandbox)
                    })
                })
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<(Instant, Duration)>>| {
                thread.join().map_err(|_panic| anyhow::anyhow!("a caller died"))?
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let first = calls.iter().map(|(start, _)| *start).min();
        let last = calls.iter().map(|(start, took)| *start + *took).max();
        let all = first.zip(last).map(|(first, last)| last - first).unwrap_or_default();
        Ok(Parallel { each: calls.into_iter().map(|(_, took)| took).collect(), all })
    }

    /// When it was spawned, and how long until it had ended and its output was read.
    fn call(&self, verb: Verb, sandbox: &Attachment) -> Result<(Instant, Duration)> {
        let binary = Path::new(self.peer.directory()).join(self.peer.binary());
        let stdin = File::open(&self.configuration)
            .with_context(|| format!("cannot read {}", self.configuration.display()))?;
        let mut command = Command::new(&binary);
        command
            .env_clear()
            .envs(driver::variables(verb, sandbox))
            .env("CNI_PATH", self.peer.directory())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        #[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
        let start = Instant::now();
        let output = command.output();
        let took = start.elapsed();
        let output = output.with_context(|| format!("cannot run {}", binary.display()))?;
        anyhow::ensure!(
            output.status.success(),
            "{} of {} by {}: {} {}",
            verb.name(),
            sandbox.container_id,
            self.peer.name(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        Ok((start, took))
    }
}
