//! Whether the daemon takes requests yet. The sockets are there as soon as the daemon holds the
//! checkpoint's lock, so that STATUS can say what it is waiting for.

use std::fmt;
use std::sync::Arc;

use proto::agent::{Failure, Reason};
use tokio::sync::watch;

use crate::pods::Pods;

/// Whether an ADD could be served; answered from memory.
pub trait Health: fmt::Debug + Send + Sync {
    /// Why not.
    fn now(&self) -> Result<(), NotReady>;
}

/// Why an ADD could not be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// New pods have to wait.
    New(String),
    /// And pods that run may be cut off.
    AndRunning(String),
}

/// What the daemon is doing.
#[derive(Debug, Clone)]
pub enum State {
    /// It waits for this.
    Starting(&'static str),
    /// This node takes no pods, for this.
    Refused(String),
    /// It serves.
    Serving(Serving),
    /// It ends.
    Stopping,
}

/// What it serves with.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The sandboxes.
    pub pods: Arc<Pods>,
    /// Whether they can get more.
    pub health: Arc<dyn Health>,
}

/// The state, for all who serve. Clones share it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<State>>);

impl Gate {
    /// Closed.
    pub fn new(waiting_for: &'static str) -> Self {
        Self(Arc::new(watch::Sender::new(State::Starting(waiting_for))))
    }

    /// Changes the state.
    pub fn set(&self, state: State) {
        self.0.send_replace(state);
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }

    /// Wakes at each change.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    /// What to serve with, or why not.
    pub fn serving(&self) -> Result<Serving, String> {
        match &*self.0.borrow() {
            State::Serving(serving) => Ok(serving.clone()),
            State::Starting(waiting_for) => Err(format!("terwayd is starting: {waiting_for}")),
            State::Refused(why) => Err(format!("this node takes no pods: {why}")),
            State::Stopping => Err("terwayd is stopping".to_owned()),
        }
    }

    /// The answer to STATUS.
    pub fn status(&self) -> Result<(), Failure> {
        let not_ready = match self.serving() {
            Ok(serving) => serving.health.now().err(),
            Err(why) => Some(NotReady::New(why)),
        };
        let (reason, what) = match not_ready {
            None => return Ok(()),
            Some(NotReady::New(what)) => (Reason::NotAvailable, what),
            Some(NotReady::AndRunning(what)) => (Reason::NotAvailableAndLimited, what),
        };
        let details = "`terwayctl status` shows more".to_owned();
        Err(Failure { reason: reason.into(), message: format!("STATUS: {what}"), details })
    }
}
