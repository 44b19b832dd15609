//! Listens to what others change, and tells what contradicts the desired state.
//!
//! Our own changes never do: what is desired is written down before it is made, and forgotten
//! before it is taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError, Weak};
use std::thread;

use model::{EniId, LinkIndex, Mac};
use netlink_packet_core::{NetlinkPayload, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::tc::TcAttribute;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::sync::watch;

use super::super::types::{Dev, Hook, Object, Pair, Slot, State, Sysctl};
use super::super::{Changes, Primary};
use super::read::{self, Link, LinkAddress, Names};
use super::socket;
use super::survey::is_link_local;
use crate::bpf::{Direction, Program};

/// `RTNLGRP_*`: links, neighbours, filters, and addresses, routes, rules and switches (netconf) of
/// both families.
const GROUPS: [u32; 11] = [1, 3, 4, 5, 7, 8, 9, 11, 19, 24, 25];
/// Room for what comes while a repair runs; the kernel may give less.
const BUFFER: usize = 4 * 1024 * 1024;
/// How often the thread looks whether it is still wanted, milliseconds.
const LOOK: u16 = 500;

/// What is desired, for the one who listens.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) desired: State,
    /// MACs of the ENIs.
    pub(crate) enis: BTreeMap<Mac, EniId>,
    pub(crate) primary: Primary,
}

/// What is told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) changes: watch::Sender<Changes>,
    /// Counts links that came.
    pub(crate) links: watch::Sender<u64>,
}

impl Told {
    fn change(&self, sentence: String) {
        self.changes.send_modify(|changes| {
            changes.count += 1;
            changes.last = sentence;
        });
    }
}

/// Starts to listen in the namespace of the calling thread, until what is watched is gone.
pub(crate) fn start(watched: Weak<Mutex<Watched>>, told: Told) -> io::Result<()> {
    let mut socket = RawSocket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_rx_buf_sz(BUFFER)?;
    for group in GROUPS {
        match socket.add_membership(group) {
            // Without IPv6 the kernel has no such group.
            Err(error) if group >= 9 => tracing::debug!(%error, group, "no such events"),
            result => result?,
        }
    }
    let mut listener = Listener::default();
    for link in super::survey::links().map_err(io::Error::other)? {
        listener.seen(&link);
    }
    let thread = thread::Builder::new().name("netlink-events".to_owned());
    thread.spawn(move || listener.listen(&socket, &watched, &told))?;
    Ok(())
}

/// `RTM_NEWNETCONF` (linux/netconf.h), which netlink-packet-route does not read.
#[derive(Debug, PartialEq, Eq)]
struct Switch {
    v6: bool,
    /// `None`: of all links.
    link: Option<LinkIndex>,
    forwarding: Option<i32>,
    rp_filter: Option<i32>,
}

impl Switch {
    const KIND: u16 = 80;
    const OF_ALL: i32 = -1;

    fn read(datagram: &[u8]) -> Option<Self> {
        let kind = datagram.get(4..6)?.first_chunk::<2>()?;
        if u16::from_ne_bytes(*kind) != Self::KIND {
            return None;
        }
        let v6 = i32::from(*datagram.get(16)?) == nix::libc::AF_INET6;
        let number = |wanted: u16| {
            let mut attributes = NlasIterator::new(datagram.get(20..)?).filter_map(Result::ok);
            let attribute = attributes.find(|attribute| attribute.kind() == wanted)?;
            Some(i32::from_ne_bytes(*attribute.value().first_chunk::<4>()?))
        };
        let link = match number(1)? {
            Self::OF_ALL => None,
            index => Some(LinkIndex::try_from(index.cast_unsigned()).ok()?),
        };
        Some(Self { v6, link, forwarding: number(2), rp_filter: number(3) })
    }
}

/// What is known of links from the events so far.
#[derive(Debug, Default)]
struct Listener {
    names: Names,
    up: BTreeSet<LinkIndex>,
}

impl Listener {
    fn listen(mut self, socket: &RawSocket, watched: &Weak<Mutex<Watched>>, told: &Told) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            let ready = wait(socket);
            let Some(watched) = watched.upgrade() else { return };
            if !ready {
                continue;
            }
            buffer.clear();
            if let Err(error) = socket.recv(&mut buffer, 0) {
                let errno = error.raw_os_error().map(Errno::from_raw);
                if errno == Some(Errno::ENOBUFS) {
                    told.change("events were lost".to_owned());
                }
                continue;
            }
            if let Some(switch) = Switch::read(&buffer) {
                let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
                let sentence = watched.switched(&switch);
                drop(watched);
                if let Some(sentence) = sentence {
                    told.change(sentence);
                }
                continue;
            }
            for message in socket::parse(&buffer) {
                let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
                if matches!(message, Message::NewLink(_)) {
                    told.links.send_modify(|count| *count += 1);
                }
                let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
                let sentence = self.contradicts(&watched, &message);
                drop(watched);
                if let Some(sentence) = sentence {
                    told.change(sentence);
                }
            }
        }
    }

    fn seen(&mut self, link: &Link) {
        self.names.insert(link.dev.index, link.dev.name.clone());
        if link.up {
            self.up.insert(link.dev.index);
        }
    }

    /// What this event says against the desired state, in a sentence.
    fn contradicts(&mut self, watched: &Watched, message: &Message) -> Option<String> {
        match message {
            Message::NewLink(link) => self.link_came(watched, &read::link(link)?),
            Message::DelLink(link) => {
                let link = read::link(link)?;
                self.names.remove(&link.dev.index);
                self.up.remove(&link.dev.index);
                watched.wants(link.dev.index).then(|| format!("link {} is gone", link.dev))
            }
            Message::NewAddress(address) => watched.address_came(&read::address(address)?),
            Message::DelAddress(address) => watched.address_went(&read::address(address)?),
            Message::NewRoute(route) => {
                let (route, ours) = read::route(route, &self.names)?;
                watched.came(&Object::Route(route), ours)
            }
            Message::DelRoute(route) => {
                let (route, ours) = read::route(route, &self.names)?;
                watched.went(&Object::Route(route), ours)
            }
            Message::NewRule(rule) => watched.came(&Object::Rule(read::rule(rule)?), true),
            Message::DelRule(rule) => watched.went(&Object::Rule(read::rule(rule)?), true),
            Message::NewNeighbour(neighbour) => {
                let (slot, found) = read::neighbour(neighbour, &self.names)?;
                let wanted = watched.desired.node.get(&slot)?;
                (found.as_ref() != Some(wanted)).then(|| format!("{wanted} was changed"))
            }
            Message::DelNeighbour(neighbour) => {
                let (slot, _) = read::neighbour(neighbour, &self.names)?;
                watched.desired.node.get(&slot).map(gone)
            }
            Message::NewTrafficFilter(filter) => watched.filter_came(read::filter(filter)?),
            Message::DelTrafficFilter(filter) => watched.filter_went(read::filter(filter)?),
            Message::DelQueueDiscipline(qdisc) => {
                let index = LinkIndex::try_from(qdisc.header.index.cast_unsigned()).ok()?;
                let clsact = TcAttribute::Kind("clsact".to_owned());
                let lost = watched.wants(index) && qdisc.attributes.contains(&clsact);
                lost.then(|| format!("clsact of link {index} is gone"))
            }
            _ => None,
        }
    }

    fn link_came(&mut self, watched: &Watched, link: &Link) -> Option<String> {
        let index = link.dev.index;
        // A link that is being made is down at first.
        let was_up = self.up.remove(&index);
        self.seen(link);
        let Some(dev) = watched.dev(index) else {
            let eni = link.mac.filter(|_| link.is_nic()).and_then(|mac| watched.enis.get(&mac))?;
            return Some(format!("the link of {eni} came as {}", link.dev));
        };
        if dev.name != link.dev.name {
            return Some(format!("link {dev} was renamed to {}", link.dev));
        }
        if was_up && !link.up {
            return Some(format!("link {dev} went down"));
        }
        let object = |slot| watched.desired.node.get(&slot);
        let changed = match object(Slot::Pair(index)).or_else(|| object(Slot::Mtu(index)))? {
            Object::Pair(Pair { host_mac, mtu, .. }) => {
                (link.mac, link.mtu) != (Some(*host_mac), *mtu)
            }
            Object::Mtu(_, mtu) => link.mtu != *mtu,
            _ => false,
        };
        changed.then(|| format!("MAC or MTU of link {dev} was changed"))
    }
}

fn gone(object: &Object) -> String {
    format!("{object} is gone")
}

impl Watched {
    fn dev(&self, index: LinkIndex) -> Option<&Dev> {
        match self.desired.node.get(&Slot::Pair(index)) {
            Some(Object::Pair(pair)) => Some(&pair.host),
            _ => match self.desired.node.get(&Slot::Up(index))? {
                Object::Up(dev) => Some(dev),
                _ => None,
            },
        }
    }

    fn wants(&self, index: LinkIndex) -> bool {
        self.dev(index).is_some()
    }

    /// Of a pod's link nothing: it is born with another value, and ours comes a moment later.
    fn switched(&self, switch: &Switch) -> Option<String> {
        let (found, sysctl, value) = match switch.link {
            None => {
                let of_all = if switch.v6 { Sysctl::Ipv6Forward } else { Sysctl::Ipv4Forward };
                (Object::Sysctl(of_all.clone(), 1), of_all, switch.forwarding?)
            }
            Some(index) => {
                let Object::Up(dev) = self.desired.node.get(&Slot::Up(index))? else { return None };
                let of_link = Sysctl::RpFilter(dev.name.clone());
                (Object::LinkSysctl(of_link.clone(), 0), of_link, switch.rp_filter?)
            }
        };
        let wanted = match self.desired.node.get(&found.slot())? {
            Object::Sysctl(_, wanted) | Object::LinkSysctl(_, wanted) => i32::from(*wanted),
            _ => return None,
        };
        (wanted != value).then(|| format!("{sysctl} was set to {value}"))
    }

    fn came(&self, found: &Object, ours: bool) -> Option<String> {
        match self.desired.node.get(&found.slot()) {
            Some(wanted) if ours && wanted == found => None,
            Some(wanted) => Some(format!("{wanted} was replaced")),
            None => ours.then(|| format!("{found} should not be there")),
        }
    }

    fn went(&self, found: &Object, ours: bool) -> Option<String> {
        let wanted = self.desired.node.get(&found.slot())?;
        (ours && wanted == found).then(|| gone(wanted))
    }

    fn address_came(&self, found: &LinkAddress) -> Option<String> {
        let address = found.address.ip();
        if found.index == self.primary.index {
            let missing = match address {
                std::net::IpAddr::V4(_) => self.primary.v4.is_none(),
                std::net::IpAddr::V6(_) => self.primary.v6.is_none(),
            };
            return (found.global && missing).then(|| format!("the node has address {address}"));
        }
        let on_eni = self.desired.node.contains_key(&Slot::Up(found.index));
        let wanted = self.desired.node.contains_key(&Slot::Address(found.index, found.address));
        let wrong = on_eni && !wanted && !is_link_local(address);
        wrong.then(|| format!("link {} got address {}", found.index, found.address))
    }

    fn address_went(&self, found: &LinkAddress) -> Option<String> {
        let address = found.address.ip();
        let Primary { index, v4, v6, .. } = &self.primary;
        let primary = *index == found.index
            && (v4.is_some_and(|v4| v4 == address) || v6.is_some_and(|v6| v6 == address));
        if primary {
            return Some(format!("the node lost address {address}"));
        }
        self.desired.node.get(&Slot::Address(found.index, found.address)).map(gone)
    }

    fn filter_came(&self, (index, hook): (LinkIndex, Hook)) -> Option<String> {
        let pod = self.desired.node.contains_key(&Slot::Pair(index));
        let marked = pod && is_foreign_ingress(hook) && !self.marks_again(index);
        let news = marked || self.is_before_an_eni_s(index, hook);
        news.then(|| format!("a foreign filter sits on link {index}"))
    }

    fn filter_went(&self, (index, hook): (LinkIndex, Hook)) -> Option<String> {
        if let Some(wanted) = self.desired.node.get(&Slot::Filter(index, hook)) {
            return Some(gone(wanted));
        }
        let marked = is_foreign_ingress(hook) && self.marks_again(index);
        let news = marked || self.is_before_an_eni_s(index, hook);
        news.then(|| format!("a foreign filter left link {index}"))
    }

    fn is_before_an_eni_s(&self, index: LinkIndex, hook: Hook) -> bool {
        let eni = self.desired.node.contains_key(&Slot::Up(index));
        let mut own = Program::ALL.iter().map(|program| Hook::of(*program));
        eni && own.any(|own| {
            let behind = own.direction == hook.direction && own.priority > hook.priority;
            behind && self.desired.node.contains_key(&Slot::Filter(index, own))
        })
    }

    fn marks_again(&self, index: LinkIndex) -> bool {
        let slot = Slot::Filter(index, Hook::of(Program::SetMark));
        self.desired.node.contains_key(&slot)
    }
}

fn is_foreign_ingress(hook: Hook) -> bool {
    hook.direction == Direction::Ingress && Program::ALL.iter().all(|own| Hook::of(*own) != hook)
}

/// Whether something is to be read.
fn wait(socket: &RawSocket) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    matches!(nix::poll::poll(&mut fds, PollTimeout::from(LOOK)), Ok(ready) if ready > 0)
}
