//! CHECK: the kernel against what the sandbox should have.

use std::path::Path;

use model::SandboxKey;
use tokio::time::Instant;

use super::{Attachment, Interruption, Namespace, PodError, Pods};
use crate::checkpoint::Phase;

/// What CHECK saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// What the sandbox should have.
    pub attachment: Attachment,
    /// How the kernel differs, one sentence each.
    pub differences: Vec<String>,
}

impl Pods {
    /// Compares; changes nothing.
    pub async fn check(
        &self,
        key: &SandboxKey,
        netns: &Path,
        deadline: Instant,
    ) -> Result<Checked, PodError> {
        let turn = tokio::time::timeout_at(deadline, self.turns.lock(key.clone())).await;
        let _turn = turn.map_err(|_elapsed| Interruption::Deadline)?;
        let record = self.record(key).filter(|record| record.phase == Phase::Up);
        let record = record.ok_or(PodError::Unknown)?;
        if self.network.namespace(netns) == Namespace::Absent {
            return Err(PodError::NamespaceGone(netns.to_owned()));
        }
        let has = &record.pod.spec.netns;
        if has != netns {
            let (has, asked) = (has.clone(), netns.to_owned());
            return Err(PodError::OtherNamespace { has, asked });
        }
        let checked = tokio::time::timeout_at(deadline, self.network.check(key)).await;
        let mut differences = checked.map_err(|_elapsed| Interruption::Deadline)??;
        differences.extend(self.addresses.cut_off(key));
        Ok(Checked { attachment: self.attachment(record), differences })
    }
}
