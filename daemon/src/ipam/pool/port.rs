//! One attached ENI of the pool: its link, its addresses, and what is being asked for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cloud::ClientToken;
use controlplane::{CallError, EniSpec, Kind};
use ipnetwork::{IpNetwork, Ipv4Network};
use model::{EniId, IpPair, IpStack, Mac, SecurityGroupId, VSwitchId};

use super::shelf::{Family, Shelf};
use crate::datapath::{self, EniKind, EniLink};
use crate::ipam::lot::{Grain, Lot};

/// One attached ENI of the pool.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) id: EniId,
    pub(crate) mac: Mac,
    pub(crate) kind: EniKind,
    pub(crate) vswitch: VSwitchId,
    pub(crate) security_groups: Vec<SecurityGroupId>,
    pub(crate) number: u32,
    pub(crate) gateway: IpPair,
    pub(crate) shelf: Shelf,
    pub(crate) link: LinkState,
    /// Since when its link is gone: nothing is expected of it until it is back.
    pub(crate) unplugged: Option<Duration>,
    /// Whether its addresses were ever read from the cloud.
    pub(crate) known: bool,
    /// Since when the cloud does not say `InUse`.
    pub(crate) missing: Option<Duration>,
    /// It was missing for so long that it is not served from.
    pub(crate) lost: bool,
    /// Why nobody new is served from it though it is there.
    pub(crate) retired: Option<Retired>,
    /// What is being asked, and what is to be asked next.
    pub(crate) asking: Asking,
    /// The last answer to a change of its addresses: a read begun before, or shortly after, proves
    /// nothing.
    pub(crate) written: Option<Duration>,
    /// Something may have happened that no answer told of: until a read that proves something.
    pub(crate) doubt: bool,
    /// Addresses that the cloud took back, and when: as long as a read may be old news, they are
    /// remembered, also over a restart.
    pub(crate) left: BTreeMap<IpAddr, Duration>,
    /// Addresses and prefixes that were seen once, and when.
    pub(crate) strangers: BTreeMap<IpNetwork, Duration>,
}

/// The kernel's side of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// To be set, not before this.
    Wanted(Duration),
    /// Being set; `gone` if the kernel lost it in the meantime.
    Setting { gone: bool },
    /// Carries frames.
    Up(EniLink),
}

/// Why nobody new is served from an ENI that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retired {
    /// It is somebody else's by its tags: it is left alone.
    Excluded,
    /// It is on its way back to the cloud.
    Closing,
}

/// What an ENI can do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Surplus {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// A prefix.
    Prefix(Ipv4Network),
    /// Everything: the ENI goes.
    Eni,
}

/// Changes of a port's addresses: one at a time, for the cloud refuses two.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asking {
    /// In flight, or to be repeated with the same token.
    pub(crate) intent: Option<Intent>,
    /// Whether its answer is awaited.
    pub(crate) busy: bool,
    /// Nothing is given back before this.
    pub(crate) give_not_before: Duration,
    /// How often in a row the cloud refused to take something back.
    pub(crate) give_refused: u32,
    /// Still to be asked for.
    pub(crate) queued: BTreeMap<Lot, u32>,
    /// No call before this.
    pub(crate) not_before: Duration,
    /// Calls that failed in a row.
    pub(crate) tries: u32,
    /// Why the last one failed.
    pub(crate) trouble: Option<CallError>,
    /// The cloud said that it holds no more: until it is read again.
    pub(crate) full: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    /// More addresses.
    Assign { lot: Lot, count: u32, token: ClientToken },
    /// Whether the kernel agrees that nobody uses this.
    Check(Surplus),
    /// Fewer.
    Unassign,
}

impl Port {
    /// A port whose addresses are not known yet.
    pub(crate) fn new(spec: &EniSpec, id: EniId, mac: Mac, number: u32, gateway: IpPair) -> Self {
        Self {
            id,
            mac,
            kind: match spec.kind {
                Kind::Trunk => EniKind::Trunk,
                Kind::Secondary | Kind::Member(_) => EniKind::Secondary,
            },
            vswitch: spec.vswitch.clone(),
            security_groups: spec.security_groups.clone(),
            number,
            gateway,
            shelf: Shelf::default(),
            link: LinkState::Wanted(Duration::ZERO),
            unplugged: None,
            known: false,
            missing: None,
            lost: false,
            retired: None,
            asking: Asking::default(),
            written: None,
            doubt: true,
            left: BTreeMap::new(),
            strangers: BTreeMap::new(),
        }
    }

    /// Whether pods can be served from it now.
    pub(crate) const fn serves(&self) -> bool {
        self.counts() && self.missing.is_none() && matches!(self.link, LinkState::Up(_))
    }

    /// Whether it serves or will.
    pub(crate) const fn counts(&self) -> bool {
        self.known && !self.lost && self.retired.is_none()
    }

    /// Whether it may be asked for more now.
    pub(crate) fn takes_more(&self, now: Duration) -> bool {
        let here = self.counts() && self.missing.is_none() && self.unplugged.is_none();
        here && self.asking.not_before <= now
    }

    /// Whether it is on its way back to the cloud.
    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.retired, Some(Retired::Closing))
    }

    /// How much of a lot is on its way.
    fn coming_of(&self, lot: Lot) -> u32 {
        let queued = self.asking.queued.get(&lot).copied().unwrap_or(0);
        let asked = match &self.asking.intent {
            Some(Intent::Assign { lot: asked, count, .. }) if *asked == lot => *count,
            _ => 0,
        };
        queued.saturating_add(asked)
    }

    /// How many addresses of a family are on their way.
    pub(crate) fn coming(&self, family: Family) -> u32 {
        let lots = Lot::ALL.into_iter().filter(|lot| lot.family() == family);
        lots.map(|lot| self.coming_of(lot).saturating_mul(lot.size())).sum()
    }

    /// How many prefixes of a family there are, or are on their way.
    pub(crate) fn prefixes(&self, family: Family) -> u32 {
        let lot = Grain::Prefixes.lot(family);
        self.shelf.prefixes(family).saturating_add(self.coming_of(lot))
    }

    /// How many of the ENI's places for a family are free.
    pub(crate) fn free_places(&self, family: Family, per_eni: u32) -> u32 {
        let lots = Lot::ALL.into_iter().filter(|lot| lot.family() == family);
        let coming: u32 = lots.map(|lot| self.coming_of(lot)).sum();
        per_eni.saturating_sub(self.shelf.places(family)).saturating_sub(coming)
    }

    /// How many pods it can serve, now or soon.
    pub(crate) fn supply(&self, stack: IpStack) -> u32 {
        let soon = |family| self.shelf.available(family).saturating_add(self.coming(family));
        Family::all(stack).map(soon).min().unwrap_or(0)
    }

    /// How many more pods it could serve if it were asked to the limit.
    pub(crate) fn room(&self, stack: IpStack, per_eni: u32, grain: Grain) -> u32 {
        if self.asking.full {
            return 0;
        }
        let most = |family| {
            let soon = self.shelf.available(family).saturating_add(self.coming(family));
            let places = self.free_places(family, per_eni);
            soon.saturating_add(places.saturating_mul(grain.lot(family).size()))
        };
        let most = Family::all(stack).map(most).min().unwrap_or(0);
        most.saturating_sub(self.supply(stack))
    }

    /// Has more asked for, so that so many more pods can be served.
    pub(crate) fn grow(&mut self, pods: u32, stack: IpStack, grain: Grain) {
        let goal = self.supply(stack).saturating_add(pods);
        for family in Family::all(stack) {
            let has = self.shelf.available(family).saturating_add(self.coming(family));
            let lot = grain.lot(family);
            self.queue(lot, goal.saturating_sub(has).div_ceil(lot.size()));
        }
    }

    /// Has so much more asked for.
    pub(crate) fn queue(&mut self, lot: Lot, count: u32) {
        if count > 0 {
            *self.asking.queued.entry(lot).or_default() += count;
        }
    }

    /// Whether nothing is asked and nothing is to be.
    pub(crate) fn is_quiet(&self) -> bool {
        self.asking.intent.is_none() && self.asking.queued.is_empty()
    }

    /// Whether a read begun then tells the truth of its addresses.
    pub(crate) fn settled(&self, begun: Duration, lag: Duration) -> bool {
        self.asking.intent.is_none()
            && self.written.is_none_or(|written| begun >= written.saturating_add(lag))
    }

    /// What the kernel is to know of it.
    pub(crate) fn spec(&self, mark: model::Mark) -> datapath::EniSpec {
        datapath::EniSpec {
            id: self.id.clone(),
            kind: self.kind,
            mac: self.mac,
            mark,
            gateway: self.gateway,
        }
    }
}
