//! Who is who in these tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use daemon::bpf::{Address, Bpf, Endpoint, MemberMacs, Node};
use model::{IpPair, LinkIndex, Mark, VlanId};

use crate::frames::Mac;

pub(crate) const POD_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub(crate) const HOST_MAC: Mac = [2, 0, 0, 0, 0, 2];
pub(crate) const ENI_MAC: Mac = [0, 0x16, 0x3e, 0, 0, 1];
pub(crate) const MEMBER_MAC: Mac = [0, 0x16, 0x3e, 0, 1, 2];
pub(crate) const MEMBER_GATEWAY_MAC: Mac = [0xee, 0xff, 0xff, 1, 2, 0xfd];
pub(crate) const GATEWAY_MAC: Mac = [0xee, 0xff, 0xff, 0xff, 0xff, 0xff];
pub(crate) const OTHER_MAC: Mac = [2, 0, 0, 0, 0, 9];
pub(crate) const BROADCAST: Mac = [0xff; 6];

/// A shared pod.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
pub(crate) const POD6: Ipv6Addr = v6(5);
/// The pod of member 101, which uses the trunk's MAC.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
pub(crate) const FIRST6: Ipv6Addr = v6(0x101);
/// The pod of member 102, which has a MAC of its own.
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(10, 2, 2, 20);
pub(crate) const SECOND6: Ipv6Addr = v6(0x102);
/// A pod that is gone.
pub(crate) const GONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
pub(crate) const GONE6: Ipv6Addr = v6(0x99);
/// The node.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 10);
pub(crate) const NODE6: Ipv6Addr = v6(0x910);
/// Somebody else.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
pub(crate) const PEER6: Ipv6Addr = v6(0x999);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 253);
pub(crate) const GATEWAY6: Ipv6Addr = v6(0x253);

/// The pod's address of its link.
pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 5);
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub(crate) const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

pub(crate) const MARK: u32 = 0x02;
pub(crate) const MASK: u32 = 0x7f;

const fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

pub(crate) fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

/// The shared pod behind `link`.
pub(crate) fn set_pod(bpf: &mut Bpf, link: LinkIndex) {
    let endpoint = Endpoint {
        addresses: IpPair::Dual(POD, POD6),
        mac: model::Mac::new(POD_MAC),
        mark: Mark::new(MARK, MASK).unwrap(),
    };
    bpf.set_endpoint(link, &endpoint).unwrap();
}

/// An ENI with two members and the pods above, behind `link`; the node's primary link is another.
pub(crate) fn set_eni(bpf: &mut Bpf, link: LinkIndex, primary: LinkIndex) {
    bpf.set_eni(link, model::Mac::new(ENI_MAC)).unwrap();
    bpf.set_member(link, vlan(101), None).unwrap();
    let macs = MemberMacs {
        member: model::Mac::new(MEMBER_MAC),
        gateway: model::Mac::new(MEMBER_GATEWAY_MAC),
    };
    bpf.set_member(link, vlan(102), Some(macs)).unwrap();
    let entries: [(IpAddr, Option<u32>, bool); 8] = [
        (POD.into(), None, false),
        (POD6.into(), None, false),
        (FIRST.into(), Some(101), false),
        (FIRST6.into(), Some(101), false),
        (SECOND.into(), Some(102), false),
        (SECOND6.into(), Some(102), false),
        (GONE.into(), None, true),
        (GONE6.into(), Some(101), true),
    ];
    for (ip, id, tombstone) in entries {
        bpf.set_address(link, ip, Address { vlan: id.map(vlan), tombstone }).unwrap();
    }
    let node = Node { link: primary, v4: Some(NODE), v6: Some(NODE6), mark_mask: MASK };
    bpf.set_node(&node).unwrap();
}
