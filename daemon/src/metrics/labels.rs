//! The values of labels: closed sets.

use std::fmt;

use cloud::{CloudError, Meaning};
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use crate::ipam::DisagreementKind;

/// An action of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Action(pub(super) cloud::Action);

impl EncodeLabelValue for Action {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.name().encode(encoder)
    }
}

/// What an address of a shared ENI is for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressState {
    /// For the next pod.
    Idle,
    /// A pod has it.
    Used,
    /// Its pod is gone; nobody gets it yet.
    Resting,
    /// The cloud is to take it back.
    Leaving,
}

impl AddressState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Used, Self::Resting, Self::Leaving];

    /// As the label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Used => "used",
            Self::Resting => "resting",
            Self::Leaving => "leaving",
        }
    }
}

impl EncodeLabelValue for AddressState {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.name().encode(encoder)
    }
}

/// What two witnesses differ about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Disagreement(pub(super) DisagreementKind);

impl EncodeLabelValue for Disagreement {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self.0 {
            DisagreementKind::AddressUnknown => "address_unknown",
            DisagreementKind::AddressVanished => "address_vanished",
            DisagreementKind::AddressInUse => "address_in_use",
            DisagreementKind::EniUnknown => "eni_unknown",
            DisagreementKind::EniVanished => "eni_vanished",
            DisagreementKind::LinkMissing => "link_missing",
            DisagreementKind::RecordStale => "record_stale",
        };
        name.encode(encoder)
    }
}

/// What came of changed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReloadResult {
    /// They were taken up, as far as that is possible while the daemon runs.
    Taken,
    /// They were bad: what was there before stays.
    Refused,
}

impl ReloadResult {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Taken, Self::Refused];

    /// As the label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
        }
    }
}

impl EncodeLabelValue for ReloadResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.name().encode(encoder)
    }
}

/// What came of a call, by what its answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallResult {
    /// It was done.
    Ok,
    /// The vSwitch has no address left.
    VSwitchExhausted,
    /// The instance has all its ENIs.
    EniQuota,
    /// The ENI has all its addresses.
    AddressQuota,
    /// The address is somebody's already.
    AddressTaken,
    /// The account has all that it is allowed.
    AccountQuota,
    /// Too many calls, by the cloud's count.
    Throttled,
    /// Another write to the same object is on its way.
    Conflict,
    /// It is not there.
    NotFound,
    /// The ENI is in a state that does not allow it.
    EniState,
    /// The instance is in a state that does not allow it.
    InstanceState,
    /// The token was used with other parameters.
    TokenMismatch,
    /// No keys, or keys that have run out.
    Credentials,
    /// Our clock is wrong.
    Clock,
    /// Wrong key, or no permission.
    Forbidden,
    /// The cloud's own failure.
    Unavailable,
    /// Another refusal.
    Other,
    /// A write without an answer that tells: it may take effect.
    Unknown,
    /// A read without an answer, or a write that was not sent.
    NoAnswer,
    /// An answer that is none.
    Garbage,
    /// It breaks a limit of the API: not sent.
    NotSent,
    /// Our own budget has no room: not sent.
    Budget,
}

impl CallResult {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Ok,
        Self::VSwitchExhausted,
        Self::EniQuota,
        Self::AddressQuota,
        Self::AddressTaken,
        Self::AccountQuota,
        Self::Throttled,
        Self::Conflict,
        Self::NotFound,
        Self::EniState,
        Self::InstanceState,
        Self::TokenMismatch,
        Self::Credentials,
        Self::Clock,
        Self::Forbidden,
        Self::Unavailable,
        Self::Other,
        Self::Unknown,
        Self::NoAnswer,
        Self::Garbage,
        Self::NotSent,
        Self::Budget,
    ];

    /// As the label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::VSwitchExhausted => "vswitch_exhausted",
            Self::EniQuota => "eni_quota",
            Self::AddressQuota => "address_quota",
            Self::AddressTaken => "address_taken",
            Self::AccountQuota => "account_quota",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
            Self::EniState => "eni_state",
            Self::InstanceState => "instance_state",
            Self::TokenMismatch => "token_mismatch",
            Self::Credentials => "credentials",
            Self::Clock => "clock",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
            Self::Other => "other",
            Self::Unknown => "unknown",
            Self::NoAnswer => "no_answer",
            Self::Garbage => "garbage",
            Self::NotSent => "not_sent",
            Self::Budget => "budget",
        }
    }
}

impl EncodeLabelValue for CallResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.name().encode(encoder)
    }
}

impl<T> From<&Result<T, CloudError>> for CallResult {
    fn from(result: &Result<T, CloudError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(CloudError::Refused(error)) => Self::from(&error.meaning),
            Err(CloudError::Unknown { .. }) => Self::Unknown,
            Err(CloudError::NoAnswer { .. }) => Self::NoAnswer,
            Err(CloudError::Garbage { .. }) => Self::Garbage,
            Err(CloudError::NotSent { .. }) => Self::NotSent,
            Err(CloudError::Budget { .. }) => Self::Budget,
            Err(CloudError::Credentials { .. }) => Self::Credentials,
        }
    }
}

impl From<&Meaning> for CallResult {
    fn from(meaning: &Meaning) -> Self {
        match meaning {
            Meaning::VSwitchExhausted { .. } => Self::VSwitchExhausted,
            Meaning::EniQuota => Self::EniQuota,
            Meaning::V4Quota | Meaning::V6Quota => Self::AddressQuota,
            Meaning::AddressTaken => Self::AddressTaken,
            Meaning::AccountQuota => Self::AccountQuota,
            Meaning::Throttled => Self::Throttled,
            Meaning::Conflict => Self::Conflict,
            Meaning::NotFound(_) => Self::NotFound,
            Meaning::EniState => Self::EniState,
            Meaning::InstanceState => Self::InstanceState,
            Meaning::TokenMismatch => Self::TokenMismatch,
            Meaning::ExpiredCredentials => Self::Credentials,
            Meaning::Clock => Self::Clock,
            Meaning::Forbidden => Self::Forbidden,
            Meaning::Unavailable => Self::Unavailable,
            Meaning::Other => Self::Other,
        }
    }
}
