//! Why there is no address: a reason, a sentence with the numbers, and what happens next.

use std::fmt::Write as _;
use std::time::Duration;

use controlplane::Room;
use model::{EniId, IpPair};
use proto::agent::Reason;

/// Why there is no address. `Display` is one sentence with the numbers; whose address it is says
/// whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// No vSwitch has an address left.
    #[error("no vSwitch of {whose} has a free address ({})", list(rooms))]
    VSwitchExhausted {
        /// Who named them: `eni_conf`, or a PodNetworking.
        whose: String,
        /// How full each is.
        rooms: Vec<Room>,
        /// Until the first of them is tried again.
        next_try: Duration,
        /// The cloud's last word, with its RequestId.
        last_word: Option<String>,
    },
    /// All addresses that the shared ENIs may have are taken.
    #[error(
        "the instance's quota of addresses on shared ENIs is reached: \
         {used} in use, {resting} resting and {leaving} on their way back, of {limit}"
    )]
    Full {
        /// Pods have so many.
        used: u32,
        /// So many wait until they may be handed out again.
        resting: u32,
        /// So many the cloud is to take back.
        leaving: u32,
        /// So many there may be.
        limit: u32,
        /// Until the first of those that rest is idle; `None` if none rests.
        next_free: Option<Duration>,
    },
    /// The instance has all it may have.
    #[error("the instance's quota of {quota} is reached: {used} of {limit} in use")]
    QuotaReached {
        /// Of what.
        quota: Quota,
        /// So many are in use.
        used: u32,
        /// So many there may be.
        limit: u32,
        /// The cloud's last word, with its RequestId.
        last_word: Option<String>,
    },
    /// The cloud takes no more calls for the moment.
    #[error("the cloud throttles, and no address came within {}", seconds(*waited))]
    Throttled {
        /// So long was waited.
        waited: Duration,
        /// Until the next call.
        next_try: Duration,
        /// The cloud's last word, with its RequestId.
        last_word: String,
    },
    /// The member ENI did not get where it should.
    #[error("member ENI {} is not bound: phase {phase}, {message}", name(eni.as_ref()))]
    PodEniNotBound {
        /// Once it has an id.
        eni: Option<EniId>,
        /// How far it came.
        phase: &'static str,
        /// Why no further.
        message: String,
        /// What becomes of it.
        next: String,
    },
    /// The cloud has taken an address from its ENI, or the ENI from the node.
    #[error("the cloud does not know {addresses} on ENI {eni} any more; the pod is cut off")]
    AddressLost {
        /// The pod's.
        addresses: IpPair,
        /// Where they were.
        eni: EniId,
    },
    /// No address yet.
    #[error("no address within {}: {why}", seconds(*waited))]
    NotYet {
        /// So long was waited.
        waited: Duration,
        /// What was waited for.
        why: String,
        /// What happens next.
        next: String,
    },
    /// The pod asks for what is not there.
    #[error("{message}")]
    InvalidConfig {
        /// What and why.
        message: String,
        /// What to do.
        cure: String,
    },
    /// The change could not be written down.
    #[error("the change could not be written to the checkpoint: {0}")]
    Checkpoint(String),
    /// A release of the same sandbox came first.
    #[error("the sandbox was released while it waited for an address")]
    Released,
    /// The daemon ends.
    #[error("terwayd is stopping")]
    Stopping,
}

/// What an instance has a quota of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// Member ENIs of its trunk.
    Members,
    /// ENIs.
    Enis,
}

impl std::fmt::Display for Quota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Members => "member ENIs",
            Self::Enis => "ENIs",
        })
    }
}

impl AllocError {
    /// Decides the CNI code.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::VSwitchExhausted { .. } => Reason::VswitchExhausted,
            Self::Full { .. } | Self::QuotaReached { .. } => Reason::QuotaReached,
            Self::Throttled { .. } => Reason::Throttled,
            Self::PodEniNotBound { .. } => Reason::PodEniNotBound,
            Self::AddressLost { .. } => Reason::Unspecified,
            Self::NotYet { .. } | Self::Released | Self::Stopping => Reason::TryAgainLater,
            Self::InvalidConfig { .. } => Reason::InvalidConfig,
            Self::Checkpoint(_) => Reason::Io,
        }
    }

    /// A pod names a PodNetworking that there is not.
    pub fn unknown_pod_networking(name: &str, known: &[String]) -> Self {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Self::InvalidConfig {
            message: format!("there is no PodNetworking {name:?} (known: {known})"),
            cure: "correct the annotation k8s.aliyun.com/pod-networking, or add the PodNetworking"
                .to_owned(),
        }
    }

    /// What happens next and what to do: next try, quota, RequestId of the cloud's answer.
    pub fn details(&self) -> String {
        match self {
            Self::VSwitchExhausted { next_try, last_word, .. } => {
                let cure = "add a vSwitch of the node's zone, or free addresses";
                let next = seconds(*next_try);
                with(&format!("next try of a vSwitch in {next}; {cure}"), last_word.as_deref())
            }
            Self::Full { next_free, .. } => {
                let cure = "move pods to another node or take a larger instance type";
                let next = next_free
                    .map(|next| format!("the next resting address is free in {}", seconds(next)));
                let next = next.unwrap_or_else(|| {
                    "one is free again when a pod of this node ends and its address has rested"
                        .to_owned()
                });
                format!("{next}; else {cure}")
            }
            Self::QuotaReached { quota, last_word, .. } => {
                let cure = match quota {
                    Quota::Enis => {
                        "it is free again when a pod of this node ends; \
                         else move pods to another node or take a larger instance type"
                    }
                    Quota::Members => {
                        "it is free again when a pod with a member ENI ends on this node; \
                         else move pods to another node or take a larger instance type"
                    }
                };
                with(cure, last_word.as_deref())
            }
            Self::Throttled { next_try, last_word, .. } => {
                let next = format!("next call in {}", seconds(*next_try));
                with(&next, Some(last_word))
            }
            Self::PodEniNotBound { next, .. } | Self::NotYet { next, .. } => next.clone(),
            Self::InvalidConfig { cure, .. } => cure.clone(),
            Self::AddressLost { .. } => {
                "delete the pod, so that it is made again with another address".to_owned()
            }
            Self::Checkpoint(_) => {
                "free space or mend the disk of the daemon's state directory".to_owned()
            }
            Self::Released | Self::Stopping => "the runtime will try again".to_owned(),
        }
    }
}

fn list(rooms: &[Room]) -> String {
    rooms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn name(eni: Option<&EniId>) -> &str {
    eni.map_or("(not made yet)", EniId::as_str)
}

/// Whole seconds, or milliseconds below one.
pub(super) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{}ms", time.as_millis()),
        seconds => format!("{seconds}s"),
    }
}

pub(super) fn with(text: &str, last_word: Option<&str>) -> String {
    let mut text = text.to_owned();
    if let Some(word) = last_word {
        // Writing to a String cannot fail.
        let _written = write!(text, "; the cloud's last word: {word}");
    }
    text
}

#[cfg(test)]
mod tests {
    use model::VSwitchId;

    use super::*;

    #[test]
    fn an_error_says_why_in_numbers_and_what_happens_next() {
        let word = "CreateNetworkInterface: InvalidVSwitchId.IpNotEnough (request R-7)".to_owned();
        let room = |id: &str| Room { id: VSwitchId::new(id), free: 0, size: 252 };
        let errors = [
            AllocError::VSwitchExhausted {
                whose: "eni_conf".to_owned(),
                rooms: vec![room("vsw-a"), room("vsw-b")],
                next_try: Duration::from_secs(42),
                last_word: Some(word.clone()),
            },
            AllocError::QuotaReached {
                quota: Quota::Members,
                used: 22,
                limit: 22,
                last_word: None,
            },
            AllocError::Throttled {
                waited: Duration::from_millis(900),
                next_try: Duration::from_secs(3),
                last_word: word,
            },
            AllocError::PodEniNotBound {
                eni: Some(EniId::new("eni-1")),
                phase: "Attaching",
                message: "the cloud still says Attaching after 55s".to_owned(),
                next: "it is deleted, and made anew for the next try".to_owned(),
            },
        ];
        let shown =
            errors.map(|e| format!("{:?}\n  {e}\n  {}", e.reason(), e.details())).join("\n");
        insta::assert_snapshot!(shown, @r"
        VswitchExhausted
          no vSwitch of eni_conf has a free address (vsw-a: 0 of 252 free, vsw-b: 0 of 252 free)
          next try of a vSwitch in 42s; add a vSwitch of the node's zone, or free addresses; the cloud's last word: CreateNetworkInterface: InvalidVSwitchId.IpNotEnough (request R-7)
        QuotaReached
          the instance's quota of member ENIs is reached: 22 of 22 in use
          it is free again when a pod with a member ENI ends on this node; else move pods to another node or take a larger instance type
        Throttled
          the cloud throttles, and no address came within 900ms
          next call in 3s; the cloud's last word: CreateNetworkInterface: InvalidVSwitchId.IpNotEnough (request R-7)
        PodEniNotBound
          member ENI eni-1 is not bound: phase Attaching, the cloud still says Attaching after 55s
          it is deleted, and made anew for the next try
        ");
    }
}
