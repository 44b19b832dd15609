//! Reads the counters of the programs.

use std::fmt;
use std::path::Path;

use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use ebpf_common::{Count, Counters, DropCause, map};
use model::LinkIndex;

use super::{BpfError, pins};

/// Frames of one pod since its network was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodCounters {
    /// From the pod, as they are on the wire (after segmentation).
    pub tx_packets: u64,
    /// From the pod.
    pub tx_bytes: u64,
    /// To the pod, as they are on the wire.
    pub rx_packets: u64,
    /// To the pod.
    pub rx_bytes: u64,
    /// From the pod, dropped.
    pub dropped: u64,
}

/// A handle that only reads counters; has file descriptors of its own.
pub struct Reader {
    drops: PerCpuArray<MapData, u64>,
    counts: PerCpuArray<MapData, u64>,
    counters: PerCpuHashMap<MapData, u32, Counters>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens the maps pinned under `pins`.
    pub fn open(pins: &Path) -> Result<Self, BpfError> {
        let array = |name| {
            PerCpuArray::try_from(Map::PerCpuArray(pins::map(pins, name)?))
                .map_err(BpfError::map(name))
        };
        let counters = Map::PerCpuHashMap(pins::map(pins, map::COUNTERS)?);
        Ok(Self {
            drops: array(map::DROPS)?,
            counts: array(map::COUNTS)?,
            counters: PerCpuHashMap::try_from(counters).map_err(BpfError::map(map::COUNTERS))?,
        })
    }

    /// Dropped frames by cause name, summed over CPUs.
    pub fn drops(&self) -> Result<Vec<(&'static str, u64)>, BpfError> {
        let causes = DropCause::ALL.iter().map(|cause| cause.name());
        sums(&self.drops, causes).map_err(BpfError::map(map::DROPS))
    }

    /// What else the programs counted, by name, summed over CPUs.
    pub fn counts(&self) -> Result<Vec<(&'static str, u64)>, BpfError> {
        let counts = Count::ALL.iter().map(|count| count.name());
        sums(&self.counts, counts).map_err(BpfError::map(map::COUNTS))
    }

    /// Frames of the pod behind a host veth; `None` if there is no such pod.
    pub fn counters(&self, link: LinkIndex) -> Result<Option<PodCounters>, BpfError> {
        match self.counters.get(&link.get(), 0) {
            Ok(values) => Ok(Some(values.iter().fold(PodCounters::default(), PodCounters::plus))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(BpfError::map(map::COUNTERS)(source)),
        }
    }
}

impl PodCounters {
    fn plus(self, of_cpu: &Counters) -> Self {
        Self {
            tx_packets: self.tx_packets + of_cpu.tx_packets,
            tx_bytes: self.tx_bytes + of_cpu.tx_bytes,
            rx_packets: self.rx_packets + of_cpu.rx_packets,
            rx_bytes: self.rx_bytes + of_cpu.rx_bytes,
            dropped: self.dropped + of_cpu.dropped,
        }
    }
}

fn sums(
    array: &PerCpuArray<MapData, u64>,
    names: impl Iterator<Item = &'static str>,
) -> Result<Vec<(&'static str, u64)>, MapError> {
    (0..).zip(names).map(|(index, name)| Ok((name, array.get(&index, 0)?.iter().sum()))).collect()
}
