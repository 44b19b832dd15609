//! Reads what the kernel holds, on the thread and in the namespace of the caller: on the way of no
//! ADD. What is read is made into a [`State`] when the owner of what is desired looks at it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::{IfName, LinkIndex, Mac, SandboxKey};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::super::desired::pod_sysctls;
use super::super::reaper::GROUP;
use super::super::types::{
    Dev, Hook, Inside, Object, PROTOCOL, Pair, Route, Rule, State, Sysctl, objects,
};
use super::super::{DatapathError, FilterView, names};
pub(crate) use super::read::Link;
use super::read::{self, LinkAddress, Names};
use super::socket::{Request, Socket};
use super::{errno, is_ours, sysctl};
use crate::bpf::{self, Bpf, Program};
use crate::netns::NetNs;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// What is to be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// MACs of the ENIs.
    pub(crate) enis: BTreeSet<Mac>,
    /// The pods and their namespaces.
    pub(crate) pods: BTreeMap<SandboxKey, PathBuf>,
    /// The node's switches, with any value.
    pub(crate) sysctls: Vec<Object>,
}

/// The node, as read.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<LinkAddress>,
    routes: Vec<Route>,
    /// Links with a route from a router advertisement that the kernel itself handles.
    pub(crate) advertised: BTreeSet<IfName>,
    pub(crate) rules: Vec<Rule>,
    neighbours: Vec<Object>,
    pub(crate) filters: Vec<FilterView>,
    sysctls: Vec<Object>,
    insides: BTreeMap<SandboxKey, PodSurvey>,
    /// Pods whose namespace cannot be entered, and why.
    pub(crate) closed: BTreeMap<SandboxKey, String>,
}

/// A pod's namespace, as read.
#[derive(Debug, Default)]
struct PodSurvey {
    netns: PathBuf,
    links: Vec<Link>,
    addresses: Vec<LinkAddress>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
    neighbours: Vec<Object>,
    sysctls: Vec<(Sysctl, u8)>,
}

pub(super) fn failed(what: &'static str) -> impl Fn(io::Error) -> DatapathError {
    move |source| DatapathError::Read { what, source }
}

/// All links of the caller's namespace.
pub(crate) fn links() -> Result<Vec<Link>, DatapathError> {
    Socket::open().and_then(|mut socket| read_links(&mut socket)).map_err(failed("links"))
}

/// All rules of ours in the caller's namespace.
pub(crate) fn rules() -> Result<Vec<Rule>, DatapathError> {
    Socket::open().and_then(|mut socket| read_rules(&mut socket)).map_err(failed("rules"))
}

/// The filters on these links.
pub(crate) fn filters(links: &[Dev]) -> Result<Vec<FilterView>, DatapathError> {
    let mut views = Vec::new();
    for link in links {
        match bpf::filters(link.index) {
            Ok(filters) => views.extend(filters.into_iter().map(|filter| view(link, filter))),
            // The link went meanwhile.
            Err(bpf::BpfError::Filter { source, .. })
                if errno(&source) == Some(nix::errno::Errno::ENODEV) => {}
            Err(source) => {
                let what = format!("cannot read the filters of {link}");
                return Err(DatapathError::Bpf { what, source });
            }
        }
    }
    Ok(views)
}

fn view(link: &Dev, filter: bpf::Filter) -> FilterView {
    let bpf::Filter { point, kind, name, program_id, program } = filter;
    FilterView {
        link: link.name.clone(),
        index: link.index,
        direction: point.direction,
        priority: point.priority,
        handle: point.handle,
        program: name.unwrap_or(kind),
        program_id: program_id.unwrap_or_default(),
        foreign: program.is_none(),
    }
}

/// Whether it is the host's end of a pod that lives and is none of these (by alias). The links of a
/// pod go with its namespace.
pub(crate) fn is_standing_pod(link: &Link, known: &BTreeSet<String>) -> bool {
    let alias = link.alias.as_ref();
    is_ours(link) && link.group != GROUP && alias.is_some_and(|alias| !known.contains(alias))
}

impl Survey {
    /// Reads the caller's namespace and those of the pods in `scope`.
    pub(crate) fn take(scope: &Scope) -> Result<Self, DatapathError> {
        let mut socket = Socket::open().map_err(failed("links"))?;
        let links = read_links(&mut socket).map_err(failed("links"))?;
        let names = by_index(&links);
        let mut survey = Self {
            addresses: read_addresses(&mut socket).map_err(failed("addresses"))?,
            routes: read_routes(&mut socket, &names).map_err(failed("routes"))?,
            rules: read_rules(&mut socket).map_err(failed("rules"))?,
            neighbours: read_neighbours(&mut socket, &names).map_err(failed("neighbours"))?,
            advertised: read_advertised(&mut socket, &names).map_err(failed("routes"))?,
            links,
            ..Self::default()
        };
        let ours = survey.links.iter().filter(|link| {
            is_ours(link) || link.mac.is_some_and(|mac| scope.enis.contains(&mac) && link.is_nic())
        });
        let ours: Vec<Dev> = ours.map(|link| link.dev.clone()).collect();
        survey.filters = filters(&ours)?;
        survey.sysctls = read_sysctls(&scope.sysctls)?;
        for (key, netns) in &scope.pods {
            match PodSurvey::take(netns) {
                Ok(inside) => _ = survey.insides.insert(key.clone(), inside),
                Err(why) => _ = survey.closed.insert(key.clone(), why),
            }
        }
        Ok(survey)
    }

    /// The link that carries this MAC by itself.
    pub(crate) fn nic(&self, mac: Mac) -> Option<&Link> {
        nic(&self.links, mac)
    }

    /// Links on whose ingress a filter of somebody else sits.
    pub(crate) fn foreign_filters(&self) -> BTreeSet<LinkIndex> {
        let foreign = self.filters.iter().filter(|filter| filter.foreign);
        let ingress = foreign.filter(|filter| filter.direction == bpf::Direction::Ingress);
        ingress.map(|filter| filter.index).collect()
    }

    /// What is ours in the kernel, maps included, if these links are the ENIs'.
    pub(crate) fn state(
        &self,
        enis: &BTreeSet<LinkIndex>,
        programs: &BTreeMap<Program, u32>,
        bpf: &Bpf,
    ) -> Result<State, DatapathError> {
        let mut all = self.map_objects(bpf)?;
        all.extend(self.sysctls.iter().cloned());
        all.extend(self.links.iter().filter_map(|link| self.pair(link)).map(Object::Pair));
        all.extend(self.eni_links(enis));
        all.extend(self.filters.iter().filter_map(|filter| our_filter(filter, programs)));
        // What is left of a deleted pod goes with its link.
        let reaped = |link: &&Link| link.group == GROUP;
        let reaped: BTreeSet<_> =
            self.links.iter().filter(reaped).map(|link| link.dev.index).collect();
        let kept = |object: &&Object| object.goes_with().is_none_or(|link| !reaped.contains(&link));
        all.extend(self.neighbours.iter().filter(kept).cloned());
        all.extend(self.routes.iter().cloned().map(Object::Route));
        all.extend(self.rules.iter().cloned().map(Object::Rule));
        let pods = self.insides.iter();
        let pods = pods.map(|(key, inside)| (key.clone(), inside.inside())).collect();
        Ok(State { node: objects(all), pods })
    }

    fn eni_links(&self, enis: &BTreeSet<LinkIndex>) -> Vec<Object> {
        let links = self.links.iter().filter(|link| enis.contains(&link.dev.index));
        let mut all = Vec::new();
        for link in links {
            all.push(Object::Mtu(link.dev.clone(), link.mtu));
            if link.up {
                all.push(Object::Up(link.dev.clone()));
            }
            let own = self.addresses.iter().filter(|address| address.index == link.dev.index);
            let own = own.filter(|address| !is_link_local(address.address.ip()));
            all.extend(own.map(|own| Object::Address(link.dev.clone(), own.address)));
        }
        all
    }

    /// The pair of a link of ours, the other end as seen in the pod.
    fn pair(&self, link: &Link) -> Option<Pair> {
        if !is_ours(link) || link.group == GROUP {
            return None;
        }
        let alias = link.alias.clone()?;
        let owner = self.insides.iter().find(|(key, _)| names::alias(key) == alias);
        let peer = owner.and_then(|(_, inside)| {
            let peer = inside.links.iter().find(|end| Some(end.dev.index) == link.peer)?;
            Some((peer, inside.netns.clone()))
        });
        let dev = link.dev.clone();
        let (peer, peer_mac, netns) = if let Some((peer, netns)) = peer {
            (peer.dev.clone(), peer.mac?, netns)
        } else {
            // Nobody wants it, or nobody can look: it is as the kernel says from here.
            let unknown = Dev { index: link.peer?, name: "unknown".parse().ok()? };
            (unknown, Mac::new([0; 6]), PathBuf::new())
        };
        let (host_mac, mtu, up) = (link.mac?, link.mtu, link.up);
        Some(Pair { host: dev, host_mac, peer, peer_mac, mtu, up, alias, netns })
    }

    fn map_objects(&self, bpf: &Bpf) -> Result<Vec<Object>, DatapathError> {
        let failed = |source| DatapathError::Bpf { what: "cannot read the maps".into(), source };
        let names = by_index(&self.links);
        // An entry may outlive its link.
        let dev = |index: LinkIndex| {
            let gone = || "gone".parse().expect("gone is a name");
            Dev { index, name: names.get(&index).cloned().unwrap_or_else(gone) }
        };
        let mut all: Vec<Object> =
            bpf.node().map_err(failed)?.map(Object::Node).into_iter().collect();
        for (link, mac) in bpf.enis().map_err(failed)? {
            all.push(Object::Eni { link: dev(link), mac });
        }
        for (trunk, vlan, macs) in bpf.members().map_err(failed)? {
            all.push(Object::Member { trunk: dev(trunk), vlan, macs });
        }
        for (link, endpoint) in bpf.endpoints().map_err(failed)? {
            all.push(Object::Endpoint { link: dev(link), endpoint });
        }
        for (link, address, entry) in bpf.addresses().map_err(failed)? {
            all.push(Object::Allowed { link: dev(link), address, entry });
        }
        Ok(all)
    }
}

impl PodSurvey {
    fn take(path: &Path) -> Result<Self, String> {
        let netns = NetNs::open(path).map_err(|error| chain(&error))?;
        if netns.is_the_nodes().map_err(|error| error.to_string())? {
            return Err(format!("{} is the node's own namespace", path.display()));
        }
        let inside = netns.run(Self::read).map_err(|error| chain(&error))?;
        let inside = inside.map_err(|error| error.to_string())?;
        Ok(Self { netns: path.to_owned(), ..inside })
    }

    fn read() -> io::Result<Self> {
        let mut socket = Socket::open()?;
        let links = read_links(&mut socket)?;
        let names = by_index(&links);
        let mut sysctls = Vec::new();
        for link in links.iter().filter(|link| link.kind == Some(InfoKind::Veth)) {
            for sysctl in pod_sysctls(&link.dev.name) {
                sysctls.extend(sysctl::read(&sysctl)?.map(|value| (sysctl, value)));
            }
        }
        Ok(Self {
            netns: PathBuf::new(),
            addresses: read_addresses(&mut socket)?,
            routes: read_routes(&mut socket, &names)?,
            rules: read_rules(&mut socket)?,
            neighbours: read_neighbours(&mut socket, &names)?,
            links,
            sysctls,
        })
    }

    fn inside(&self) -> Inside {
        let mut all: Vec<Object> = Vec::new();
        for link in &self.links {
            if link.up {
                all.push(Object::Up(link.dev.clone()));
            }
            let own = self.addresses.iter().filter(|address| address.index == link.dev.index);
            all.extend(own.map(|own| Object::Address(link.dev.clone(), own.address)));
        }
        let switches = self.sysctls.iter();
        all.extend(switches.map(|(key, value)| Object::LinkSysctl(key.clone(), *value)));
        all.extend(self.neighbours.iter().cloned());
        all.extend(self.routes.iter().cloned().map(Object::Route));
        all.extend(self.rules.iter().cloned().map(Object::Rule));
        Inside { netns: self.netns.clone(), objects: objects(all) }
    }
}

/// The link that carries this MAC by itself.
pub(crate) fn nic(links: &[Link], mac: Mac) -> Option<&Link> {
    links.iter().find(|link| link.mac == Some(mac) && link.is_nic() && !is_ours(link))
}

fn our_filter(view: &FilterView, programs: &BTreeMap<Program, u32>) -> Option<Object> {
    let hook = Hook { direction: view.direction, priority: view.priority };
    let at_hook = |program: &&Program| Hook::of(**program) == hook;
    let running =
        programs.iter().find(|(_, id)| **id == view.program_id).map(|(program, _)| program);
    // One from an earlier start has another id: any name will do, the id says that it differs.
    let program = running.filter(at_hook).or_else(|| programs.keys().find(at_hook));
    let link = Dev { index: view.index, name: view.link.clone() };
    let ours = !view.foreign && view.handle == 1;
    let id = view.program_id;
    program.filter(|_| ours).map(|program| Object::Filter { link, program: *program, id })
}

pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map_or_else(String::new, |source| format!(": {source}"));
    format!("{error}{source}")
}

pub(super) fn by_index(links: &[Link]) -> Names {
    links.iter().map(|link| (link.dev.index, link.dev.name.clone())).collect()
}

pub(super) fn read_links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let mut ask = LinkMessage::default();
    // Counters make most of the answer.
    ask.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let found = socket.dump(&Message::GetLink(ask))?;
    let links = found.iter().filter_map(|message| match message {
        Message::NewLink(link) => read::link(link),
        _ => None,
    });
    Ok(links.collect())
}

pub(super) fn read_addresses(socket: &mut Socket) -> io::Result<Vec<LinkAddress>> {
    let found = socket.dump(&Message::GetAddress(AddressMessage::default()))?;
    let addresses = found.iter().filter_map(|message| match message {
        Message::NewAddress(address) => read::address(address),
        _ => None,
    });
    Ok(addresses.collect())
}

fn read_routes(socket: &mut Socket, names: &Names) -> io::Result<Vec<Route>> {
    let messages = dump_routes(socket, RouteProtocol::from(PROTOCOL))?;
    let routes = messages.iter().filter_map(|route| read::route(route, names));
    Ok(routes.filter(|(_, ours)| *ours).map(|(route, _)| route).collect())
}

/// Only where the kernel itself takes advertisements: some leave it to a program.
fn read_advertised(socket: &mut Socket, names: &Names) -> io::Result<BTreeSet<IfName>> {
    let messages = dump_routes(socket, RouteProtocol::Ra)?;
    let mut links = BTreeSet::new();
    for link in messages.iter().filter_map(|route| read::advertised(route, names)) {
        let takes = sysctl::read(&Sysctl::AcceptRa(link.clone()))?;
        if takes.is_some_and(|takes| takes > 0) {
            links.insert(link);
        }
    }
    Ok(links)
}

pub(super) fn dump_routes(
    socket: &mut Socket,
    protocol: RouteProtocol,
) -> io::Result<Vec<RouteMessage>> {
    let mut routes = Vec::new();
    for family in FAMILIES {
        let mut ask = RouteMessage::default();
        ask.header.address_family = family;
        ask.header.protocol = protocol;
        let found = or_none(socket.dump(&Message::GetRoute(ask)))?;
        routes.extend(found.into_iter().filter_map(|message| match message {
            Message::NewRoute(route) => Some(route),
            _ => None,
        }));
    }
    Ok(routes)
}

pub(super) fn read_rules(socket: &mut Socket) -> io::Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for family in FAMILIES {
        let mut ask = RuleMessage::default();
        ask.header.family = family;
        let found = or_none(socket.dump(&Message::GetRule(ask)))?;
        rules.extend(found.iter().filter_map(|message| match message {
            Message::NewRule(rule) => read::rule(rule),
            _ => None,
        }));
    }
    Ok(rules)
}

fn read_neighbours(socket: &mut Socket, names: &Names) -> io::Result<Vec<Object>> {
    let known = neighbours(socket)?;
    let ours = known.iter().filter_map(|neighbour| read::neighbour(neighbour, names)?.1);
    Ok(ours.collect())
}

/// All neighbours, whoever made them.
pub(crate) fn neighbours(socket: &mut Socket) -> io::Result<Vec<NeighbourMessage>> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let mut ask = NeighbourMessage::default();
        ask.header.family = family;
        let found = or_none(socket.dump(&Message::GetNeighbour(ask)))?;
        all.extend(found.into_iter().filter_map(|message| match message {
            Message::NewNeighbour(neighbour) => Some(neighbour),
            _ => None,
        }));
    }
    Ok(all)
}

fn read_sysctls(switches: &[Object]) -> Result<Vec<Object>, DatapathError> {
    let mut values = Vec::new();
    for switch in switches {
        let (Object::Sysctl(sysctl, _) | Object::LinkSysctl(sysctl, _)) = switch else { continue };
        let value = sysctl::read(sysctl).map_err(failed("switches under /proc/sys/net"))?;
        values.extend(value.map(|value| match switch {
            Object::Sysctl(..) => Object::Sysctl(sysctl.clone(), value),
            _ => Object::LinkSysctl(sysctl.clone(), value),
        }));
    }
    Ok(values)
}

/// A kernel without IPv6 has nothing of that family.
fn or_none(found: io::Result<Vec<Message>>) -> io::Result<Vec<Message>> {
    match found {
        Err(error) if errno(&error) == Some(nix::errno::Errno::EOPNOTSUPP) => Ok(vec![]),
        found => found,
    }
}

/// The links that wait for the reaper.
#[derive(Debug)]
pub(crate) struct Reapable(Socket);

impl Reapable {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(Socket::open()?))
    }

    /// How many there are.
    pub(crate) fn count(&mut self) -> io::Result<usize> {
        Ok(self.all()?.iter().filter(|link| is_ours(link)).count())
    }

    /// Deletes them: at one go, unless somebody else uses our group.
    pub(crate) fn delete(&mut self) -> io::Result<()> {
        let links = self.all()?;
        if links.is_empty() {
            return Ok(());
        }
        if links.iter().all(is_ours) {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::Group(GROUP));
            return super::gone_is_fine(self.0.run_one(Request::new(Message::DelLink(message), 0)));
        }
        for link in links.iter().filter(|link| is_ours(link)) {
            let mut message = LinkMessage::default();
            message.header.index = link.dev.index.get();
            super::gone_is_fine(self.0.run_one(Request::new(Message::DelLink(message), 0)))?;
        }
        Ok(())
    }

    fn all(&mut self) -> io::Result<Vec<Link>> {
        let mut links = read_links(&mut self.0)?;
        links.retain(|link| link.group == GROUP);
        Ok(links)
    }
}
