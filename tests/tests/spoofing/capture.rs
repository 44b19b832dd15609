//! What arrives at the VPC's ports of a node, tagged or not, before the VPC judges it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use terway_lab::lab::Lab;
use terway_lab::traffic::{Tag, Wire};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{LIMIT, LOOK};

/// Longer than any test.
const ALL_THE_TIME: Duration = Duration::from_hours(1);

/// Frames by port, in the order of their arrival at each.
type Frames = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Runs until it is dropped.
pub(crate) struct Capture {
    frames: Frames,
    tasks: Vec<JoinHandle<()>>,
}

impl Capture {
    /// At the port of every NIC of a node.
    pub(crate) async fn start(lab: &Lab, node: &str) -> Self {
        let frames = Frames::default();
        let mut tasks = Vec::new();
        let ports = lab.fabric().ports().await.into_iter();
        for port in ports.filter(|port| port.node == node && port.link.is_some()) {
            let wire = Wire::open(lab.fabric().vpc(), &port.port, Tag::Any).await.unwrap();
            tasks.push(tokio::spawn(collect(wire, port.port, Arc::clone(&frames))));
        }
        assert!(tasks.len() > 1, "eth0 and an ENI at least");
        Self { frames, tasks }
    }

    /// The port at which a frame with these bytes arrived.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<String> {
        let frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let has = |frame: &[u8]| frame.windows(bytes.len()).any(|window| window == bytes);
        frames.iter().find(|(_, frame)| has(frame)).map(|(port, _)| port.clone())
    }

    /// Waits for a frame with these bytes.
    pub(crate) async fn arrives(&self, bytes: &[u8]) {
        let arrived = timeout(LIMIT, async {
            while self.find(bytes).is_none() {
                sleep(LOOK).await;
            }
        });
        let text = String::from_utf8_lossy(bytes);
        arrived.await.unwrap_or_else(|_| panic!("no frame with {text:?} left the node"));
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn collect(wire: Wire, port: String, frames: Frames) {
    let keep = |bytes: &[u8]| {
        let mut frames = frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.push((port.clone(), bytes.to_owned()));
        None::<()>
    };
    drop(wire.receive(ALL_THE_TIME, keep).await);
}
