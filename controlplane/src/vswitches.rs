//! What is known of vSwitches, which of them are left alone for a while, and which one is next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use ipnetwork::IpNetwork;
use model::{SelectionPolicy, VSwitch, VSwitchId, ZoneId, choose};

use crate::call::CallError;
use crate::pace::Pace;
use crate::random::Random;

/// What is known counts so long; free addresses come and go.
const FRESH: Duration = Duration::from_mins(10);
/// A vSwitch without addresses is looked at again after this.
const FRESH_EMPTY: Duration = Duration::from_secs(15);
/// A vSwitch that the cloud called exhausted is left alone for this long.
const BLOCK: Duration = Duration::from_mins(1);
/// A look that failed is repeated.
const RETRY: Pace = Pace::doubling(Duration::from_secs(1), Duration::from_secs(25)).with_jitter(50);

/// vSwitches, by id.
#[derive(Debug, Clone)]
pub struct VSwitches {
    known: BTreeMap<VSwitchId, Known>,
    random: Random,
}

#[derive(Debug, Clone, Default)]
struct Known {
    found: Found,
    /// What is free is nothing by our own count only, which others' releases do not reach.
    reckoned: bool,
    busy: bool,
    /// Somebody has use for what it has free, since it was looked at last.
    wanted: bool,
    not_before: Duration,
    tries: u32,
    trouble: Option<CallError>,
    blocked_until: Option<Duration>,
    last_word: Option<String>,
}

#[derive(Debug, Clone, Default)]
enum Found {
    #[default]
    NotAsked,
    Missing,
    Here(VSwitch),
}

/// Why there is no vSwitch for a new ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoVSwitch {
    /// They were not described yet; the last error if there was one.
    Unknown(Option<CallError>),
    /// The cloud does not know it.
    Missing(VSwitchId),
    /// None lies in the zone.
    NotInZone {
        /// The zone.
        zone: ZoneId,
        /// Where they lie.
        found: Vec<(VSwitchId, ZoneId)>,
    },
    /// None has an address left.
    Exhausted(Exhausted),
}

/// vSwitches without an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// All that were asked.
    pub rooms: Vec<Room>,
    /// When the first of them is tried again.
    pub next_try: Duration,
    /// The cloud's last word, with its RequestId.
    pub last_word: Option<String>,
}

/// How full a vSwitch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Which.
    pub id: VSwitchId,
    /// Addresses free, as last described.
    pub free: u64,
    /// Addresses that its block has.
    pub size: u64,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} free", self.id, self.free, self.size)
    }
}

impl VSwitches {
    /// Knows nothing yet.
    pub const fn new(seed: u64) -> Self {
        Self { known: BTreeMap::new(), random: Random::new(seed) }
    }

    /// From now on these are kept known.
    pub fn watch<'a>(&mut self, ids: impl IntoIterator<Item = &'a VSwitchId>) {
        for id in ids {
            self.known.entry(id.clone()).or_default();
        }
    }

    /// Somebody has use for what these have free: they are looked at as often as that helps. Others
    /// are looked at once, for a node that needs nothing has no questions.
    pub fn want<'a>(&mut self, ids: impl IntoIterator<Item = &'a VSwitchId>) {
        for id in ids {
            self.known.entry(id.clone()).or_default().wanted = true;
        }
    }

    /// From now on only these are kept known.
    pub fn watch_only(&mut self, ids: &BTreeSet<VSwitchId>) {
        self.known.retain(|id, _| ids.contains(id));
        self.watch(ids);
    }

    /// What is known of one.
    pub fn get(&self, id: &VSwitchId) -> Option<&VSwitch> {
        self.known.get(id)?.here()
    }

    /// Whether its first description is on its way, and nothing speaks against it.
    pub fn is_awaited(&self, id: &VSwitchId) -> bool {
        let known = self.known.get(id);
        known.is_some_and(|it| matches!(it.found, Found::NotAsked) && it.trouble.is_none())
    }

    /// Those that are to be described now; their answers must come.
    pub fn due(&mut self, now: Duration) -> Vec<VSwitchId> {
        let due = |known: &Known| known.is_looked_for() && known.not_before <= now;
        let due = self.known.iter_mut().filter(|(_, known)| due(known));
        due.map(|(id, known)| {
            (known.busy, known.wanted) = (true, false);
            id.clone()
        })
        .collect()
    }

    /// When [`due`](Self::due) will have one, or one that was left alone may be used again.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let looks = self.known.values().filter(|known| known.is_looked_for());
        let looks = looks.map(|known| known.not_before);
        let blocks = self.known.values().filter_map(|known| known.blocked_until);
        looks.chain(blocks.filter(|until| *until > now)).min()
    }

    /// Takes an answer in; one that nobody waits for any more is dropped.
    pub fn answer(
        &mut self,
        id: &VSwitchId,
        answer: Result<Option<VSwitch>, CallError>,
        now: Duration,
    ) {
        let Some(known) = self.known.get_mut(id) else { return };
        known.busy = false;
        match answer {
            Ok(found) => {
                let room = found.as_ref().is_some_and(|vswitch| vswitch.available > 0);
                known.not_before = now + if room { FRESH } else { FRESH_EMPTY };
                known.found = found.map_or(Found::Missing, Found::Here);
                known.reckoned = false;
                (known.tries, known.trouble) = (0, None);
            }
            Err(error) => {
                let least = error.retry_after().unwrap_or_default();
                known.not_before = now + RETRY.pause(known.tries, least, &mut self.random);
                known.tries = known.tries.saturating_add(1);
                known.trouble = Some(error);
            }
        }
    }

    /// The cloud said that it has no address: it is left alone for a while.
    pub fn block(&mut self, id: &VSwitchId, last_word: String, now: Duration) {
        let known = self.known.entry(id.clone()).or_default();
        known.blocked_until = Some(now + BLOCK);
        known.last_word = Some(last_word);
        if let Found::Here(vswitch) = &mut known.found {
            vswitch.available = 0;
        }
        known.reckoned = false;
        known.not_before = known.not_before.min(now + FRESH_EMPTY);
    }

    /// Addresses were taken from it. Where that leaves none it is looked at again at once.
    pub fn take(&mut self, id: &VSwitchId, addresses: u32) {
        let Some(known) = self.known.get_mut(id) else { return };
        let Found::Here(vswitch) = &mut known.found else { return };
        vswitch.available = vswitch.available.saturating_sub(addresses.into());
        if vswitch.available == 0 {
            (known.reckoned, known.not_before) = (true, Duration::ZERO);
        }
    }

    /// The cloud took addresses of it back.
    pub fn give_back(&mut self, id: &VSwitchId, addresses: u32) {
        if let Some(Known { found: Found::Here(vswitch), .. }) = self.known.get_mut(id) {
            vswitch.available = vswitch.available.saturating_add(addresses.into());
        }
    }

    /// How many addresses it is worth asking for.
    pub fn room(&self, id: &VSwitchId, now: Duration) -> u32 {
        let Some(known) = self.known.get(id) else { return u32::MAX };
        let available = known.here().map_or(u64::MAX, |vswitch| vswitch.available);
        if known.blocked(now) { 0 } else { u32::try_from(available).unwrap_or(u32::MAX) }
    }

    /// Whether the cloud itself said that it has no address left; our own count proves nothing.
    pub fn is_exhausted(&self, id: &VSwitchId, now: Duration) -> bool {
        let said = |known: &Known| !known.is_reckoned() || known.blocked(now);
        self.room(id, now) == 0 && self.known.get(id).is_some_and(said)
    }

    /// What is known of vSwitches that have no address left.
    pub fn exhausted(&self, ids: &[VSwitchId], now: Duration) -> Exhausted {
        let known = ids.iter().filter_map(|id| self.known.get(id));
        let here: Vec<_> = known.filter_map(|known| Some((known, known.here()?))).collect();
        Exhausted::of(&here, now)
    }

    /// A look that fails at the moment, and when it is tried again.
    pub fn trouble(&self) -> Option<(Duration, &CallError)> {
        let troubled = |known: &'_ Known| known.trouble.is_some();
        let known = self.known.values().find(|known| troubled(known))?;
        Some((known.not_before, known.trouble.as_ref()?))
    }

    /// The one for a new ENI in `zone`, among `ids` in order of preference.
    pub fn choose(
        &mut self,
        ids: &[VSwitchId],
        zone: &ZoneId,
        policy: SelectionPolicy,
        now: Duration,
    ) -> Result<VSwitch, NoVSwitch> {
        self.want(ids);
        let chance = usize::try_from(self.random.next() >> 33).unwrap_or(0);
        let all: Vec<(&VSwitchId, &Known)> =
            ids.iter().filter_map(|id| self.known.get_key_value(id)).collect();
        let unknown = all.iter().find(|(_, known)| matches!(known.found, Found::NotAsked));
        if let Some((_, known)) = unknown {
            return Err(NoVSwitch::Unknown(known.trouble.clone()));
        }
        if let Some((id, _)) = all.iter().find(|(_, known)| matches!(known.found, Found::Missing)) {
            return Err(NoVSwitch::Missing((*id).clone()));
        }
        let here: Vec<(&Known, &VSwitch)> = all
            .iter()
            .filter_map(|(_, known)| Some((*known, known.here()?)))
            .filter(|(_, vswitch)| &vswitch.zone == zone)
            .collect();
        if here.is_empty() {
            let place = |vswitch: &VSwitch| (vswitch.id.clone(), vswitch.zone.clone());
            let found = all.iter().filter_map(|(_, known)| known.here().map(place)).collect();
            return Err(NoVSwitch::NotInZone { zone: zone.clone(), found });
        }
        let usable = here.iter().filter(|(known, _)| !known.blocked(now)).map(|(_, v)| *v);
        if let Some(chosen) = choose(usable, zone, policy, chance) {
            return Ok(chosen.clone());
        }
        let mut looked_at = here.iter().map(|(known, _)| *known);
        Err(match looked_at.find(|known| known.is_reckoned() && !known.blocked(now)) {
            Some(known) => NoVSwitch::Unknown(known.trouble.clone()),
            None => NoVSwitch::Exhausted(Exhausted::of(&here, now)),
        })
    }
}

impl Known {
    const fn is_looked_for(&self) -> bool {
        !self.busy && (self.wanted || matches!(self.found, Found::NotAsked))
    }

    const fn here(&self) -> Option<&VSwitch> {
        match &self.found {
            Found::Here(vswitch) => Some(vswitch),
            Found::NotAsked | Found::Missing => None,
        }
    }

    /// Whether it has none left by our own count only.
    fn is_reckoned(&self) -> bool {
        self.reckoned && self.here().is_some_and(|vswitch| vswitch.available == 0)
    }

    fn blocked(&self, now: Duration) -> bool {
        self.blocked_until.is_some_and(|until| now < until)
    }

    /// When it may be tried again: at its end if it is blocked, else when it was looked at again.
    fn next_try(&self) -> Duration {
        self.blocked_until.unwrap_or_default().max(self.not_before)
    }
}

impl Exhausted {
    fn of(here: &[(&Known, &VSwitch)], now: Duration) -> Self {
        let mut rooms = Vec::new();
        for room in here.iter().map(|(_, vswitch)| Room::of(vswitch)) {
            if !rooms.contains(&room) {
                rooms.push(room);
            }
        }
        let next_try = here.iter().map(|(known, _)| known.next_try()).min();
        let last_word = here.iter().find_map(|(known, _)| known.last_word.clone());
        Self { rooms, next_try: next_try.unwrap_or(now).max(now), last_word }
    }
}

impl Room {
    /// The network, the broadcast and the VPC's three are not to be had.
    fn of(vswitch: &VSwitch) -> Self {
        let size = match vswitch.v4 {
            IpNetwork::V4(block) => u64::from(block.size()).saturating_sub(4),
            IpNetwork::V6(_) => 0,
        };
        Self { id: vswitch.id.clone(), free: vswitch.available, size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn vswitch(id: &str, zone: &str, available: u64) -> VSwitch {
        let v4 = "10.0.1.0/24".parse().unwrap();
        VSwitch { id: VSwitchId::new(id), zone: ZoneId::new(zone), v4, v6: None, available }
    }

    fn known(all: &[VSwitch]) -> (VSwitches, Vec<VSwitchId>) {
        let ids: Vec<_> = all.iter().map(|v| v.id.clone()).collect();
        let mut vswitches = VSwitches::new(1);
        vswitches.watch(&ids);
        assert_eq!(vswitches.due(at(0)).len(), ids.len());
        for vswitch in all {
            vswitches.answer(&vswitch.id, Ok(Some(vswitch.clone())), at(0));
        }
        (vswitches, ids)
    }

    #[test]
    fn an_exhausted_vswitch_is_passed_over_for_a_while() {
        let (mut vswitches, ids) = known(&[vswitch("a", "h", 9), vswitch("b", "h", 9)]);
        let chosen = |vswitches: &mut VSwitches, now| {
            vswitches.choose(&ids, &ZoneId::new("h"), SelectionPolicy::Ordered, at(now))
        };
        assert_eq!(chosen(&mut vswitches, 1).unwrap().id.as_str(), "a");
        vswitches.block(&VSwitchId::new("a"), "IpNotEnough (request 1)".to_owned(), at(1));
        assert_eq!(chosen(&mut vswitches, 1).unwrap().id.as_str(), "b");
        vswitches.block(&VSwitchId::new("b"), "IpNotEnough (request 2)".to_owned(), at(2));
        let Err(NoVSwitch::Exhausted(exhausted)) = chosen(&mut vswitches, 3) else { panic!() };
        assert_eq!(exhausted.next_try, at(61));
        assert_eq!(exhausted.rooms[0].to_string(), "a: 0 of 252 free");
        assert_eq!(exhausted.last_word.as_deref(), Some("IpNotEnough (request 1)"));

        // Looked at again in time, and used once the pause is over.
        assert_eq!(vswitches.due(at(17)).len(), 2);
        vswitches.answer(&VSwitchId::new("b"), Ok(Some(vswitch("b", "h", 3))), at(17));
        assert!(chosen(&mut vswitches, 61).is_err());
        assert_eq!(chosen(&mut vswitches, 62).unwrap().id.as_str(), "b");
    }

    #[test]
    fn a_vswitch_that_is_empty_by_our_own_count_is_looked_at_before_anybody_is_refused() {
        let (mut vswitches, ids) = known(&[vswitch("a", "h", 3)]);
        let choose = |vswitches: &mut VSwitches, now| {
            vswitches.choose(&ids, &ZoneId::new("h"), SelectionPolicy::Ordered, at(now))
        };
        vswitches.take(&ids[0], 2);
        assert_eq!(vswitches.due(at(1)), []);
        vswitches.take(&ids[0], 1);
        assert_eq!(choose(&mut vswitches, 1), Err(NoVSwitch::Unknown(None)));
        assert!(!vswitches.is_exhausted(&ids[0], at(1)));
        assert_eq!(vswitches.due(at(1)), ids);
        vswitches.answer(&ids[0], Ok(Some(vswitch("a", "h", 0))), at(2));
        let refused = |choice| matches!(choice, Err(NoVSwitch::Exhausted(_)));
        assert!(refused(choose(&mut vswitches, 2)), "the cloud itself says so");
        assert!(vswitches.is_exhausted(&ids[0], at(2)));

        // What comes back counts at once.
        vswitches.give_back(&ids[0], 2);
        assert_eq!(choose(&mut vswitches, 2).unwrap().available, 2);
        vswitches.take(&ids[0], 2);
        vswitches.block(&ids[0], "IpNotEnough (request 1)".to_owned(), at(3));
        assert!(refused(choose(&mut vswitches, 3)), "the cloud refused it");
        assert!(vswitches.is_exhausted(&ids[0], at(3)));
    }

    #[test]
    fn nobody_looks_at_a_vswitch_that_nobody_has_use_for() {
        let (mut vswitches, ids) = known(&[vswitch("a", "h", 9), vswitch("b", "h", 0)]);
        assert_eq!(vswitches.due(at(7200)), []);
        assert_eq!(vswitches.wake(at(7200)), None);
        vswitches.want([&ids[1]]);
        assert_eq!(vswitches.wake(at(7200)), Some(at(15)));
        assert_eq!(vswitches.due(at(7200)), [ids[1].clone()]);
        vswitches.answer(&ids[1], Ok(Some(vswitch("b", "h", 9))), at(7200));
        assert_eq!(vswitches.due(at(14_400)), []);
    }

    #[test]
    fn a_vswitch_of_many_enis_is_named_once() {
        let (vswitches, ids) = known(&[vswitch("a", "h", 0), vswitch("b", "h", 0)]);
        let all = [ids[0].clone(), ids[1].clone(), ids[0].clone(), ids[0].clone()];
        let rooms = vswitches.exhausted(&all, at(1)).rooms;
        assert_eq!(rooms.iter().map(|room| room.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_is_not_known_or_not_here_is_said() {
        let (mut vswitches, ids) = known(&[vswitch("a", "i", 9)]);
        let here = ZoneId::new("h");
        let choose = |v: &mut VSwitches, ids: &[VSwitchId]| {
            v.choose(ids, &here, SelectionPolicy::Most, at(1))
        };
        let found = vec![(ids[0].clone(), ZoneId::new("i"))];
        let zone = ZoneId::new("h");
        assert_eq!(choose(&mut vswitches, &ids), Err(NoVSwitch::NotInZone { zone, found }));
        let other = [VSwitchId::new("x")];
        assert_eq!(choose(&mut vswitches, &other), Err(NoVSwitch::Unknown(None)));
        assert_eq!(vswitches.due(at(1)), other);
        vswitches.answer(&other[0], Ok(None), at(1));
        let missing = NoVSwitch::Missing(other[0].clone());
        assert_eq!(choose(&mut vswitches, &other), Err(missing));
    }
}
