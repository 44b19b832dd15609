//! The kernel: runs ops. What it holds is read by [`survey`].

mod conntrack;
pub(crate) mod forget;
mod read;
mod socket;
pub(crate) mod survey;
mod sysctl;
pub(crate) mod users;
pub(crate) mod watch;
mod write;

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use model::{IfName, LinkIndex, SandboxKey};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkMessage};
use nix::errno::Errno;

use super::names;
use super::reaper::{GROUP, Reaper};
use super::types::{Change, Object, Op, Pair, Place};
use crate::bpf::{Bpf, BpfError};
use crate::failpoints::{Point, reach};
use crate::netns::{NetNs, NetNsError};
use read::Link;
pub(crate) use socket::errno;
use socket::{Request, Socket};
pub(crate) use sysctl::has_ipv6;

/// How often, and after how long, a link is looked at until it can send. It is no error if it
/// cannot even then: the pod only misses its first frames.
const SETTLE_LOOKS: u32 = 50;
const SETTLE_PAUSE: Duration = Duration::from_micros(200);

/// What to do with the ops behind one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnError {
    /// Leave them, for what was done will be undone.
    Stop,
    /// Run them: each is right by itself.
    Continue,
}

/// An op that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) op: Op,
    pub(crate) error: KernelError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op.finding(), self.error)?;
        let mut source = self.error.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    #[error("the kernel refused")]
    Refused(#[source] io::Error),
    #[error("the namespace")]
    Namespace(#[from] NetNsError),
    #[error("the namespace is the node's own")]
    OwnNamespace,
    #[error("eBPF")]
    Bpf(#[from] BpfError),
    /// A link of somebody else has a name or a number of ours, here or in the pod's namespace.
    #[error("its name or index, or its peer's, belongs to another link")]
    Taken,
    /// The name of the pod's end belongs to another link, in the pod's namespace.
    #[error("the pod's namespace has a link of that name already")]
    Occupied,
    /// Something before it failed.
    #[error("it was not run, or its answer was not seen")]
    NotRun,
}

impl From<io::Error> for KernelError {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// The kernel of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Kernel {
    socket: Socket,
    pub(crate) bpf: Bpf,
    reaper: Reaper,
}

/// By which means an op runs. Ops of one means that follow each other run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means<'op> {
    /// A map or a switch.
    Direct,
    Pair,
    /// One batch of netlink messages.
    Batch,
    /// One batch in a pod's namespace.
    Inside(&'op SandboxKey, &'op Path),
}

impl Means<'_> {
    fn of(op: &Op) -> Means<'_> {
        match (&op.place, op.object()) {
            (Place::Pod(key, netns), _) => Means::Inside(key, netns),
            (Place::Node, Object::Pair(_)) => Means::Pair,
            (
                Place::Node,
                Object::Filter { .. }
                | Object::Mtu(..)
                | Object::Up(_)
                | Object::Address(..)
                | Object::Neighbour(..)
                | Object::Route(_)
                | Object::Rule(_),
            ) => Means::Batch,
            (Place::Node, _) => Means::Direct,
        }
    }
}

impl Kernel {
    pub(crate) fn open(bpf: Bpf, reaper: Reaper) -> io::Result<Self> {
        Ok(Self { socket: Socket::open()?, bpf, reaper })
    }

    /// Runs the ops in their order. What cannot be removed because it is not there was removed.
    /// After each step a test may make the daemon die.
    pub(crate) fn run(&mut self, ops: &[Op], on_error: OnError, step: Point) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut rest = ops;
        while let Some(first) = rest.first() {
            let means = Means::of(first);
            let together = match means {
                Means::Direct | Means::Pair => 1,
                Means::Batch | Means::Inside(..) => {
                    rest.iter().take_while(|op| Means::of(op) == means).count()
                }
            };
            let (now, later) = rest.split_at(together);
            let results = match means {
                Means::Direct => vec![self.direct(&first.change)],
                Means::Pair => vec![self.pair(&first.change)],
                Means::Batch => self.batch(now),
                Means::Inside(_, netns) => inside(netns, now),
            };
            for (op, result) in now.iter().zip(results) {
                if let Err(error) = result {
                    failures.push(Failure { op: op.clone(), error });
                }
            }
            if on_error == OnError::Stop && !failures.is_empty() {
                return failures;
            }
            reach(step);
            rest = later;
        }
        failures
    }

    fn direct(&mut self, change: &Change) -> Result<(), KernelError> {
        let (object, wanted) = match change {
            Change::Add(object) | Change::Replace { to: object, .. } => (object, true),
            Change::Remove(object) => (object, false),
        };
        match (object, wanted) {
            (Object::Sysctl(sysctl, value) | Object::LinkSysctl(sysctl, value), true) => {
                sysctl::write(sysctl, *value)?;
            }
            (Object::Node(node), true) => self.bpf.set_node(node)?,
            (Object::Eni { link, mac }, true) => self.bpf.set_eni(link.index, *mac)?,
            (Object::Eni { link, .. }, false) => self.bpf.remove_eni(link.index)?,
            (Object::Member { trunk, vlan, macs }, true) => {
                self.bpf.set_member(trunk.index, *vlan, *macs)?;
            }
            (Object::Member { trunk, vlan, .. }, false) => {
                self.bpf.remove_member(trunk.index, *vlan)?;
            }
            (Object::Endpoint { link, endpoint }, true) => {
                self.bpf.set_endpoint(link.index, endpoint)?;
            }
            (Object::Endpoint { link, .. }, false) => self.bpf.remove_endpoint(link.index)?,
            (Object::Allowed { link, address, entry }, true) => {
                self.bpf.set_address(link.index, *address, *entry)?;
            }
            (Object::Allowed { link, address, .. }, false) => {
                self.bpf.remove_address(link.index, *address)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn batch(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        let mut requests = Vec::new();
        let mut counts = Vec::new();
        let mut prepared = BTreeSet::new();
        for op in ops {
            let start = requests.len();
            let built = match &op.change {
                Change::Add(Object::Filter { link, program, .. })
                | Change::Replace { to: Object::Filter { link, program, .. }, .. } => {
                    self.bpf.attach_messages(link.index, &[*program]).map(|messages| {
                        let first = prepared.insert(link.index);
                        let messages = messages.into_iter().skip(usize::from(!first));
                        requests.extend(messages.filter_map(as_request));
                    })
                }
                change => {
                    requests.extend(write::request(change));
                    Ok(())
                }
            };
            counts.push(built.map(|()| requests.len() - start));
        }
        let answers = self.socket.run(requests);
        collect(ops, counts, answers)
    }

    fn pair(&mut self, change: &Change) -> Result<(), KernelError> {
        match change {
            Change::Add(Object::Pair(pair)) => self.make_pair(pair),
            Change::Remove(Object::Pair(pair)) => self.reap(pair),
            Change::Replace { from: Object::Pair(from), to: Object::Pair(to) } => {
                let same = (&from.peer, &from.netns) == (&to.peer, &to.netns);
                if same {
                    self.mend_pair(from, to)
                } else {
                    self.delete(from.host.index)?;
                    self.make_pair(to)
                }
            }
            _ => Ok(()),
        }
    }

    fn make_pair(&mut self, pair: &Pair) -> Result<(), KernelError> {
        let netns = NetNs::open(&pair.netns)?;
        if netns.is_the_nodes()? {
            return Err(KernelError::OwnNamespace);
        }
        let create = write::pair(pair, netns.as_raw_fd());
        let mut cleared = 0;
        while let Err(error) = self.socket.run_one(create.clone()) {
            if !exists(&error) {
                return Err(error.into());
            }
            match self.standing(pair, &netns)? {
                Standing::Ours(link) => {
                    let mend = write::mend_host(pair, &link.dev.name, link.mac);
                    return Ok(self.socket.run_one(mend)?);
                }
                // Its name, its index and its peer's name may be taken by one each.
                Standing::Reaped(index) if cleared < 3 => self.delete(index)?,
                Standing::Reaped(_) | Standing::Foreign => return Err(in_the_way(pair, &netns)),
            }
            cleared += 1;
        }
        let alias = LinkAttribute::IfAlias(pair.alias.clone());
        Ok(self.socket.run_one(write::set_link(pair.host.index, vec![alias]))?)
    }

    fn mend_pair(&mut self, from: &Pair, to: &Pair) -> Result<(), KernelError> {
        let mend = write::mend_host(to, &from.host.name, Some(from.host_mac));
        self.socket.run_one(mend)?;
        if (from.peer_mac, from.mtu) == (to.peer_mac, to.mtu) {
            return Ok(());
        }
        let netns = NetNs::open(&to.netns)?;
        Ok(netns.run(|| Socket::open()?.run_one(write::mend_peer(to, from.peer_mac)))??)
    }

    /// Who has the name or the index of this pair, or the name of its other end.
    fn standing(&mut self, pair: &Pair, netns: &NetNs) -> Result<Standing, KernelError> {
        let by_index = self.link(pair.host.index)?;
        let by_name = self.link_named(&pair.host.name)?;
        Ok(match by_index.or(by_name) {
            Some(link) if is_reaped(&link) => Standing::Reaped(link.dev.index),
            Some(link) if is_this(&link, pair) => Standing::Ours(link),
            Some(_) => Standing::Foreign,
            None => self.reaped_in(pair, netns)?.map_or(Standing::Foreign, Standing::Reaped),
        })
    }

    /// The host's end of a pair that waits for the reaper, and whose other end has the name that is
    /// wanted in the pod: the namespace's sandbox before this one.
    fn reaped_in(&mut self, pair: &Pair, netns: &NetNs) -> Result<Option<LinkIndex>, KernelError> {
        let there = netns.run(|| link_named(&mut Socket::open()?, &pair.peer.name))??;
        let Some(there) = there else { return Ok(None) };
        let Some(host) = there.peer.map(|host| self.link(host)).transpose()?.flatten() else {
            return Ok(None);
        };
        let reaped = is_reaped(&host) && host.peer == Some(there.dev.index);
        Ok(reaped.then_some(host.dev.index))
    }

    /// Hands the host's end to the reaper, if it is really this one: numbers of links are used
    /// again after a reboot.
    fn reap(&mut self, pair: &Pair) -> Result<(), KernelError> {
        let Some(link) = self.link(pair.host.index)? else { return Ok(()) };
        if !is_this(&link, pair) || link.group == GROUP {
            return Ok(());
        }
        let alias = LinkAttribute::IfAlias(pair.alias.clone());
        let group = vec![LinkAttribute::Group(GROUP), alias];
        gone_is_fine(self.socket.run_one(write::set_link(pair.host.index, group)))?;
        self.reaper.queue();
        Ok(())
    }

    fn delete(&mut self, index: LinkIndex) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index.get();
        gone_is_fine(self.socket.run_one(Request::new(Message::DelLink(message), 0)))
    }

    /// Waits until the host's end of a pair whose other end came up can send: the kernel drops all
    /// until its link watch has run, which waits for the lock that a deletion of links may hold.
    /// Since Linux 6.8 to ask is enough (`linkwatch_sync_dev`).
    pub(crate) fn settle(&mut self, index: LinkIndex) -> io::Result<()> {
        for _ in 0..SETTLE_LOOKS {
            match self.link(index)? {
                Some(link) if !link.carries => thread::sleep(SETTLE_PAUSE),
                _ => break,
            }
        }
        Ok(())
    }

    /// The link with this index.
    pub(crate) fn link(&mut self, index: LinkIndex) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index.get();
        get_link(&mut self.socket, message)
    }

    /// The link with this name.
    pub(crate) fn link_named(&mut self, name: &IfName) -> io::Result<Option<Link>> {
        link_named(&mut self.socket, name)
    }
}

fn link_named(socket: &mut Socket, name: &IfName) -> io::Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    get_link(socket, message)
}

fn get_link(socket: &mut Socket, message: LinkMessage) -> io::Result<Option<Link>> {
    match socket.get(Message::GetLink(message)) {
        Ok(Message::NewLink(found)) => Ok(read::link(&found)),
        Ok(_) => Ok(None),
        Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_reaped(link: &Link) -> bool {
    link.group == GROUP && is_ours(link)
}

fn exists(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::EEXIST | Errno::EBUSY))
}

/// Why the pair cannot be made: other numbers help, or they do not.
fn in_the_way(pair: &Pair, netns: &NetNs) -> KernelError {
    let named = netns.run(|| link_named(&mut Socket::open()?, &pair.peer.name));
    match named {
        Ok(Ok(Some(_))) => KernelError::Occupied,
        Ok(_) | Err(_) => KernelError::Taken,
    }
}

enum Standing {
    Ours(Link),
    /// An old one of ours that the reaper has not come to.
    Reaped(LinkIndex),
    Foreign,
}

fn is_ours(link: &Link) -> bool {
    link.kind == Some(InfoKind::Veth) && link.alias.as_deref().is_some_and(names::is_alias)
}

/// Whether it is the pair's end. One without an alias was made just before a crash.
fn is_this(link: &Link, pair: &Pair) -> bool {
    let owned = match &link.alias {
        Some(alias) => *alias == pair.alias,
        None => link.mac == Some(pair.host_mac) && link.dev.name == pair.host.name,
    };
    owned && link.kind == Some(InfoKind::Veth) && link.peer == Some(pair.peer.index)
}

/// Runs ops in a pod's namespace, on a thread that dies there.
fn inside(netns: &Path, ops: &[Op]) -> Vec<Result<(), KernelError>> {
    let netns = match NetNs::open(netns) {
        Ok(netns) => netns,
        Err(error) => return first(ops, error.into()),
    };
    match netns.is_the_nodes() {
        Ok(false) => {}
        Ok(true) => return first(ops, KernelError::OwnNamespace),
        Err(error) => return first(ops, error.into()),
    }
    match netns.run(|| entered(ops)) {
        Ok(results) => results,
        Err(error) => first(ops, error.into()),
    }
}

/// One error for all: the first op has it, and none of them is done.
fn first(ops: &[Op], error: KernelError) -> Vec<Result<(), KernelError>> {
    let rest = ops.iter().skip(1).map(|_| Err(KernelError::NotRun));
    [Err(error)].into_iter().chain(rest).collect()
}

fn entered(ops: &[Op]) -> Vec<Result<(), KernelError>> {
    let mut requests = Vec::new();
    let mut counts = Vec::new();
    for op in ops {
        let start = requests.len();
        let built = match &op.change {
            Change::Add(Object::LinkSysctl(sysctl, value))
            | Change::Replace { to: Object::LinkSysctl(sysctl, value), .. } => {
                sysctl::write(sysctl, *value).map_err(KernelError::from)
            }
            change => {
                requests.extend(write::request(change));
                Ok(())
            }
        };
        counts.push(built.map(|()| requests.len() - start));
    }
    let answers = Socket::open().and_then(|mut socket| socket.run(requests));
    collect(ops, counts, answers)
}

/// Gives each op the first error among the answers to its requests.
fn collect<E: Into<KernelError>>(
    ops: &[Op],
    counts: Vec<Result<usize, E>>,
    answers: io::Result<Vec<io::Result<()>>>,
) -> Vec<Result<(), KernelError>> {
    let mut answers = match answers {
        Ok(answers) => answers.into_iter(),
        Err(error) => return first(ops, error.into()),
    };
    let answered = ops.iter().zip(counts).map(|(op, count)| {
        let count = count.map_err(Into::into)?;
        let own: Vec<_> = answers.by_ref().take(count).collect();
        let all = own.len() == count;
        let own = own.into_iter().try_for_each(|answer| tolerate(&op.change, answer));
        own.map_err(KernelError::from).and_then(|()| all.then_some(()).ok_or(KernelError::NotRun))
    });
    answered.collect()
}

/// What is there already, or gone already, is as it should be.
fn tolerate(change: &Change, answer: io::Result<()>) -> io::Result<()> {
    match change {
        Change::Remove(Object::Filter { .. }) => match answer {
            // There is no `clsact` either.
            Err(error) if errno(&error) == Some(Errno::EINVAL) => Ok(()),
            answer => gone_is_fine(answer),
        },
        Change::Remove(_) => gone_is_fine(answer),
        Change::Add(Object::Rule(_)) => match answer {
            Err(error) if errno(&error) == Some(Errno::EEXIST) => Ok(()),
            answer => answer,
        },
        Change::Add(_) | Change::Replace { .. } => answer,
    }
}

fn gone_is_fine(answer: io::Result<()>) -> io::Result<()> {
    let gone = [Errno::ENODEV, Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL];
    match answer {
        Err(error) if errno(&error).is_some_and(|number| gone.contains(&number)) => Ok(()),
        answer => answer,
    }
}

fn as_request(message: netlink_packet_core::NetlinkMessage<Message>) -> Option<Request> {
    let flags = message.header.flags & !(NLM_F_REQUEST | NLM_F_ACK);
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Some(Request::new(inner, flags)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(name: &str) -> Op {
        let dev = super::super::types::Dev {
            index: LinkIndex::try_from(3).unwrap(),
            name: name.parse().unwrap(),
        };
        Op::new(Place::Node, Change::Add(Object::Up(dev)))
    }

    #[test]
    fn what_did_not_run_is_not_done() {
        let ops = ["eth1", "eth2", "eth3"].map(op);
        let counts = || vec![Ok::<_, io::Error>(1), Ok(1), Ok(1)];
        let lost = || io::Error::from(Errno::ENOBUFS);
        let results = collect(&ops, counts(), Err(lost()));
        assert!(matches!(
            results[..],
            [Err(KernelError::Refused(_)), Err(KernelError::NotRun), Err(KernelError::NotRun)]
        ));
        // The answers ended early.
        let results = collect(&ops, counts(), Ok(vec![Ok(()), Err(lost())]));
        assert!(matches!(
            results[..],
            [Ok(()), Err(KernelError::Refused(_)), Err(KernelError::NotRun)]
        ));
        let gone = Path::new("/run/netns/nowhere");
        let results = inside(gone, &ops);
        assert!(matches!(
            results[..],
            [Err(KernelError::Namespace(_)), Err(KernelError::NotRun), Err(KernelError::NotRun)]
        ));
    }
}
