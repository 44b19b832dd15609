//! What this node is: its instance, by the metadata service, and what its type has room for, by the
//! cloud. The quotas of a type do not change under a running machine, so they are kept in the state
//! directory: a restart needs no cloud.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloud::{CallOptions, CloudError, Ecs, InstanceFacts, Metadata, MetadataError, Priority};
use model::{InstanceType, InstanceTypeId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::api::failure::chain;

/// One try; then the next.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// Why the facts cannot be had, ever.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The cloud does not know the type.
    #[error("the cloud does not know the instance type {0}")]
    UnknownType(InstanceTypeId),
}

/// The instance; waits until the metadata service answers.
pub async fn instance(metadata: &Metadata) -> InstanceFacts {
    loop {
        let facts: Result<_, MetadataError> = metadata.instance(Instant::now() + PATIENCE).await;
        match facts {
            Ok(facts) => return facts,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the metadata service does not answer");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The quotas of `id`: from `state` if they are there, else from the cloud, which is waited for.
pub async fn instance_type(
    id: &InstanceTypeId,
    state: &Path,
    cloud: &impl Ecs,
) -> Result<InstanceType, FactsError> {
    let path = state.join("instance-type.json");
    if let Some(kept) = read(&path).filter(|kept| kept.id == *id) {
        return Ok(kept);
    }
    loop {
        let options = CallOptions::new(Priority::Pod, Instant::now() + PATIENCE);
        let answer: Result<_, CloudError> = cloud.instance_type(id, options).await;
        match answer {
            Ok(Some(kind)) => {
                if let Err(error) = keep(&path, &kind) {
                    let path = path.display();
                    tracing::warn!(%path, %error, "the instance type's quotas cannot be kept");
                }
                return Ok(kind);
            }
            Ok(None) => return Err(FactsError::UnknownType(id.clone())),
            Err(error) => {
                tracing::warn!(error = chain(&error), "the instance type's quotas are not known");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The file: never a domain type on the disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: String,
    enis: u32,
    total_enis: u32,
    v4_per_eni: u32,
    v6_per_eni: u32,
    trunk: bool,
}

fn read(path: &Path) -> Option<InstanceType> {
    let Kept { id, enis, total_enis, v4_per_eni, v6_per_eni, trunk } =
        serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let id = InstanceTypeId::new(id);
    Some(InstanceType { id, enis, total_enis, v4_per_eni, v6_per_eni, trunk })
}

fn keep(path: &PathBuf, kind: &InstanceType) -> std::io::Result<()> {
    let InstanceType { id, enis, total_enis, v4_per_eni, v6_per_eni, trunk } = kind.clone();
    let id = id.as_str().to_owned();
    let kept = Kept { id, enis, total_enis, v4_per_eni, v6_per_eni, trunk };
    let aside = path.with_extension("tmp");
    let mut file = File::create(&aside)?;
    file.write_all(&serde_json::to_vec(&kept)?)?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_kept_and_a_torn_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("instance-type.json");
        let id = InstanceTypeId::new("ecs.g7.4xlarge");
        let (enis, total_enis, v4_per_eni, v6_per_eni) = (8, 30, 30, 30);
        let kind = InstanceType { id, enis, total_enis, v4_per_eni, v6_per_eni, trunk: true };
        assert_eq!(read(&path), None);
        keep(&path, &kind).unwrap();
        assert_eq!(read(&path), Some(kind));
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), None);
    }
}
