//! The eBPF programs and maps: load, pin, attach at fixed priorities, replace without a gap.
//!
//! Filters belong to their link and maps to their pins, so both outlive the daemon; nothing here
//! ever detaches a program.

mod entries;
mod error;
mod events;
mod filters;
mod pins;
mod program;
mod reader;
mod tcx;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuHashMap, PerCpuValues};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use ebpf_common::{self as layout, Counters, map};
pub use ebpf_common::{Count, DropCause, SCHEMA};
use model::{LinkIndex, Mac, VlanId};
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;

pub use entries::{Address, Endpoint, MemberMacs, Node};
pub use error::{BpfError, PinShape};
pub use events::{DropEvent, Events};
pub use filters::{Filter, filters};
pub use program::{AttachPoint, Direction, Program};
pub use reader::{PodCounters, Reader};
pub use tcx::Preceded;

/// The loaded programs and their pinned maps.
pub struct Bpf {
    ebpf: Ebpf,
    pins: PathBuf,
    ids: BTreeMap<Program, u32>,
    endpoints: HashMap<MapData, u32, layout::Endpoint>,
    addresses: HashMap<MapData, layout::AddressKey, layout::Address>,
    members: HashMap<MapData, layout::MemberKey, layout::Member>,
    node: Array<MapData, layout::Node>,
    counters: PerCpuHashMap<MapData, u32, Counters>,
    reader: Reader,
    cpus: usize,
}

impl fmt::Debug for Bpf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bpf")
            .field("pins", &self.pins)
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

impl Bpf {
    /// Loads the object file, reusing the maps pinned under `pins` (made if missing; checked
    /// against the definitions: a pin of another shape is an error that names it). The programs
    /// are pinned beside them, in `programs`. Attaches nothing.
    pub fn load(object: &Path, pins: &Path) -> Result<Self, BpfError> {
        let bytes = std::fs::read(object)
            .map_err(|source| BpfError::ReadObject { path: object.to_owned(), source })?;
        pins::prepare(pins)?;
        let mut ebpf =
            EbpfLoader::new().default_map_pin_directory(pins).load(&bytes).map_err(|source| {
                BpfError::Object { path: object.to_owned(), source: Box::new(source) }
            })?;
        let mut ids = BTreeMap::new();
        for program in Program::ALL {
            ids.insert(program, load_program(&mut ebpf, program, pins)?);
        }
        Ok(Self {
            endpoints: take(&mut ebpf, map::ENDPOINTS)?,
            addresses: take(&mut ebpf, map::ADDRESSES)?,
            members: take(&mut ebpf, map::MEMBERS)?,
            node: take(&mut ebpf, map::NODE)?,
            counters: take(&mut ebpf, map::COUNTERS)?,
            reader: Reader::open(pins)?,
            cpus: aya::util::nr_cpus().map_err(|(_file, source)| BpfError::Cpus(source))?,
            pins: pins.to_owned(),
            ids,
            ebpf,
        })
    }

    /// Attaches each program at its place on the link, or swaps in place what is attached there;
    /// idempotent. One netlink round trip, the link's `clsact` included.
    /// Must run in the namespace of the link (the caller's thread decides).
    pub fn attach(&self, link: LinkIndex, programs: &[Program]) -> Result<(), BpfError> {
        filters::send(link, self.attach_messages(link, programs)?)
    }

    /// The messages of [`attach`](Self::attach), each with `NLM_F_ACK`, for a caller that sends
    /// them in a batch of its own. They name file descriptors of this process: they are to be sent
    /// while `self` lives.
    pub fn attach_messages(
        &self,
        link: LinkIndex,
        programs: &[Program],
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, BpfError> {
        let mut messages = vec![filters::clsact(link)];
        for &program in programs {
            let fd = self.program(program)?.fd().map_err(BpfError::program(program))?;
            messages.push(filters::replace(link, program, fd.as_fd().as_raw_fd()));
        }
        Ok(messages)
    }

    /// A TCX program on the trunk's ingress runs before `clsact` and would see tagged frames: if
    /// there is one, puts `vlan_untag` in front of it, and says so. Again is fine.
    /// Must run in the namespace of the link.
    pub fn precede_tcx(&mut self, trunk: LinkIndex) -> Result<Option<Preceded>, BpfError> {
        let untag = program_mut(&mut self.ebpf, Program::VlanUntag)?;
        tcx::precede(untag, trunk, &self.pins)
    }

    /// Kernel id of a program, to compare with what is attached.
    pub fn id(&self, program: Program) -> u32 {
        self.ids.get(&program).copied().expect("`load` loads every program")
    }

    /// What the pod behind a host veth may send. Written before the link comes up: frames of a
    /// link without an entry are dropped.
    pub fn set_endpoint(&mut self, link: LinkIndex, endpoint: &Endpoint) -> Result<(), BpfError> {
        self.start_counters(link)?;
        self.endpoints
            .insert(link.get(), layout::Endpoint::from(endpoint), 0)
            .map_err(BpfError::map(map::ENDPOINTS))
    }

    /// Takes the entry and the counters away; a missing one is success.
    pub fn remove_endpoint(&mut self, link: LinkIndex) -> Result<(), BpfError> {
        let removed = self.endpoints.remove(&link.get());
        gone_is_fine(removed).map_err(BpfError::map(map::ENDPOINTS))?;
        let removed = self.counters.remove(&link.get());
        gone_is_fine(removed).map_err(BpfError::map(map::COUNTERS))
    }

    /// All endpoints.
    pub fn endpoints(&self) -> Result<Vec<(LinkIndex, Endpoint)>, BpfError> {
        let entries = all(&self.endpoints, map::ENDPOINTS)?;
        entries
            .into_iter()
            .map(|(link, endpoint)| Ok((entries::link(link)?, endpoint.try_into()?)))
            .collect()
    }

    /// Lets an address leave by the ENI behind `link`, or makes a tombstone of it.
    pub fn set_address(
        &mut self,
        link: LinkIndex,
        ip: IpAddr,
        address: Address,
    ) -> Result<(), BpfError> {
        self.addresses
            .insert(entries::address_key(link, ip), layout::Address::from(address), 0)
            .map_err(BpfError::map(map::ADDRESSES))
    }

    /// A missing one is success.
    pub fn remove_address(&mut self, link: LinkIndex, ip: IpAddr) -> Result<(), BpfError> {
        let removed = self.addresses.remove(&entries::address_key(link, ip));
        gone_is_fine(removed).map_err(BpfError::map(map::ADDRESSES))
    }

    /// All addresses, tombstones too.
    pub fn addresses(&self) -> Result<Vec<(LinkIndex, IpAddr, Address)>, BpfError> {
        let entries = all(&self.addresses, map::ADDRESSES)?;
        entries
            .into_iter()
            .map(|(key, address)| {
                Ok((entries::link(key.ifindex)?, entries::ip(key.address), address.try_into()?))
            })
            .collect()
    }

    /// The MAC of the ENI behind `link`: who asks for one of its addresses gets it as the answer.
    /// Without it nobody is answered.
    pub fn set_eni(&mut self, link: LinkIndex, mac: Mac) -> Result<(), BpfError> {
        self.members
            .insert(entries::member_key(link, None), entries::eni(mac), 0)
            .map_err(BpfError::map(map::MEMBERS))
    }

    /// A missing one is success.
    pub fn remove_eni(&mut self, link: LinkIndex) -> Result<(), BpfError> {
        let removed = self.members.remove(&entries::member_key(link, None));
        gone_is_fine(removed).map_err(BpfError::map(map::MEMBERS))
    }

    /// All ENIs.
    pub fn enis(&self) -> Result<Vec<(LinkIndex, Mac)>, BpfError> {
        let entries = all(&self.members, map::MEMBERS)?;
        let enis = entries.into_iter().filter(|(key, _)| key.vid == 0);
        enis.map(|(key, eni)| Ok((entries::link(key.ifindex)?, entries::mac(eni.mac)))).collect()
    }

    /// Makes a VLAN id of the trunk known; its frames carry the trunk's MAC, or `macs`.
    pub fn set_member(
        &mut self,
        trunk: LinkIndex,
        vlan: VlanId,
        macs: Option<MemberMacs>,
    ) -> Result<(), BpfError> {
        self.members
            .insert(entries::member_key(trunk, Some(vlan)), entries::member(macs), 0)
            .map_err(BpfError::map(map::MEMBERS))
    }

    /// A missing one is success.
    pub fn remove_member(&mut self, trunk: LinkIndex, vlan: VlanId) -> Result<(), BpfError> {
        let removed = self.members.remove(&entries::member_key(trunk, Some(vlan)));
        gone_is_fine(removed).map_err(BpfError::map(map::MEMBERS))
    }

    /// All members of all trunks.
    pub fn members(&self) -> Result<Vec<(LinkIndex, VlanId, Option<MemberMacs>)>, BpfError> {
        let entries = all(&self.members, map::MEMBERS)?;
        let members = entries.into_iter().filter(|(key, _)| key.vid != 0);
        members
            .map(|(key, member)| {
                let vlan = VlanId::try_from(key.vid)?;
                Ok((entries::link(key.ifindex)?, vlan, entries::macs(member)))
            })
            .collect()
    }

    /// The node's primary link: frames with its addresses that would leave by another ENI are sent
    /// by it instead.
    pub fn set_node(&mut self, node: &Node) -> Result<(), BpfError> {
        self.node.set(0, layout::Node::from(node), 0).map_err(BpfError::map(map::NODE))
    }

    /// What [`set_node`](Self::set_node) wrote last; `None` if it never did.
    pub fn node(&self) -> Result<Option<Node>, BpfError> {
        let node = self.node.get(&0, 0).map_err(BpfError::map(map::NODE))?;
        if node.ifindex == 0 { Ok(None) } else { Ok(Some(Node::try_from(node)?)) }
    }

    /// Dropped frames by cause name, summed over CPUs.
    pub fn drops(&self) -> Result<Vec<(&'static str, u64)>, BpfError> {
        self.reader.drops()
    }

    /// A handle that only reads counters, for another thread.
    pub fn reader(&self) -> Result<Reader, BpfError> {
        Reader::open(&self.pins)
    }

    /// The drops as they happen. The buffer has one consumer: call this once.
    /// Must be called inside a tokio runtime.
    pub fn events(&self) -> Result<Events, BpfError> {
        Events::open(&self.pins)
    }

    fn program(&self, program: Program) -> Result<&SchedClassifier, BpfError> {
        let found = self.ebpf.program(program.name()).ok_or(BpfError::NoProgram(program))?;
        found.try_into().map_err(BpfError::program(program))
    }

    /// Counters of a pod that stands already are kept.
    fn start_counters(&mut self, link: LinkIndex) -> Result<(), BpfError> {
        const NO_EXIST: u64 = 1;
        let error = BpfError::map(map::COUNTERS);
        let zeros = vec![Counters::default(); self.cpus];
        let zeros = PerCpuValues::try_from(zeros).map_err(BpfError::Cpus)?;
        match self.counters.insert(link.get(), zeros, NO_EXIST) {
            Err(MapError::SyscallError(failed))
                if failed.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            result => result.map_err(error),
        }
    }
}

fn load_program(ebpf: &mut Ebpf, program: Program, pins: &Path) -> Result<u32, BpfError> {
    let loaded = program_mut(ebpf, program)?;
    loaded.load().map_err(BpfError::program(program))?;
    let id = loaded.info().map_err(BpfError::program(program))?.id();
    pins::pin(loaded, program, pins)?;
    Ok(id)
}

fn program_mut(ebpf: &mut Ebpf, program: Program) -> Result<&mut SchedClassifier, BpfError> {
    let found = ebpf.program_mut(program.name()).ok_or(BpfError::NoProgram(program))?;
    found.try_into().map_err(BpfError::program(program))
}

fn take<M: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, BpfError> {
    let map = ebpf.take_map(name).ok_or(BpfError::NoMap(name))?;
    M::try_from(map).map_err(BpfError::map(name))
}

fn all<K: aya::Pod, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<Vec<(K, V)>, BpfError> {
    map.iter().collect::<Result<_, _>>().map_err(BpfError::map(name))
}

fn gone_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(failed))
            if failed.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        result => result,
    }
}
