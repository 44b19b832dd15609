//! The maps, and how a frame is counted.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap};
use terway_lab_ebpf_common::{
    Counters, Delivery, DropCause, Dropped, DroppedKey, Owner, Port, PortKey,
};

use crate::frame::Frame;

/// More ENIs than the largest lab has; memory is taken for those that are there.
const ENIS: u32 = 16_384;

#[map]
static PORTS: HashMap<PortKey, Port> = HashMap::with_max_entries(ENIS, BPF_F_NO_PREALLOC);
#[map]
static DELIVERIES: HashMap<u32, Delivery> = HashMap::with_max_entries(ENIS, BPF_F_NO_PREALLOC);
#[map]
static OWNERS: LpmTrie<[u8; 16], Owner> = LpmTrie::with_max_entries(65_536, 0);
#[map]
static COUNTERS: PerCpuHashMap<u32, Counters> =
    PerCpuHashMap::with_max_entries(ENIS, BPF_F_NO_PREALLOC);
/// The stack is too small for a frame's headers and for what is made of them.
#[map]
static FRAME: PerCpuArray<Frame> = PerCpuArray::with_max_entries(1, 0);
#[map]
static DROPPED: LruHashMap<DroppedKey, Dropped> = LruHashMap::with_max_entries(16_384, 0);

pub(crate) fn port(ifindex: u32, vid: u32) -> Option<&'static Port> {
    // SAFETY: entries are written by user space only, and freed after a grace period.
    unsafe { PORTS.get(PortKey { ifindex, vid }) }
}

pub(crate) fn delivery(ifindex: u32) -> Option<&'static Delivery> {
    // SAFETY: as above.
    unsafe { DELIVERIES.get(ifindex) }
}

pub(crate) fn owner(address: &[u8; 16]) -> Option<&'static Owner> {
    OWNERS.get(Key::new(128, *address))
}

pub(crate) fn scratch() -> Option<&'static mut Frame> {
    // SAFETY: the value is this CPU's, and no tc program interrupts another.
    FRAME.get_ptr_mut(0).map(|frame| unsafe { &mut *frame })
}

/// What a frame was, but for a drop.
pub(crate) enum Count {
    Admitted,
    Delivered,
    Control,
    Answered,
    Unanswered,
}

pub(crate) fn count(eni: u32, what: Count) {
    if let Some(counters) = COUNTERS.get_ptr_mut(eni) {
        // SAFETY: the value is this CPU's.
        let counters = unsafe { &mut *counters };
        match what {
            Count::Admitted => counters.admitted += 1,
            Count::Delivered => counters.delivered += 1,
            Count::Control => counters.control += 1,
            Count::Answered => counters.answered += 1,
            Count::Unanswered => counters.unanswered += 1,
        }
    }
}

pub(crate) fn count_drop(eni: u32, cause: DropCause, frame: &mut Frame) {
    if let Some(counters) = COUNTERS.get_ptr_mut(eni) {
        // SAFETY: the value is this CPU's.
        let counters = unsafe { &mut *counters };
        if let Some(drops) = counters.drops.get_mut(cause as usize) {
            *drops += 1;
        }
    }
    frame.key.eni = eni;
    frame.key.cause = cause as u32;
    frame.last.frames = 1;
    if let Some(before) = DROPPED.get_ptr(&frame.key) {
        // SAFETY: the entry may be rewritten under our hands; then the count is off by that.
        let (frames, length) = unsafe { ((*before).frames, (*before).length) };
        frame.last.frames += frames;
        if length > frame.last.length {
            frame.last.length = length;
        }
    }
    // The map evicts; what fails here is only the record, the counter has it.
    let _full = DROPPED.insert(&frame.key, &frame.last, 0);
}
