//! The VPC's tc programs and their maps.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuHashMap, PerCpuValues};
use aya::programs::TcAttachType;
use aya::programs::tc::{
    NlOptions, SchedClassifier, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::{Ebpf, EbpfLoader};
use ipnetwork::IpNetwork;
use terway_lab_ebpf_common::{
    Counters, Delivery, DropCause, Dropped, DroppedKey, Owner, Port, PortKey, map, program,
};

/// Where a port's programs sit; nobody else attaches anything in the VPC.
const PRIORITY: u16 = 1;

/// The loaded object. Filters belong to their links and go with them.
pub(super) struct Programs {
    ebpf: Ebpf,
    ports: HashMap<MapData, PortKey, Port>,
    deliveries: HashMap<MapData, u32, Delivery>,
    owners: LpmTrie<MapData, [u8; 16], Owner>,
    counters: PerCpuHashMap<MapData, u32, Counters>,
    dropped: HashMap<MapData, DroppedKey, Dropped>,
    cpus: usize,
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").finish_non_exhaustive()
    }
}

impl Programs {
    pub(super) fn load(object: &Path) -> Result<Self> {
        // Without the kernel's own BTF, which takes longer to read than all the rest.
        let loaded = EbpfLoader::new().btf(None).load_file(object);
        let mut ebpf = loaded
            .with_context(|| format!("cannot load {}: run cargo xtask build", object.display()))?;
        for name in [program::FROM_NODE, program::TO_ENI, program::FROM_OUTSIDE] {
            classifier(&mut ebpf, name)?
                .load()
                .with_context(|| format!("the kernel refuses the program {name}"))?;
        }
        Ok(Self {
            ports: HashMap::try_from(take(&mut ebpf, map::PORTS)?)?,
            deliveries: HashMap::try_from(take(&mut ebpf, map::DELIVERIES)?)?,
            owners: LpmTrie::try_from(take(&mut ebpf, map::OWNERS)?)?,
            counters: PerCpuHashMap::try_from(take(&mut ebpf, map::COUNTERS)?)?,
            dropped: HashMap::try_from(take(&mut ebpf, map::DROPPED)?)?,
            cpus: aya::util::nr_cpus().map_err(|(_, error)| error)?,
            ebpf,
        })
    }

    /// Attaches one program to one link of the calling thread's namespace.
    pub(super) fn attach(&mut self, link: &str, direction: TcAttachType, name: &str) -> Result<()> {
        match qdisc_add_clsact(link) {
            Err(TcError::NetlinkError(error))
                if io::Error::from_raw_os_error(error.raw_os_error().unwrap_or_default())
                    .kind()
                    == io::ErrorKind::AlreadyExists => {}
            other => other.with_context(|| format!("cannot add clsact to {link}"))?,
        }
        let options = NlOptions { priority: PRIORITY, handle: TcHandle::new(0, 1), classid: None };
        let program = classifier(&mut self.ebpf, name)?;
        let attached =
            program.attach_with_options(link, direction, TcAttachOptions::Netlink(options));
        let id = attached.with_context(|| format!("cannot attach {name} to {link}"))?;
        // aya would detach it when the object is dropped, which may be in any namespace.
        std::mem::forget(program.take_link(id)?);
        Ok(())
    }

    pub(super) fn set_port(&mut self, ifindex: u32, vid: u32, port: &Port) -> Result<()> {
        Ok(self.ports.insert(PortKey { ifindex, vid }, port, 0)?)
    }

    pub(super) fn remove_port(&mut self, ifindex: u32, vid: u32) -> Result<()> {
        absent_is_fine(self.ports.remove(&PortKey { ifindex, vid }))
    }

    pub(super) fn set_delivery(&mut self, ifindex: u32, delivery: Delivery) -> Result<()> {
        Ok(self.deliveries.insert(ifindex, delivery, 0)?)
    }

    pub(super) fn remove_delivery(&mut self, ifindex: u32) -> Result<()> {
        absent_is_fine(self.deliveries.remove(&ifindex))
    }

    pub(super) fn set_owner(&mut self, prefix: IpNetwork, owner: Owner) -> Result<()> {
        Ok(self.owners.insert(&key(prefix), owner, 0)?)
    }

    /// Unless it is somebody else's by now.
    pub(super) fn remove_owner(&mut self, prefix: IpNetwork, eni: u32) -> Result<()> {
        let key = key(prefix);
        match self.owners.get(&key, 0) {
            Ok(owner) if owner.eni == eni => absent_is_fine(self.owners.remove(&key)),
            _ => Ok(()),
        }
    }

    /// Begins to count, if it was not counted before.
    pub(super) fn count(&mut self, eni: u32) -> Result<()> {
        let zero = Counters {
            admitted: 0,
            delivered: 0,
            control: 0,
            answered: 0,
            unanswered: 0,
            drops: [0; DropCause::ALL.len()],
        };
        let values = PerCpuValues::try_from(vec![zero; self.cpus])?;
        let no_exist = 1;
        match self.counters.insert(eni, values, no_exist) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// One value for each CPU.
    pub(super) fn counters(&self, eni: u32) -> Result<PerCpuValues<Counters>> {
        Ok(self.counters.get(&eni, 0)?)
    }

    pub(super) fn dropped(&self) -> Vec<(DroppedKey, Dropped)> {
        // Entries that are evicted while they are read are passed over.
        self.dropped.iter().filter_map(Result::ok).collect()
    }
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the lab's object has no map {name}"))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("the lab's object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<()> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => Ok(other?),
    }
}

/// A prefix as the trie has it: IPv4 as `::ffff:a.b.c.d`.
fn key(prefix: IpNetwork) -> Key<[u8; 16]> {
    match prefix.network() {
        IpAddr::V4(v4) => {
            Key::new(u32::from(prefix.prefix()).saturating_add(96), v4.to_ipv6_mapped().octets())
        }
        IpAddr::V6(v6) => Key::new(prefix.prefix().into(), v6.octets()),
    }
}
