//! Who uses an address on this node, by the kernel's own word: the second witness before something
//! is given back to the cloud. Read afresh each time; what the datapath remembers is not asked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use model::{LinkIndex, Mac, Mark, TableId, host_prefix};

use super::super::DatapathError;
use super::super::types::{Hop, Route, Rule, Selector, Verdict};
use super::read::{Link, LinkAddress};
use super::survey;
use crate::bpf::{Address, Bpf, BpfError, Endpoint};

/// What the programs let through.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    endpoints: Vec<(LinkIndex, Endpoint)>,
    addresses: Vec<(LinkIndex, IpAddr, Address)>,
}

impl Allowed {
    /// Reads the maps.
    pub(crate) fn read(bpf: &Bpf) -> Result<Self, BpfError> {
        Ok(Self { endpoints: bpf.endpoints()?, addresses: bpf.addresses()? })
    }

    fn living(&self) -> impl Iterator<Item = (LinkIndex, IpAddr)> {
        let living = self.addresses.iter().filter(|(.., entry)| !entry.tombstone);
        living.map(|(link, address, _)| (*link, *address))
    }
}

/// All that names addresses of pods.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pub(crate) links: Vec<Link>,
    pub(crate) configured: Vec<LinkAddress>,
    pub(crate) routes: Vec<Route>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) allowed: Allowed,
}

impl Uses {
    /// Reads the caller's namespace.
    pub(crate) fn read(allowed: Allowed) -> Result<Self, DatapathError> {
        let survey::Ways { links, configured, routes, rules } = survey::ways()?;
        Ok(Self { links, configured, routes, rules, allowed })
    }

    /// Those of `addresses` that something on this node has or leads to.
    pub(crate) fn of(&self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let configured = self.configured.iter().map(|own| own.address.ip());
        let routes = self.routes.iter().filter_map(host_route);
        let rules = self.rules.iter().filter_map(pod_of);
        let endpoints = self.allowed.endpoints.iter();
        let endpoints = endpoints.flat_map(|(_, endpoint)| endpoint.addresses.iter());
        let allowed = self.allowed.living().map(|(_, address)| address);
        let all = configured.chain(routes).chain(rules).chain(endpoints).chain(allowed);
        all.filter(|address| addresses.contains(address)).collect()
    }

    /// Addresses of pods whose frames leave by the ENI with this MAC and this mark. Every ENI's
    /// table has all pods: its routes say nothing.
    pub(crate) fn behind(&self, mac: Mac, mark: Mark) -> BTreeSet<IpAddr> {
        let link = survey::nic(&self.links, mac).map(|link| link.dev.index);
        let marked = self.allowed.endpoints.iter().filter(|(_, endpoint)| endpoint.mark == mark);
        let marked = marked.flat_map(|(_, endpoint)| endpoint.addresses.iter());
        let allowed = self.allowed.living().filter(|(behind, _)| Some(*behind) == link);
        let allowed = allowed.map(|(_, address)| address);
        let table = link.map(TableId::of);
        let rules = self.rules.iter().filter(|rule| match rule.verdict {
            Verdict::Lookup(own) | Verdict::LookupNoDefault(own) => Some(own) == table,
            Verdict::Unreachable => false,
        });
        marked.chain(allowed).chain(rules.filter_map(pod_of)).collect()
    }
}

/// The address that is directly behind a link, whoever says so: it may be a pod of another network.
fn host_route(route: &Route) -> Option<IpAddr> {
    let address = route.to.ip();
    let host: IpNetwork = host_prefix(address);
    let direct = matches!(route.hop, Hop::Link(_) | Hop::Local(_));
    (direct && route.to == host).then_some(address)
}

fn pod_of(rule: &Rule) -> Option<IpAddr> {
    match rule.selector {
        Selector::To(address) | Selector::From(address) => Some(address),
        Selector::Iif(_) | Selector::Mark(_) => None,
    }
}
