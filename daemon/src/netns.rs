//! The only `setns`: a network namespace belongs to a thread that enters it and then dies.

use std::fs::File;
use std::path::Path;

/// A network namespace, held open.
#[derive(Debug)]
pub struct NetNs(File);

/// Why a namespace could not be entered.
#[derive(Debug, thiserror::Error)]
#[error("netns")]
pub struct NetNsError;

impl NetNs {
    /// Opens the namespace at `path`.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        File::open(path).map(Self).map_err(|_error| NetNsError)
    }

    /// Runs `job` on a thread of its own inside the namespace; the thread has the runtime's
    /// reactor, so a socket born there lives on the runtime.
    pub async fn run<T: Send + 'static>(
        &self,
        _job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetNsError> {
        unimplemented!("owner: datapath")
    }
}
