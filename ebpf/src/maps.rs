//! The maps. Each is pinned by its name; the daemon fills the first four.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use ebpf_common::{
    Address, AddressKey, Count, Counters, Endpoint, Member, MemberKey, Node, Rate, size,
};

/// `BPF_F_NO_PREALLOC`: room for every CPU of a big node is taken only for pods that exist.
const NO_PREALLOC: u32 = 1;

#[map]
pub static ENDPOINTS: HashMap<u32, Endpoint> = HashMap::pinned(size::ENDPOINTS, 0);

#[map]
pub static ADDRESSES: HashMap<AddressKey, Address> = HashMap::pinned(size::ADDRESSES, 0);

#[map]
pub static MEMBERS: HashMap<MemberKey, Member> = HashMap::pinned(size::MEMBERS, 0);

#[map]
pub static NODE: Array<Node> = Array::pinned(1, 0);

#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(size::DROPS, 0);

#[map]
pub static COUNTS: PerCpuArray<u64> = PerCpuArray::pinned(size::COUNTS, 0);

#[map]
pub static COUNTERS: PerCpuHashMap<u32, Counters> =
    PerCpuHashMap::pinned(size::COUNTERS, NO_PREALLOC);

#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(size::EVENTS, 0);

#[map]
pub static RATE: PerCpuArray<Rate> = PerCpuArray::pinned(1, 0);

/// What is known of `key`, if anything.
#[inline(always)]
pub fn address(key: &AddressKey) -> Option<&'static Address> {
    // SAFETY: the daemon replaces whole entries; an entry that is freed stays readable until the
    // program ends (RCU).
    unsafe { ADDRESSES.get(key) }
}

/// The member with this VLAN id; the ENI itself for 0.
#[inline(always)]
pub fn member(ifindex: u32, vid: u32) -> Option<&'static Member> {
    // SAFETY: as in `address`.
    unsafe { MEMBERS.get(MemberKey { ifindex, vid }) }
}

/// The pod behind a host veth.
#[inline(always)]
pub fn endpoint(ifindex: u32) -> Option<&'static Endpoint> {
    // SAFETY: as in `address`.
    unsafe { ENDPOINTS.get(ifindex) }
}

/// The counters of the pod behind a host veth, of this CPU.
#[inline(always)]
pub fn counters(ifindex: u32) -> Option<&'static mut Counters> {
    // SAFETY: the entry is of this CPU, and a tc program is not interrupted by another.
    COUNTERS.get_ptr_mut(ifindex).map(|counters| unsafe { &mut *counters })
}

/// Adds one.
#[inline(always)]
pub fn count(what: Count) {
    add_one(&COUNTS, what as u32);
}

/// Adds one to a slot of this CPU.
#[inline(always)]
pub fn add_one(array: &PerCpuArray<u64>, index: u32) {
    if let Some(slot) = array.get_ptr_mut(index) {
        // SAFETY: as in `counters`.
        unsafe { *slot += 1 };
    }
}
