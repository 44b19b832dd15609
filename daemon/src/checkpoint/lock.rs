//! One daemon at a time: a lock on the state directory itself, so that no lock file is left.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::CheckpointError;

/// Between two looks whether the other daemon is gone.
const LOOK: Duration = Duration::from_millis(100);

/// Held as long as it lives; the kernel lets it go when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct StateLock {
    _directory: File,
}

/// Makes the directory if it is missing, and takes its lock, waiting at most `wait`.
pub(super) async fn acquire(state: &Path, wait: Duration) -> Result<StateLock, CheckpointError> {
    let failed =
        |source| CheckpointError::Directory { path: state.to_owned(), source: Arc::new(source) };
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
    std::fs::set_permissions(state, Permissions::from_mode(0o700)).map_err(failed)?;
    let directory = File::open(state).map_err(failed)?;
    let mut waited = Duration::ZERO;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(StateLock { _directory: directory }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if waited >= wait => {
                return Err(CheckpointError::Locked { path: state.to_owned(), waited });
            }
            Err(TryLockError::WouldBlock) => {
                if waited.is_zero() {
                    tracing::warn!(path = %state.display(), ?wait, "another terwayd holds the state; waiting for it to end");
                }
                tokio::time::sleep(LOOK).await;
                waited += LOOK;
            }
        }
    }
}
