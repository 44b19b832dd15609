//! Points at which a test makes the daemon die as by `kill -9`: one between any two effects of ADD,
//! DEL and the bring-up of an ENI.
//!
//! `TERWAYD_FAILPOINT=add.intent` kills the process when it gets there for the first time,
//! `TERWAYD_FAILPOINT=add.intent@3` the third time: a point whose name ends in `.step` lies between any
//! two steps in the kernel and is passed several times, so a test counts up until the daemon
//! survives. The variable is read once, by [`arm`]; when it
//! is not set, [`reach`] is one relaxed load. `terwayd --list-failpoints` prints all names, so that a
//! test goes through them without knowing them.
//!
//! To add one: a line in the list below, and `failpoints::reach(Point::…)` between the two effects.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A place between two effects.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Point {
            $($(#[$doc])* $point,)*
        }

        impl Point {
            /// All there are, in the order in which they are passed.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// As the variable spells it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// Any ENI: a part of its network stands (links, maps, routes, rules, filters).
    EniStep = "eni.step",
    /// Repair: a part of it is done.
    RepairStep = "repair.step",
    /// ADD: an address is taken, in memory.
    AddAllocated = "add.allocated",
    /// ADD: the intent is durable, the kernel is as before.
    AddIntent = "add.intent",
    /// ADD: a part of the pod's network stands.
    AddStep = "add.step",
    /// ADD: the pod's network stands, the record still says "adding".
    AddApplied = "add.applied",
    /// ADD: "up" is on its way to the disk, nobody was answered.
    AddNoted = "add.noted",
    /// DEL: "deleting" is on its way to the disk, the kernel is as before.
    DelIntent = "del.intent",
    /// DEL: a part of the pod's network is gone.
    DelStep = "del.step",
    /// DEL: the pod's network is gone, the record still stands.
    DelApplied = "del.applied",
    /// DEL: record gone and address at rest, a queued request still in its file.
    DelReleased = "del.released",
    /// DEL: nothing left but the answer.
    DelDone = "del.done",
    /// ENI of the pool: the intent is durable, the cloud knows nothing.
    EniIntent = "eni.intent",
    /// ENI of the pool: it is made, and its id in no record.
    EniMade = "eni.made",
    /// ENI of the pool: it is being attached.
    EniAttached = "eni.attached",
    /// ENI of the pool: it is attached, and that is on its way to the disk.
    EniBound = "eni.bound",
    /// ENI of the pool: its link is up, and nobody was served from it.
    EniLinked = "eni.linked",
    /// ENI of the pool: it has more addresses than the daemon knows.
    EniAssigned = "eni.assigned",
    /// ENI of the pool: it has fewer addresses than the daemon knows.
    EniUnassigned = "eni.unassigned",
    /// Member: the intent is durable, the cloud knows nothing.
    MemberIntent = "member.intent",
    /// Member: it is made, and its id in no record.
    MemberMade = "member.made",
    /// Member: it is being attached.
    MemberAttached = "member.attached",
    /// Member: it is attached, and that is on its way to the disk.
    MemberBound = "member.bound",
    /// Member: its end is durable, together with its pod's; it is still attached.
    MemberLeaving = "member.leaving",
    /// Member: it is being detached.
    MemberDetached = "member.detached",
    /// Member: it is deleted, and the record still stands.
    MemberDeleted = "member.deleted",
}

/// A variable that names no point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("TERWAYD_FAILPOINT: {0:?} is none of `terwayd --list-failpoints`, with or without @COUNT")]
pub struct UnknownPoint(String);

/// Where to die, and which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    point: Point,
    count: u32,
}

impl FromStr for Fault {
    type Err = UnknownPoint;

    fn from_str(text: &str) -> Result<Self, UnknownPoint> {
        let unknown = || UnknownPoint(text.to_owned());
        let (name, count) = text.split_once('@').unwrap_or((text, "1"));
        let point = Point::ALL.iter().find(|point| point.name() == name).ok_or_else(unknown)?;
        let count = count.parse().map_err(|_not_a_number| unknown())?;
        if count == 0 { Err(unknown()) } else { Ok(Self { point: *point, count }) }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const DISARMED: u8 = u8::MAX;
static ARMED: AtomicU8 = AtomicU8::new(DISARMED);
static LEFT: AtomicU32 = AtomicU32::new(0);

/// Makes the process die at `fault`. Once, before anything else is started.
pub fn arm(fault: Fault) {
    LEFT.store(fault.count, Ordering::Relaxed);
    ARMED.store(discriminant(fault.point), Ordering::Relaxed);
}

/// Dies here, if this is where the process is to die.
#[inline]
pub fn reach(point: Point) {
    if ARMED.load(Ordering::Relaxed) == discriminant(point) {
        last_time(point);
    }
}

#[cold]
fn last_time(point: Point) {
    if LEFT.fetch_sub(1, Ordering::Relaxed) != 1 {
        return;
    }
    tracing::warn!(%point, "dying at a fail point");
    // As from outside: no destructor runs, no buffer is flushed.
    if let Err(error) = kill(Pid::this(), Signal::SIGKILL) {
        tracing::error!(%error, "still alive");
    }
    loop {
        std::thread::park();
    }
}

#[expect(clippy::as_conversions, reason = "the discriminant of a repr(u8) enum")]
const fn discriminant(point: Point) -> u8 {
    point as u8
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_fault_names_a_point_and_which_time() {
        let fault = |text: &str| text.parse::<Fault>();
        let at = |point, count| Ok(Fault { point, count });
        assert_eq!(fault("add.intent"), at(Point::AddIntent, 1));
        assert_eq!(fault("del.done@12"), at(Point::DelDone, 12));
        for text in ["", "add", "add.intent@", "add.intent@0", "add.intent@x"] {
            let error = fault(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn names_are_distinct() {
        let names: BTreeSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[test]
    fn a_point_that_is_not_armed_is_passed() {
        reach(Point::AddIntent);
    }
}
