//! Who uses an address on this node, by the kernel's own word: the second witness before something
//! is given back to the cloud. Read afresh each time; what the datapath remembers is not asked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use model::{LinkIndex, Mac, Mark, TableId, host_prefix};
use netlink_packet_route::route::RouteProtocol;

use super::super::DatapathError;
use super::super::types::{Hop, Route, Rule, Selector, Verdict};
use super::read::{self, Link, LinkAddress};
use super::socket::Socket;
use super::survey::{self, failed};
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
    links: Vec<Link>,
    configured: Vec<LinkAddress>,
    /// Whoever made them.
    routes: Vec<Route>,
    /// Only ours.
    rules: Vec<Rule>,
    allowed: Allowed,
}

impl Uses {
    /// Reads the caller's namespace.
    pub(crate) fn read(allowed: Allowed) -> Result<Self, DatapathError> {
        let mut socket = Socket::open().map_err(failed("links"))?;
        let links = survey::read_links(&mut socket).map_err(failed("links"))?;
        let names = survey::by_index(&links);
        let any = RouteProtocol::Unspec;
        let routes = survey::dump_routes(&mut socket, any).map_err(failed("routes"))?;
        let routes = routes.iter().filter_map(|route| read::route(route, &names));
        Ok(Self {
            routes: routes.map(|(route, _)| route).collect(),
            configured: survey::read_addresses(&mut socket).map_err(failed("addresses"))?,
            rules: survey::read_rules(&mut socket).map_err(failed("rules"))?,
            links,
            allowed,
        })
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

#[cfg(test)]
mod tests {
    use model::IpPair;

    use super::super::super::types::{Dev, Family, PRIORITY_TABLE, Table};
    use super::*;

    const MAC: Mac = Mac::new([0, 0x16, 0x3e, 0, 0, 1]);
    const OTHER: Mac = Mac::new([0, 0x16, 0x3e, 0, 0, 2]);

    fn ip(last: u8) -> IpAddr {
        [10, 0, 1, last].into()
    }

    fn index(number: u32) -> LinkIndex {
        number.try_into().unwrap()
    }

    fn dev(number: u32) -> Dev {
        Dev { index: index(number), name: format!("link{number}").parse().unwrap() }
    }

    fn nic(number: u32, mac: Mac) -> Link {
        Link {
            dev: dev(number),
            mac: Some(mac),
            mtu: 1500,
            up: true,
            carries: true,
            kind: None,
            alias: None,
            group: 0,
            peer: None,
        }
    }

    fn mark(value: u32) -> Mark {
        Mark::new(value, Mark::DEFAULT_MASK).unwrap()
    }

    fn entry(link: u32, last: u8, tombstone: bool) -> (LinkIndex, IpAddr, Address) {
        (index(link), ip(last), Address { vlan: None, tombstone })
    }

    fn endpoint(last: u8, of: u32) -> (LinkIndex, Endpoint) {
        let addresses = IpPair::V4([10, 0, 1, last].into());
        (index(100), Endpoint { addresses, mac: OTHER, mark: mark(of) })
    }

    fn rule(selector: Selector, table: u32) -> Rule {
        let verdict = Verdict::Lookup(TableId::try_from(table).unwrap());
        Rule { family: Family::V4, priority: PRIORITY_TABLE, selector, verdict }
    }

    fn route(last: u8, length: u8, hop: Hop) -> Route {
        let to = IpNetwork::new(ip(last), length).unwrap();
        Route { table: Table::Main, to, metric: 0, hop, source: None }
    }

    fn node() -> Uses {
        Uses { links: vec![nic(3, MAC), nic(4, OTHER)], ..Uses::default() }
    }

    fn check(uses: &Uses, used: &[u8], behind: &[u8]) {
        let ips = |all: &[u8]| all.iter().copied().map(ip).collect::<BTreeSet<_>>();
        assert_eq!(uses.of(&ips(&[1, 2, 3, 4])), ips(used), "{uses:?}");
        assert_eq!(uses.behind(MAC, mark(1)), ips(behind), "{uses:?}");
    }

    #[test]
    fn each_sign_by_itself_is_enough() {
        check(&node(), &[], &[]);
        let own = IpNetwork::new(ip(1), 24).unwrap();
        let own = LinkAddress { index: index(3), address: own, global: true };
        check(&Uses { configured: vec![own], ..node() }, &[1], &[]);
        let gateway = Hop::Gateway(dev(3), ip(9));
        let routes = vec![
            route(1, 32, Hop::Link(dev(100))),
            route(2, 32, Hop::Unreachable),
            route(3, 32, gateway),
            route(4, 24, Hop::Link(dev(3))),
        ];
        check(&Uses { routes, ..node() }, &[1], &[]);
        for selector in [Selector::To, Selector::From] {
            let rules = vec![rule(selector(ip(1)), 1003), rule(selector(ip(2)), 1004)];
            check(&Uses { rules, ..node() }, &[1, 2], &[1]);
        }
        let endpoints = vec![endpoint(1, 1), endpoint(2, 2)];
        let allowed = Allowed { endpoints, ..Allowed::default() };
        check(&Uses { allowed, ..node() }, &[1, 2], &[1]);
        let addresses = vec![entry(3, 1, false), entry(4, 2, false), entry(3, 3, true)];
        let allowed = Allowed { addresses, ..Allowed::default() };
        check(&Uses { allowed, ..node() }, &[1, 2], &[1]);
    }

    #[test]
    fn an_eni_without_a_link_is_still_known_by_its_mark() {
        let endpoints = vec![endpoint(1, 1)];
        let addresses = vec![entry(3, 1, false)];
        let allowed = Allowed { endpoints, addresses };
        check(&Uses { links: vec![], allowed, ..Uses::default() }, &[1], &[1]);
    }
}
