//! A thread that owns something and does one job after the other.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;

use tokio::sync::oneshot;

use super::DatapathError;

/// A handle to a thread that owns an `S` and does one job after the other.
#[derive(Debug)]
pub(super) struct Worker<S>(Sender<Job<S>>);

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Send + 'static> Worker<S> {
    /// Starts it in the namespace of the calling thread; it ends with the last handle.
    pub(super) fn start(name: &str, mut owned: S) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            while let Ok(job) = queue.recv() {
                job(&mut owned);
            }
        })?;
        Ok(Self(jobs))
    }

    /// Runs `job` behind those that came before, also if the caller gives up waiting.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, DatapathError> {
        let (reply, answer) = oneshot::channel();
        let job: Job<S> = Box::new(move |owned| drop(reply.send(job(owned))));
        self.0.send(job).map_err(|_ended| DatapathError::Stopped)?;
        answer.await.map_err(|_ended| DatapathError::Stopped)
    }
}
