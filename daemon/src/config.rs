//! `eni_conf`, parsed once into types; a wrong value is an error that names its key.

use std::path::Path;

use model::IpStack;

/// How an ENI's tables are reached (`rule_layout`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleLayout {
    /// `per-eni`: two rules per ENI, by incoming link and by mark.
    #[default]
    PerEni,
    /// `per-pod`: by address, where marks cannot be used.
    PerPod,
}

/// Whose MAC a member's frames carry on the trunk (`member_mac`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberMac {
    /// `trunk`.
    #[default]
    Trunk,
    /// `own`: the member's, and its gateway's.
    Own,
}

/// `eni_conf`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `ip_stack`.
    pub stack: IpStack,
    /// `enable_eni_trunking`.
    pub trunking: bool,
    /// `mark_mask`: the bits of a packet's mark that are ours.
    pub mark_mask: u32,
    /// `rule_layout`.
    pub rule_layout: RuleLayout,
    /// `member_mac`.
    pub member_mac: MemberMac,
}

/// A bad `eni_conf`: exit 64 and this line.
#[derive(Debug, thiserror::Error)]
#[error("config")]
pub struct ConfigError;

/// Something in `eni_conf` that is no error but should be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// A key nobody knows, and the nearest that is known.
    Unknown { key: String, nearest: Option<&'static str> },
    /// A key of the reference's that has no effect yet.
    Unused { key: String },
}

impl Config {
    /// Parses the JSON of `eni_conf`; `path` is for messages.
    pub fn parse(_json: &str, _path: &Path) -> Result<(Self, Vec<Remark>), ConfigError> {
        unimplemented!("owner: ipam")
    }
}
