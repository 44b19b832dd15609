//! What leaves an ENI: the source guard, and the tag that it gives on the trunk.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use daemon::bpf::{Address, Bpf, Program};
use model::LinkIndex;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;

use crate::frames::{
    ICMPV6, Mac, UDP, arp, ethernet, extension, ipv4, ipv4_with, ipv6, neighbour, tagged, udp,
};
use crate::place::{self, tool};
use crate::run::{MARK_BEFORE, Outcome, PASS, REDIRECT, SHOT, lo, run};
use crate::tap::Tap;
use crate::world::{
    ALL_ROUTERS, ANY, ANY6, BROADCAST, ENI_MAC, FIRST, FIRST6, GATEWAY, GATEWAY_MAC, GONE, GONE6,
    LINK_LOCAL, MASK, MEMBER_GATEWAY_MAC, MEMBER_MAC, NODE, NODE6, OTHER_MAC, PEER, PEER6, POD,
    POD6, SECOND, SECOND6, set_eni, set_pod, vlan,
};

const BOTH: [Program; 2] = [Program::VlanTag, Program::SourceGuard];

fn v4(source: Ipv4Addr) -> Vec<u8> {
    ethernet(GATEWAY_MAC, ENI_MAC, 0x0800, &ipv4(source, PEER, &udp(b"hello")))
}

fn v6(source: Ipv6Addr) -> Vec<u8> {
    ethernet(GATEWAY_MAC, ENI_MAC, 0x86dd, &ipv6(source, PEER6, UDP, &udp(b"hello")))
}

/// The MACs and the `EtherType` of a frame without its tag.
fn heads(frame: &[u8]) -> (&[u8], &[u8]) {
    frame.split_at(12)
}

fn elsewhere() -> LinkIndex {
    LinkIndex::try_from(777).unwrap()
}

fn world() -> Bpf {
    let mut bpf = place::load();
    set_eni(&mut bpf, lo(), elsewhere());
    bpf
}

fn nothing_counted(outcome: &Outcome) -> bool {
    outcome.drops.is_empty() && outcome.counts.is_empty()
}

#[test]
fn a_source_of_the_eni_leaves_as_it_is() {
    place::run(|| {
        let bpf = world();
        let options = ipv4_with(POD, PEER, 0, &[7, 4, 4, 0], &udp(b"hello"));
        let fragment = ipv4_with(POD, PEER, 3, &[], b"rest");
        let frames = [
            v4(POD),
            v6(POD6),
            ethernet(GATEWAY_MAC, ENI_MAC, 0x0800, &options),
            ethernet(GATEWAY_MAC, ENI_MAC, 0x0800, &fragment),
        ];
        for program in BOTH {
            for frame in &frames {
                let outcome = run(&bpf, program, frame);
                assert_eq!((outcome.code, &outcome.frame), (PASS, frame), "{program:?}");
                assert_eq!(outcome.mark, MARK_BEFORE);
                assert!(nothing_counted(&outcome), "{outcome:?}");
            }
        }
    });
}

#[test]
fn control_of_the_nodes_own_kernel_leaves() {
    place::run(|| {
        let bpf = world();
        let report = extension(ICMPV6, &[143, 0, 0, 0, 0, 0, 0, 0]);
        let probe = neighbour(135, PEER6, &[]);
        let to_all = |source, next, payload: &[u8]| {
            ethernet(OTHER_MAC, ENI_MAC, 0x86dd, &ipv6(source, ALL_ROUTERS, next, payload))
        };
        let igmp = ipv4(NODE, Ipv4Addr::new(224, 0, 0, 22), b"igmp");
        let discover = ipv4(ANY, Ipv4Addr::BROADCAST, &udp(b"discover"));
        let request = arp(1, (ENI_MAC, NODE), ([0; 6], GATEWAY));
        let frames = [
            ethernet(BROADCAST, ENI_MAC, 0x0806, &request),
            to_all(LINK_LOCAL, 0, &report),
            to_all(ANY6, ICMPV6, &probe),
            to_all(NODE6, ICMPV6, &probe),
            ethernet(OTHER_MAC, ENI_MAC, 0x0800, &igmp),
            ethernet(BROADCAST, ENI_MAC, 0x0800, &discover),
        ];
        for program in BOTH {
            for (number, frame) in frames.iter().enumerate() {
                let outcome = run(&bpf, program, frame);
                assert_eq!(outcome.code, PASS, "{program:?}, frame {number}");
                assert!(nothing_counted(&outcome), "{outcome:?}");
            }
        }
    });
}

#[test]
fn every_other_source_is_dropped_and_counted_by_its_cause() {
    place::run(|| {
        let bpf = world();
        let mut version = v4(POD);
        version[14] = 0x65;
        let mut version6 = v6(POD6);
        version6[14] = 0x45;
        let cases = [
            ("a stranger", "unknown_source", v4(PEER)),
            ("a stranger, IPv6", "unknown_source", v6(PEER6)),
            ("a pod that is gone", "resting_source", v4(GONE)),
            ("a pod that is gone, IPv6", "resting_source", v6(GONE6)),
            (
                "neither IP nor ARP",
                "unknown_source",
                ethernet(BROADCAST, ENI_MAC, 0x88cc, &[0; 46]),
            ),
            ("IPv6 called IPv4", "malformed", version),
            ("IPv4 called IPv6", "malformed", version6),
        ];
        for program in BOTH {
            for (what, cause, frame) in &cases {
                let outcome = run(&bpf, program, frame);
                assert_eq!((outcome.code, outcome.drops), (SHOT, vec![*cause]), "{what}");
            }
        }
    });
}

#[test]
fn an_address_of_another_eni_is_a_stranger() {
    place::run(|| {
        let mut bpf = world();
        bpf.remove_address(lo(), POD.into()).unwrap();
        let address = Address { vlan: None, tombstone: false };
        bpf.set_address(elsewhere(), POD.into(), address).unwrap();
        for program in BOTH {
            assert_eq!(run(&bpf, program, &v4(POD)).drops, ["unknown_source"]);
        }
    });
}

#[test]
fn the_nodes_source_is_sent_by_the_primary_link_without_our_mark() {
    place::run(|| {
        let mut bpf = world();
        for program in BOTH {
            for frame in [v4(NODE), v6(NODE6)] {
                let outcome = run(&bpf, program, &frame);
                assert_eq!((outcome.code, outcome.mark), (REDIRECT, MARK_BEFORE & !MASK));
                assert_eq!(outcome.counts, ["redirected"]);
            }
        }
        // On the primary link itself it leaves.
        set_eni(&mut bpf, lo(), lo());
        for program in BOTH {
            assert_eq!(run(&bpf, program, &v4(NODE)).code, PASS);
        }
    });
}

#[test]
fn a_tagged_frame_leaves_only_by_the_trunk() {
    place::run(|| {
        let bpf = world();
        let frame = tagged(&v4(FIRST), 0x8100, 101);
        assert_eq!(run(&bpf, Program::VlanTag, &frame).code, PASS);
        let outcome = run(&bpf, Program::SourceGuard, &frame);
        assert_eq!((outcome.code, outcome.drops), (SHOT, vec!["unknown_vlan"]));
    });
}

#[test]
fn the_source_of_a_member_that_is_not_known_is_dropped() {
    place::run(|| {
        let mut bpf = world();
        bpf.remove_member(lo(), vlan(101)).unwrap();
        let outcome = run(&bpf, Program::VlanTag, &v4(FIRST));
        assert_eq!((outcome.code, outcome.drops), (SHOT, vec!["unknown_vlan"]));
    });
}

#[test]
fn a_member_with_its_own_mac_gets_both_macs() {
    place::run(|| {
        let bpf = world();
        for (frame, to, from) in [
            (v4(FIRST), GATEWAY_MAC, ENI_MAC),
            (v6(FIRST6), GATEWAY_MAC, ENI_MAC),
            (v4(SECOND), MEMBER_GATEWAY_MAC, MEMBER_MAC),
            (v6(SECOND6), MEMBER_GATEWAY_MAC, MEMBER_MAC),
        ] {
            let outcome = run(&bpf, Program::VlanTag, &frame);
            assert_eq!((outcome.code, outcome.counts), (PASS, vec!["tagged"]));
            assert_eq!(heads(&outcome.frame), (&[to, from].concat()[..], heads(&frame).1));
        }
    });
}

/// A trunk whose kernel sends what the test asks a socket to send.
struct Sender {
    trunk: Tap,
}

impl Sender {
    fn new(bpf: &mut Bpf) -> Self {
        let trunk = Tap::new("eth1", "00:16:3e:00:00:01");
        tool("ip link set lo up");
        for address in [POD, FIRST, SECOND, NODE] {
            tool(&format!("ip address add {address}/32 dev lo"));
        }
        for address in [POD6, FIRST6, SECOND6, NODE6] {
            tool(&format!("ip address add {address}/128 dev lo nodad"));
        }
        tool("ip route add default via 10.0.0.253 dev eth1 onlink");
        tool("ip neighbour add 10.0.0.253 lladdr ee:ff:ff:ff:ff:ff dev eth1 nud permanent");
        tool("ip route add default via fd00::253 dev eth1 onlink");
        tool("ip neighbour add fd00::253 lladdr ee:ff:ff:ff:ff:ff dev eth1 nud permanent");
        set_eni(bpf, trunk.link, elsewhere());
        bpf.attach(trunk.link, &[Program::VlanTag]).unwrap();
        Self { trunk }
    }

    fn send(&mut self, source: &str, destination: &str) -> Vec<u8> {
        let socket = UdpSocket::bind(source).unwrap();
        socket.send_to(b"hello", destination).unwrap();
        self.trunk.read()
    }
}

fn tag_and_macs(frame: &[u8]) -> (Option<u16>, Mac, Mac) {
    let tag = (frame[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([frame[14], frame[15]]));
    (tag, frame[..6].try_into().unwrap(), frame[6..12].try_into().unwrap())
}

#[test]
fn the_source_chooses_the_vlan_on_the_wire() {
    place::run(|| {
        let mut bpf = place::load();
        let mut sender = Sender::new(&mut bpf);
        for (source, source6, expected) in [
            (POD, POD6, (None, GATEWAY_MAC, ENI_MAC)),
            (FIRST, FIRST6, (Some(101), GATEWAY_MAC, ENI_MAC)),
            (SECOND, SECOND6, (Some(102), MEMBER_GATEWAY_MAC, MEMBER_MAC)),
        ] {
            let frame = sender.send(&format!("{source}:0"), &format!("{PEER}:7"));
            assert_eq!(tag_and_macs(&frame), expected);
            assert!(frame.ends_with(b"hello"));
            let frame = sender.send(&format!("[{source6}]:0"), &format!("[{PEER6}]:7"));
            assert_eq!(tag_and_macs(&frame), expected);
            assert!(frame.ends_with(b"hello"));
        }
    });
}

/// A burst that is still one frame for the programs (GSO) becomes frames of the wire, each with
/// its tag and MACs.
#[test]
fn a_burst_is_tagged_frame_by_frame() {
    place::run(|| {
        let mut bpf = place::load();
        let mut sender = Sender::new(&mut bpf);
        set_pod(&mut bpf, sender.trunk.link);
        bpf.attach(sender.trunk.link, &[Program::ToPod]).unwrap();
        let socket = UdpSocket::bind(format!("{SECOND}:0")).unwrap();
        setsockopt(&socket, UdpGsoSegment, &1000).unwrap();
        socket.send_to(&[7; 4500], format!("{PEER}:7")).unwrap();
        let lengths = [1000, 1000, 1000, 1000, 500].map(|payload| 14 + 4 + 20 + 8 + payload);
        for length in lengths {
            let frame = sender.trunk.read();
            assert_eq!(tag_and_macs(&frame), (Some(102), MEMBER_GATEWAY_MAC, MEMBER_MAC));
            assert_eq!(frame.len(), length);
        }
        let reader = bpf.reader().unwrap();
        assert!(reader.counts().unwrap().contains(&("tagged", 1)), "it was one frame");
        let counters = reader.counters(sender.trunk.link).unwrap().unwrap();
        assert_eq!(counters.rx_packets, 5);
    });
}

/// Without the mark cleared the frame's route would be looked up in the ENI's table, where the
/// primary link is not.
#[test]
fn the_nodes_source_leaves_by_the_primary_link_in_spite_of_its_mark() {
    place::run(|| {
        let mut bpf = place::load();
        let mut sender = Sender::new(&mut bpf);
        let mut primary = Tap::new("eth0", "00:16:3e:00:09:10");
        set_eni(&mut bpf, sender.trunk.link, primary.link);
        tool("ip route add 10.9.0.0/16 via 10.0.9.253 dev eth0 onlink metric 50");
        tool("ip neighbour add 10.0.9.253 lladdr ee:ff:ff:ff:ff:fe dev eth0 nud permanent");
        tool("ip route add default via 10.0.0.253 dev eth1 onlink table 1003");
        tool("ip route add unreachable default metric 4278198272 table 1003");
        tool("ip rule add priority 512 fwmark 0x2/0x7f lookup 1003");
        tool("nft add table ip mangle");
        tool("nft add chain ip mangle output { type route hook output priority -150 ; }");
        tool("nft add rule ip mangle output ip saddr 10.0.9.10 meta mark set 2");
        let socket = UdpSocket::bind(format!("{NODE}:0")).unwrap();
        socket.send_to(b"hello", format!("{PEER}:7")).unwrap();
        let frame = primary.read();
        assert_eq!(frame[..6], [0xee, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        assert!(frame.ends_with(b"hello"));
        assert_eq!(sender.trunk.ready(), None);
    });
}
