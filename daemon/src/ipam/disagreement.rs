//! Where two witnesses of the truth differ: each case is a line in the log with both sides, and counts.

use std::fmt;

/// Two witnesses differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disagreement {
    pub(crate) kind: DisagreementKind,
    /// What it is about.
    pub(crate) subject: String,
    /// What checkpoint and memory say.
    pub(crate) ours: String,
    /// What the other says, and what follows.
    pub(crate) theirs: String,
}

/// What two witnesses differ about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisagreementKind {
    /// The cloud lists an address or prefix that no record knows.
    AddressUnknown,
    /// The cloud does not list an address that a record knows.
    AddressVanished,
    /// The kernel uses an address that is idle by the records.
    AddressInUse,
    /// The cloud has an ENI of ours that no record knows.
    EniUnknown,
    /// The cloud does not have an ENI of a record where it should be.
    EniVanished,
    /// The kernel has no link of an ENI that the cloud says is attached.
    LinkMissing,
    /// A record of the checkpoint names what no other record does.
    RecordStale,
}

impl DisagreementKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::AddressUnknown,
        Self::AddressVanished,
        Self::AddressInUse,
        Self::EniUnknown,
        Self::EniVanished,
        Self::LinkMissing,
        Self::RecordStale,
    ];

    /// For the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddressUnknown => "address unknown",
            Self::AddressVanished => "address vanished",
            Self::AddressInUse => "address in use",
            Self::EniUnknown => "ENI unknown",
            Self::EniVanished => "ENI vanished",
            Self::LinkMissing => "link missing",
            Self::RecordStale => "record stale",
        }
    }
}

impl fmt::Display for DisagreementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
