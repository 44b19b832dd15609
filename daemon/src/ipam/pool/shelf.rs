//! The addresses of one ENI, and who has each of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use model::{IpPair, IpStack, SandboxKey};

use super::prefix::Prefix;

/// The addresses of one ENI. Those of an IPv4 prefix all have a slot, those of an IPv6 prefix from
/// when they are first handed out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shelf {
    pub(super) slots: BTreeMap<IpAddr, Slot>,
    pub(super) prefixes: BTreeMap<IpNetwork, Prefix>,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// It goes only with its ENI.
    pub(crate) primary: bool,
    /// It goes only with its prefix.
    pub(crate) prefixed: bool,
    /// Who has it.
    pub(crate) state: SlotState,
    /// Since when it is so.
    pub(crate) since: Duration,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Nobody: it can be handed out.
    Idle,
    /// A sandbox.
    Used(SandboxKey),
    /// Nobody, until it has rested.
    Resting,
    /// It has rested; its last traces in the kernel are being removed.
    Burying,
    /// Nobody: its prefix is to become empty.
    Frozen,
    /// Nobody: the cloud is to take it back.
    Leaving,
    /// A sandbox, but the cloud does not know it any more.
    Invalid(SandboxKey),
}

impl SlotState {
    /// As `terwayctl` shows it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Used(_) => "used",
            Self::Resting | Self::Burying => "resting",
            Self::Frozen => "frozen",
            Self::Leaving => "releasing",
            Self::Invalid(_) => "invalid",
        }
    }

    /// Whether the checkpoint has a record of it as resting or leaving.
    pub(crate) const fn rests(&self) -> bool {
        matches!(self, Self::Resting | Self::Burying | Self::Leaving)
    }

    /// Whose it is.
    pub(crate) const fn owner(&self) -> Option<&SandboxKey> {
        match self {
            Self::Used(key) | Self::Invalid(key) => Some(key),
            Self::Idle | Self::Resting | Self::Burying | Self::Frozen | Self::Leaving => None,
        }
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The families of a stack.
    pub(crate) fn all(stack: IpStack) -> impl Iterator<Item = Self> {
        let v4 = stack.v4().then_some(Self::V4);
        v4.into_iter().chain(stack.v6().then_some(Self::V6))
    }
}

impl Shelf {
    /// All, IPv4 first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Slot)> {
        self.slots.iter().map(|(address, slot)| (*address, slot))
    }

    pub(crate) fn get(&self, address: IpAddr) -> Option<&Slot> {
        self.slots.get(&address)
    }

    /// Puts an address in, whatever was there.
    pub(crate) fn put(&mut self, address: IpAddr, primary: bool, state: SlotState, now: Duration) {
        let prefixed = self.prefix_of(address).is_some();
        self.slots.insert(address, Slot { primary, prefixed, state, since: now });
    }

    pub(crate) fn remove(&mut self, address: IpAddr) {
        self.slots.remove(&address);
    }

    /// Changes what is known of an address that is here.
    pub(crate) fn set(&mut self, address: IpAddr, state: SlotState, now: Duration) {
        if let Some(slot) = self.slots.get_mut(&address) {
            (slot.state, slot.since) = (state, now);
        }
    }

    pub(crate) fn mark_primary(&mut self, address: IpAddr) {
        if let Some(slot) = self.slots.get_mut(&address) {
            slot.primary = true;
        }
    }

    /// How many of a family are in such a state.
    pub(crate) fn count(&self, family: Family, wanted: impl Fn(&SlotState) -> bool) -> u32 {
        let of = |(address, slot): &(&IpAddr, &Slot)| {
            Family::of(**address) == family && wanted(&slot.state)
        };
        u32::try_from(self.slots.iter().filter(of).count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn known(&self, family: Family) -> u32 {
        self.count(family, |_| true)
    }

    pub(crate) fn idle(&self, family: Family) -> u32 {
        self.count(family, |state| *state == SlotState::Idle)
    }

    /// How many of a family can be handed out.
    pub(crate) fn available(&self, family: Family) -> u32 {
        self.idle(family).saturating_add(self.untouched(family))
    }

    /// How many pods could be served.
    pub(crate) fn idle_pairs(&self, stack: IpStack) -> u32 {
        Family::all(stack).map(|family| self.available(family)).min().unwrap_or(0)
    }

    /// How many are with nobody until they have rested.
    pub(crate) fn resting(&self, stack: IpStack) -> u32 {
        let rests = |state: &SlotState| matches!(state, SlotState::Resting | SlotState::Burying);
        Family::all(stack).map(|family| self.count(family, rests)).max().unwrap_or(0)
    }

    /// How many the cloud is to take back.
    pub(crate) fn leaving(&self, stack: IpStack) -> u32 {
        let leaves = |state: &SlotState| *state == SlotState::Leaving;
        Family::all(stack).map(|family| self.count(family, leaves)).max().unwrap_or(0)
    }

    /// How many sandboxes have an address here.
    pub(crate) fn used(&self) -> u32 {
        let owned = |slot: &&Slot| slot.state.owner().is_some();
        u32::try_from(self.slots.values().filter(owned).count()).unwrap_or(u32::MAX)
    }

    /// Hands out a pair: the primary address first, for it cannot be given back; then what has been
    /// idle the longest.
    pub(crate) fn take(
        &mut self,
        stack: IpStack,
        key: &SandboxKey,
        now: Duration,
    ) -> Option<IpPair> {
        let v4 = self.first_idle(Family::V4).filter(|_| stack.v4());
        let v6 = if stack.v6() && v4.is_some() == stack.v4() {
            self.first_idle(Family::V6).or_else(|| self.touch(now))
        } else {
            None
        };
        if v4.is_some() != stack.v4() || v6.is_some() != stack.v6() {
            return None;
        }
        for address in v4.into_iter().chain(v6) {
            self.set(address, SlotState::Used(key.clone()), now);
        }
        pair(v4, v6)
    }

    fn first_idle(&self, family: Family) -> Option<IpAddr> {
        self.slots
            .iter()
            .filter(|(address, slot)| {
                Family::of(**address) == family && slot.state == SlotState::Idle
            })
            .min_by_key(|(address, slot)| (!slot.primary, slot.since, **address))
            .map(|(address, _)| *address)
    }

    /// The addresses of a sandbox change their state.
    pub(crate) fn release(
        &mut self,
        key: &SandboxKey,
        state: &SlotState,
        now: Duration,
    ) -> Vec<IpAddr> {
        let mut released = Vec::new();
        for (address, slot) in &mut self.slots {
            if slot.state.owner() == Some(key) {
                (slot.state, slot.since) = (state.clone(), now);
                released.push(*address);
            }
        }
        released
    }

    /// Those in such a state, the oldest first.
    pub(crate) fn in_state(&self, wanted: &SlotState) -> Vec<(IpAddr, Duration)> {
        let in_state = self.slots.iter().filter(|(_, slot)| slot.state == *wanted);
        let mut found: Vec<_> = in_state.map(|(address, slot)| (*address, slot.since)).collect();
        found.sort_by_key(|(_, since)| *since);
        found
    }

    /// What could be given back to the cloud by itself: idle, neither primary nor of a prefix, the
    /// youngest first.
    pub(crate) fn releasable(&self, family: Family) -> Vec<IpAddr> {
        let mut found: Vec<_> = self
            .slots
            .iter()
            .filter(|(address, slot)| {
                let single = !slot.primary && !slot.prefixed;
                Family::of(**address) == family && slot.state == SlotState::Idle && single
            })
            .map(|(address, slot)| (slot.since, *address))
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, address)| address).collect()
    }
}

fn pair(v4: Option<IpAddr>, v6: Option<IpAddr>) -> Option<IpPair> {
    let v4 = v4.and_then(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let v6 = v6.and_then(|address| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    });
    IpPair::new(v4, v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> SandboxKey {
        SandboxKey {
            network: "n".to_owned(),
            container_id: id.to_owned(),
            ifname: "eth0".to_owned(),
        }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn shelf(addresses: &[&str]) -> Shelf {
        let mut shelf = Shelf::default();
        for (address, n) in addresses.iter().zip(0..) {
            shelf.put(address.parse().unwrap(), n == 0, SlotState::Idle, at(100 - n));
        }
        shelf
    }

    #[test]
    fn the_primary_goes_first_then_what_rested_longest() {
        let mut shelf = shelf(&["10.0.0.9", "10.0.0.1", "10.0.0.2", "fd::1"]);
        let mut take =
            |id: &str, stack| shelf.take(stack, &key(id), at(200)).map(|p| p.to_string());
        assert_eq!(take("a", IpStack::Dual).as_deref(), Some("10.0.0.9 fd::1"));
        assert_eq!(take("b", IpStack::Dual), None);
        assert_eq!(take("b", IpStack::V4).as_deref(), Some("10.0.0.2"));
        assert_eq!(shelf.idle(Family::V4), 1, "a pair that is not whole was taken in part");
        let released = shelf.release(&key("a"), &SlotState::Resting, at(300));
        assert_eq!(released.len(), 2);
        assert_eq!(shelf.in_state(&SlotState::Resting).len(), 2);
    }

    #[test]
    fn a_primary_address_is_never_given_back() {
        let shelf = shelf(&["10.0.0.9", "10.0.0.1", "10.0.0.2"]);
        let back: Vec<_> = shelf.releasable(Family::V4).iter().map(ToString::to_string).collect();
        assert_eq!(back, ["10.0.0.1", "10.0.0.2"]);
    }
}
