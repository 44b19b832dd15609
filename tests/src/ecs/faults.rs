//! What goes wrong on purpose: seeded, settable for each action, counted down or by chance.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::random::Random;
use super::refusal::Refusal;
use super::throttle;

/// A fault that waits for calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The action it is for; `*` is every one.
    pub action: String,
    /// Only calls whose `NetworkInterfaceId` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eni: Option<String>,
    /// How many calls it is for; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Out of 1000 calls that it could be for, how many it is for; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_mille: Option<u64>,
    /// For how long it waits, in milliseconds; absent: until it has struck `times` or is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u32>,
    /// What goes wrong.
    pub what: FaultKind,
}

impl Fault {
    /// One for all calls of an action, until it is cleared.
    pub fn new(action: impl Into<String>, what: FaultKind) -> Self {
        Self { action: action.into(), eni: None, times: None, per_mille: None, for_ms: None, what }
    }
}

/// What can go wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// It is refused.
    Error {
        /// HTTP status.
        status: u16,
        /// `Code`.
        code: String,
        /// Whether it takes effect all the same.
        #[serde(default)]
        takes_effect: bool,
    },
    /// It waits before it is served.
    Latency {
        /// In milliseconds.
        ms: u32,
    },
    /// The connection closes without an answer.
    LostAnswer {
        /// When it takes effect.
        effect: LostEffect,
    },
    /// It sees the world as it was.
    StaleRead {
        /// In milliseconds; at most ten minutes.
        ms: u32,
    },
    /// `Throttling.User`.
    Throttle,
    /// The answer is no JSON.
    Garbage,
    /// The answer has no `DeviceIndex`: a member without its VLAN id.
    HideVlan,
    /// `DetachNetworkInterface` is answered, and the ENI sticks in `Detaching` until it is sent
    /// again.
    StuckDetach,
}

/// When a call takes effect whose answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostEffect {
    /// Before the connection closes.
    Done,
    /// So many milliseconds after it has closed.
    LateMs(u32),
    /// Never: the request was lost, not the answer.
    Never,
}

/// What one call suffers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Suffered {
    /// Refused instead of served.
    pub(crate) refused: Option<Refusal>,
    /// Served, and refused all the same.
    pub(crate) refused_after: Option<Refusal>,
    /// In milliseconds.
    pub(crate) latency_ms: u32,
    pub(crate) lost: Option<LostEffect>,
    pub(crate) stale_ms: Option<u32>,
    pub(crate) garbage: bool,
    pub(crate) hide_vlan: bool,
    pub(crate) stuck_detach: bool,
}

impl Suffered {
    pub(crate) fn anything(&self) -> bool {
        self != &Self::default()
    }

    fn add(&mut self, action: &str, what: &FaultKind) {
        match what {
            FaultKind::Error { status, code, takes_effect } => {
                let refusal = Refusal::new(*status, code, format!("The lab refuses {action}."));
                let place = if *takes_effect { &mut self.refused_after } else { &mut self.refused };
                *place = Some(refusal);
            }
            FaultKind::Latency { ms } => self.latency_ms = self.latency_ms.saturating_add(*ms),
            FaultKind::LostAnswer { effect } => self.lost = Some(*effect),
            FaultKind::StaleRead { ms } => self.stale_ms = Some(*ms),
            FaultKind::Throttle => self.refused = Some(throttle::throttled(action)),
            FaultKind::Garbage => self.garbage = true,
            FaultKind::HideVlan => self.hide_vlan = true,
            FaultKind::StuckDetach => self.stuck_detach = true,
        }
    }
}

/// All faults that wait.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    /// Each with its end, if it has one.
    waiting: Vec<(Fault, Option<Timestamp>)>,
    random: Random,
}

impl Faults {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { waiting: Vec::new(), random: Random::new(seed) }
    }

    pub(crate) fn add(&mut self, fault: Fault, now: Timestamp) {
        let until = fault.for_ms.map(|ms| now + SignedDuration::from_millis(ms.into()));
        self.waiting.push((fault, until));
    }

    /// Those that still wait.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<Fault> {
        let waits = |until: &Option<Timestamp>| until.is_none_or(|until| now < until);
        let waiting = self.waiting.iter().filter(|(_, until)| waits(until));
        waiting.map(|(fault, _)| fault.clone()).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// From here on the same calls suffer the same.
    pub(crate) const fn seed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// What a call suffers; counted faults count down.
    pub(crate) fn strike(&mut self, action: &str, eni: Option<&str>, now: Timestamp) -> Suffered {
        let mut suffered = Suffered::default();
        let random = &mut self.random;
        self.waiting.retain_mut(|(fault, until)| {
            if until.is_some_and(|until| until <= now) {
                return false;
            }
            let meant = (fault.action == "*" || fault.action == action)
                && fault.eni.as_deref().is_none_or(|meant| eni == Some(meant));
            if !meant || !fault.per_mille.is_none_or(|chance| random.chance(chance)) {
                return true;
            }
            suffered.add(action, &fault.what);
            fault.times = fault.times.map(|times| times.saturating_sub(1));
            fault.times != Some(0)
        });
        suffered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn faults(waiting: impl IntoIterator<Item = Fault>) -> Faults {
        let mut faults = Faults::new(1);
        waiting.into_iter().for_each(|fault| faults.add(fault, NOW));
        faults
    }

    #[test]
    fn a_counted_fault_strikes_so_often_and_its_action_only() {
        let twice = Fault { times: Some(2), ..Fault::new("Attach", FaultKind::Throttle) };
        let mut faults = faults([twice]);
        assert!(!faults.strike("Detach", None, NOW).anything());
        assert_eq!(faults.strike("Attach", None, NOW).refused.unwrap().code, "Throttling.User");
        assert!(faults.strike("Attach", None, NOW).anything());
        assert!(!faults.strike("Attach", None, NOW).anything());
        assert_eq!(faults.list(NOW), []);
    }

    #[test]
    fn faults_of_one_call_add_up() {
        let late = FaultKind::LostAnswer { effect: LostEffect::LateMs(10) };
        let mut faults = faults([
            Fault::new("*", FaultKind::Latency { ms: 100 }),
            Fault::new("*", FaultKind::Latency { ms: 50 }),
            Fault { eni: Some("eni-1".to_owned()), ..Fault::new("*", late) },
        ]);
        let suffered = faults.strike("Assign", Some("eni-1"), NOW);
        assert_eq!(suffered.latency_ms, 150);
        assert_eq!(suffered.lost, Some(LostEffect::LateMs(10)));
        assert_eq!(faults.strike("Assign", Some("eni-2"), NOW).lost, None);
    }

    #[test]
    fn a_fault_for_a_while_strikes_all_calls_and_ends_by_itself() {
        let throttle = Fault { for_ms: Some(1000), ..Fault::new("*", FaultKind::Throttle) };
        let mut faults = faults([throttle]);
        let at = |ms| NOW + SignedDuration::from_millis(ms);
        assert!((0..1000).all(|ms| faults.strike("A", None, at(ms)).anything()));
        assert_eq!((faults.list(at(999)).len(), faults.list(at(1000)).len()), (1, 0));
        assert!(!faults.strike("A", None, at(1000)).anything());
    }

    #[test]
    fn chance_is_seeded() {
        let half = Fault { per_mille: Some(500), ..Fault::new("*", FaultKind::Garbage) };
        let mut faults = faults([half]);
        let mut run = |seed| {
            faults.seed(seed);
            (0..32).map(|_call| faults.strike("A", None, NOW).garbage).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }

    #[test]
    fn a_fault_reads_as_it_is_documented() {
        let text = r#"{"action":"AssignPrivateIpAddresses","times":1,
            "what":{"kind":"lost_answer","effect":{"late_ms":500}}}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        assert_eq!(fault.what, FaultKind::LostAnswer { effect: LostEffect::LateMs(500) });
        let text =
            r#"{"action":"*","what":{"kind":"error","status":403,"code":"Operation.Conflict"}}"#;
        assert!(serde_json::from_str::<Fault>(text).is_ok());
        assert!(serde_json::from_str::<Fault>(r#"{"action":"*","what":{"kind":"none"}}"#).is_err());
    }
}
