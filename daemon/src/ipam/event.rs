//! What happens to the pool and what follows from it: closed sets, so that a step is a function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cloud::{ClientToken, Meaning, Priority, Thing};
use controlplane::{Answer, Call, CallError, Verb};
use ipnetwork::IpNetwork;
use model::{EniId, IpPair, SandboxKey, VSwitch, VSwitchId};

use super::disagreement::Disagreement;
use super::{AllocError, Allocation, Lot, Options, Request};
use crate::checkpoint::Change;
use crate::datapath::{EniLink, EniSpec};

/// Names one question of a caller's.
pub(crate) type Ticket = u64;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody wants an address by then.
    Allocate { ticket: Ticket, request: Request, deadline: Duration },
    /// Whoever asked that does not want the answer, or did not get it.
    Cancel { ticket: Ticket, key: SandboxKey },
    /// The sandbox is gone.
    Release { ticket: Ticket, key: SandboxKey },
    /// A sandbox that has an address asks whether it still has it.
    Confirm { ticket: Ticket, key: SandboxKey, deadline: Duration },
    /// An effect was carried out, or failed; it was handed out at `begun`.
    Told { begun: Duration, told: Told },
    /// Effects that were not carried out, for what had to be durable before is not.
    Unwritten { begun: Duration, effects: Vec<Effect>, error: String },
    /// The kernel has no link of this ENI any more.
    LinkGone(EniId),
    /// Another configuration is taken up: for what is made and kept from now on.
    Reconfigure(Box<Options>),
    /// Time has passed.
    Tick,
    /// The daemon ends: nobody gets an address any more.
    Stop,
}

/// What is to be done; its outcome comes back as [`Told`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Ask the cloud.
    Ask(Ask),
    /// Bring the ENI's link up.
    SetLink(ClientToken, EniSpec),
    /// Forget the ENI's link.
    RemoveLink(EniId),
    /// Ask the kernel which of these addresses are in use, and who uses this ENI if it is to go.
    Witness { port: ClientToken, eni: Option<EniId>, addresses: Vec<IpAddr> },
    /// Ask the kernel which of these addresses, of an ENI in no record, are in use.
    WitnessOrphan { eni: EniId, addresses: Vec<IpAddr> },
    /// Ask the kernel which of these idle addresses are in use.
    Audit(Vec<IpAddr>),
    /// Remove what is left in the kernel of addresses that have rested.
    Bury(Vec<IpPair>),
    /// Tell a caller that its release is durable.
    Released(Ticket, SandboxKey),
    /// Say that this try to write all again is durable.
    Rewritten(u64),
}

/// A question to the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// For the life of an ENI.
    Eni(Whose, Call),
    /// All ENIs of this instance.
    Instance,
    /// All ENIs with these tags.
    Tagged(BTreeMap<String, String>),
    /// A vSwitch.
    VSwitch(VSwitchId),
    /// More addresses.
    Assign { port: ClientToken, eni: EniId, lot: Lot, count: u32, token: ClientToken },
    /// Fewer: single addresses, or prefixes.
    Unassign { port: ClientToken, eni: EniId, blocks: Vec<IpNetwork> },
}

/// Which fleet an ENI belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The node's.
    Pool,
    /// The pods'.
    Members,
    /// Those in no record.
    Orphans,
}

/// What came of an effect.
#[derive(Debug)]
pub(crate) enum Told {
    /// To [`Ask::Eni`].
    Eni(Whose, Answer),
    /// To [`Ask::Instance`].
    Instance(Result<Vec<cloud::Eni>, CallError>),
    /// To [`Ask::Tagged`].
    Tagged(Result<Vec<cloud::Eni>, CallError>),
    /// To [`Ask::VSwitch`].
    VSwitch(VSwitchId, Result<Option<VSwitch>, CallError>),
    /// To [`Ask::Assign`].
    Assigned { port: ClientToken, lot: Lot, result: Result<Vec<IpNetwork>, CallError> },
    /// To [`Ask::Unassign`].
    Unassigned { port: ClientToken, blocks: Vec<IpNetwork>, result: Result<(), CallError> },
    /// To [`Effect::SetLink`].
    LinkSet(ClientToken, Result<EniLink, String>),
    /// To [`Effect::RemoveLink`].
    LinkRemoved(EniId, Result<(), String>),
    /// To [`Effect::Witness`]: those that are in use.
    Witnessed { port: ClientToken, result: Result<BTreeSet<IpAddr>, String> },
    /// To [`Effect::WitnessOrphan`]: those that are in use.
    OrphanWitnessed { eni: EniId, result: Result<BTreeSet<IpAddr>, String> },
    /// To [`Effect::Audit`]: those that are in use.
    Audited(Result<BTreeSet<IpAddr>, String>),
    /// To [`Effect::Bury`].
    Buried(Vec<IpPair>, Result<(), String>),
    /// To [`Effect::Rewritten`].
    Rewritten(u64),
}

/// What follows from an event. `writes` are durable before any of `effects` begins; `answers` need
/// nothing on the disk, for an allocation lives in the record that its caller writes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// To the callers.
    pub(crate) answers: Vec<(Ticket, Result<Allocation, AllocError>)>,
    /// To those who asked whether they still have what they have.
    pub(crate) confirmations: Vec<(Ticket, Result<(), AllocError>)>,
    /// In one transaction.
    pub(crate) writes: Vec<Change>,
    /// Facts whose loss a restart mends.
    pub(crate) notes: Vec<Change>,
    /// Side by side.
    pub(crate) effects: Vec<Effect>,
    /// Where two witnesses differ.
    pub(crate) disagreements: Vec<Disagreement>,
}

impl Effect {
    /// What is told when it was not carried out; `None` for what only answers a caller.
    pub(crate) fn undone(self, error: &str) -> Option<Told> {
        let text = || error.to_owned();
        Some(match self {
            Self::Ask(ask) => ask.undone(CallError::NotRecorded(text())),
            Self::SetLink(port, _) => Told::LinkSet(port, Err(text())),
            Self::RemoveLink(eni) => Told::LinkRemoved(eni, Err(text())),
            Self::Witness { port, .. } => Told::Witnessed { port, result: Err(text()) },
            Self::WitnessOrphan { eni, .. } => Told::OrphanWitnessed { eni, result: Err(text()) },
            Self::Audit(_) => Told::Audited(Err(text())),
            Self::Bury(addresses) => Told::Buried(addresses, Err(text())),
            Self::Released(..) | Self::Rewritten(_) => return None,
        })
    }
}

impl Ask {
    /// Who goes first when the budget of an action is short; `waiting` if a pod waits.
    pub(crate) fn priority(&self, waiting: bool) -> Priority {
        let ahead = if waiting { Priority::Pod } else { Priority::WarmPool };
        match self {
            Self::Eni(Whose::Orphans, _) | Self::Tagged(_) | Self::Unassign { .. } => {
                Priority::Collection
            }
            Self::Eni(_, Call::Change(_, change)) if change.verb() != Verb::Attach => {
                Priority::Collection
            }
            Self::Eni(..) | Self::Instance | Self::VSwitch(_) | Self::Assign { .. } => ahead,
        }
    }

    fn undone(self, error: CallError) -> Told {
        match self {
            Self::Eni(whose, call) => Told::Eni(whose, call.unsent(error)),
            Self::Instance => Told::Instance(Err(error)),
            Self::Tagged(_) => Told::Tagged(Err(error)),
            Self::VSwitch(id) => Told::VSwitch(id, Err(error)),
            Self::Assign { port, lot, .. } => Told::Assigned { port, lot, result: Err(error) },
            Self::Unassign { port, blocks, .. } => {
                Told::Unassigned { port, blocks, result: Err(error) }
            }
        }
    }
}

impl Told {
    /// Whether the cloud said that an ENI is not there, or not as we think.
    pub(crate) fn doubts_enis(&self) -> bool {
        let Some(CallError::Cloud(error)) = self.error() else { return false };
        match error.meaning() {
            Some(Meaning::NotFound(Thing::Eni)) => true,
            Some(Meaning::EniState) => {
                matches!(self, Self::Eni(_, Answer::Changed(_, Verb::Attach, _)))
            }
            _ => false,
        }
    }

    /// The cloud's word, if this is one of its errors.
    pub(crate) fn error(&self) -> Option<&CallError> {
        match self {
            Self::Eni(_, answer) => answer.error(),
            Self::Instance(result) | Self::Tagged(result) => result.as_ref().err(),
            Self::VSwitch(_, result) => result.as_ref().err(),
            Self::Assigned { result, .. } => result.as_ref().err(),
            Self::Unassigned { result, .. } => result.as_ref().err(),
            Self::LinkSet(..)
            | Self::LinkRemoved(..)
            | Self::Witnessed { .. }
            | Self::OrphanWitnessed { .. }
            | Self::Audited(_)
            | Self::Rewritten(_)
            | Self::Buried(..) => None,
        }
    }
}
