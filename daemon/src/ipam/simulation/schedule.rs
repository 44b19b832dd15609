//! What happens to the node and when, decided by one seed.

use std::fmt;
use std::time::Duration;

use controlplane::Random;

use super::chance::{chance, pick, range};
use super::whole::Extra;

/// Where the time of a run begins: a machine is not booted at zero.
pub(super) const START: Duration = Duration::from_secs(1000);

/// Something that happens to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// The runtime adds a sandbox, perhaps once more.
    Add { pod: u64, member: bool, wait: Duration },
    /// A sandbox that was given an address writes its record.
    Acknowledge(u64),
    /// The runtime deletes a sandbox, known or not.
    Del(u64),
    /// Who waits goes away, or never sees its answer.
    Cancel(u64),
    /// A repeated ADD asks whether the sandbox still has what it has.
    Confirm(u64, Duration),
    /// The kernel loses a link, and it does not come back.
    Unplug(usize),
    /// Links that were lost come back.
    Plug,
    /// `kill -9`, and a new process after so long.
    Kill(Duration),
    /// The daemon stops and starts.
    Restart(Duration),
    /// The machine boots again.
    Reboot,
    /// The machine is suspended.
    Suspend(Duration),
    /// For so long nothing can be written.
    DiskFull(Duration),
    /// For so long every call is throttled.
    Throttle(Duration),
    /// For so long no call arrives.
    Silence(Duration),
    /// A vSwitch has no address left.
    Empty(usize),
    /// It has again.
    Fill(usize),
    /// A user attaches an ENI.
    UserAttaches,
    /// A user assigns an address to one of our ENIs.
    UserAssigns(usize),
    /// A user takes one away.
    UserTakes(usize, usize),
    /// A user detaches one of our ENIs.
    UserDetaches(usize),
    /// A user deletes one of our ENIs.
    UserDeletes(usize),
    /// One of those that only some schedules have.
    Extra(Extra),
}

/// One move, and when. `seed` is all chance from there to the next one, so that a schedule with one
/// move less goes much like the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: Duration,
    pub(super) seed: u64,
    pub(super) what: Move,
}

/// Moves that a schedule may do without: each schedule has some of them.
const KINDS: usize = 15;

/// A schedule of 50 to 300 moves.
pub(super) fn generate(random: &mut Random) -> Vec<Entry> {
    let kinds: Vec<bool> = (0..KINDS).map(|_| chance(random, 40)).collect();
    let pods = pick(random, &[3, 8, 20, 40]);
    let members = pick(random, &[0, 20, 60]);
    let hectic = pick(random, &[100, 1_500, 1_500, 6_000]);
    let count = range(random, 50, 300);
    let mut at = START;
    (0..count)
        .map(|_| {
            let gap = match range(random, 0, 19) {
                0 => range(random, 10_000, 90_000),
                1..=6 => range(random, 0, 30),
                _ => range(random, 1, hectic),
            };
            at += Duration::from_millis(gap);
            let what = draw(random, &kinds, pods, members);
            Entry { at, seed: random.next(), what }
        })
        .collect()
}

fn draw(random: &mut Random, kinds: &[bool], pods: u64, members: u64) -> Move {
    let pod = range(random, 0, pods - 1);
    // Of all moves so many in a hundred are no pod's.
    if chance(random, 15) {
        let kind = usize::try_from(range(random, 0, 14)).unwrap_or(0);
        if kinds.get(kind) == Some(&true) {
            return rare(random, kind);
        }
    }
    match range(random, 0, 15) {
        0..=5 => {
            let short = chance(random, 25);
            let wait = if short { range(random, 50, 3_000) } else { range(random, 5_000, 90_000) };
            let member = chance(random, members);
            Move::Add { pod, member, wait: Duration::from_millis(wait) }
        }
        6..=10 => Move::Acknowledge(pod),
        11..=13 => Move::Del(pod),
        14 => Move::Cancel(pod),
        _ => Move::Confirm(pod, Duration::from_millis(range(random, 100, 4_000))),
    }
}

fn rare(random: &mut Random, kind: usize) -> Move {
    let which = usize::try_from(range(random, 0, 9)).unwrap_or(0);
    let other = usize::try_from(range(random, 0, 19)).unwrap_or(0);
    let mut pause = |most| Duration::from_millis(range(random, 10, most));
    match kind {
        0 => Move::Kill(pause(3_000)),
        1 => Move::Restart(pause(3_000)),
        2 => Move::Reboot,
        3 => Move::Suspend(pause(2_000_000)),
        4 => Move::DiskFull(pause(60_000)),
        5 => Move::Throttle(pause(120_000)),
        6 => Move::Silence(pause(90_000)),
        7 => Move::Unplug(which),
        8 => Move::Plug,
        9 => {
            if chance(random, 50) {
                Move::Empty(which)
            } else {
                Move::Fill(which)
            }
        }
        10 => Move::UserAttaches,
        11 => Move::UserAssigns(which),
        12 => Move::UserTakes(which, other),
        13 => Move::UserDetaches(which),
        _ => Move::UserDeletes(which),
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { pod, member, wait } => {
                let kind = if *member { "member" } else { "shared" };
                write!(f, "ADD c{pod} {kind}, deadline {wait:?}")
            }
            Self::Acknowledge(pod) => write!(f, "c{pod} writes its record"),
            Self::Del(pod) => write!(f, "DEL c{pod}"),
            Self::Cancel(pod) => write!(f, "CANCEL c{pod}"),
            Self::Confirm(pod, wait) => write!(f, "CONFIRM c{pod}, deadline {wait:?}"),
            Self::Unplug(n) => write!(f, "LINK LOST of link {n}"),
            Self::Plug => f.write_str("LINKS BACK"),
            Self::Kill(pause) => write!(f, "KILL -9, started again after {pause:?}"),
            Self::Restart(pause) => write!(f, "STOP, started again after {pause:?}"),
            Self::Reboot => f.write_str("REBOOT"),
            Self::Suspend(time) => write!(f, "SUSPEND for {time:?}"),
            Self::DiskFull(time) => write!(f, "DISK FULL for {time:?}"),
            Self::Throttle(time) => write!(f, "THROTTLE every call for {time:?}"),
            Self::Silence(time) => write!(f, "SILENCE: no call arrives for {time:?}"),
            Self::Empty(n) => write!(f, "EMPTY vSwitch {n}"),
            Self::Fill(n) => write!(f, "FILL vSwitch {n}"),
            Self::UserAttaches => f.write_str("USER attaches an ENI of its own"),
            Self::UserAssigns(n) => write!(f, "USER assigns an address to ENI {n}"),
            Self::UserTakes(n, address) => write!(f, "USER takes address {address} of ENI {n}"),
            Self::UserDetaches(n) => write!(f, "USER detaches ENI {n}"),
            Self::UserDeletes(n) => write!(f, "USER deletes ENI {n}"),
            Self::Extra(extra) => extra.fmt(f),
        }
    }
}
