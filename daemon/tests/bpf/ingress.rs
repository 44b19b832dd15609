//! What comes in by an ENI: answers in place, and tagged frames only for their member.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use daemon::bpf::{Bpf, Program, Reader};

use crate::frames::{
    ICMPV6, Mac, UDP, arp, ethernet, extension, icmpv6_checksum, ipv4, ipv6, link_layer, neighbour,
    tagged, udp,
};
use crate::place::{self, tool};
use crate::probe::Probe;
use crate::run::{PASS, REDIRECT, lo, run};
use crate::tap::Tap;
use crate::world::{
    ALL_NODES, ANY, ANY6, BROADCAST, ENI_MAC, FIRST, FIRST6, GATEWAY, GATEWAY_MAC, GATEWAY6, GONE,
    GONE6, LINK_LOCAL, MEMBER_MAC, OTHER_MAC, PEER, PEER6, POD, POD6, SECOND, SECOND6, set_eni,
};

const SOLICITATION: u8 = 135;

fn who_has(target: Ipv4Addr) -> Vec<u8> {
    let request = arp(1, (GATEWAY_MAC, GATEWAY), ([0; 6], target));
    ethernet(BROADCAST, GATEWAY_MAC, 0x0806, &request)
}

fn is_at(target: Ipv4Addr, mac: Mac) -> Vec<u8> {
    ethernet(GATEWAY_MAC, mac, 0x0806, &arp(2, (mac, target), (GATEWAY_MAC, GATEWAY)))
}

fn solicitation(source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let message = neighbour(SOLICITATION, target, options);
    let to = [0x33, 0x33, 0xff, a, b, c];
    ethernet(to, GATEWAY_MAC, 0x86dd, &ipv6(source, group, ICMPV6, &message))
}

fn asks(target: Ipv6Addr) -> Vec<u8> {
    solicitation(GATEWAY6, target, &link_layer(1, GATEWAY_MAC))
}

/// An advertisement, with its checksum set to zero.
fn advertises(target: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut message = neighbour(136, target, &link_layer(2, mac));
    message[4] = 0x60;
    ethernet(GATEWAY_MAC, mac, 0x86dd, &ipv6(target, GATEWAY6, ICMPV6, &message))
}

/// The frame with its checksum set to zero, if it was right.
fn checked(mut frame: Vec<u8>) -> Vec<u8> {
    assert_eq!(icmpv6_checksum(&frame), 0);
    frame[56..58].fill(0);
    frame
}

#[test]
fn who_asks_for_a_pods_address_is_answered_in_place() {
    place::run(|| {
        let mut bpf = place::load();
        set_eni(&mut bpf, lo(), lo());
        for program in [Program::VlanUntag, Program::EniIngress] {
            let outcome = run(&bpf, program, &who_has(POD));
            assert_eq!((outcome.code, outcome.frame), (REDIRECT, is_at(POD, ENI_MAC)));
            assert_eq!(outcome.counts, ["arp_answered"]);

            // With the sender's MAC as an option, without it (RFC 4861, 7.2.2), and with more.
            let nonce = [link_layer(1, GATEWAY_MAC), link_layer(14, [7; 6])].concat();
            for options in [link_layer(1, GATEWAY_MAC), Vec::new(), nonce] {
                let outcome = run(&bpf, program, &solicitation(GATEWAY6, POD6, &options));
                assert_eq!(outcome.code, REDIRECT);
                assert_eq!(checked(outcome.frame), advertises(POD6, ENI_MAC));
                assert_eq!(outcome.counts, ["nd_answered"]);
            }
        }
    });
}

#[test]
fn other_questions_are_left_to_the_kernel() {
    place::run(|| {
        let mut bpf = place::load();
        set_eni(&mut bpf, lo(), lo());
        let announcement = arp(1, (GATEWAY_MAC, POD), ([0; 6], POD));
        let reply = arp(2, (GATEWAY_MAC, GATEWAY), (ENI_MAC, POD));
        let mut far = asks(POD6);
        far[14 + 7] = 64;
        let message = neighbour(SOLICITATION, POD6, &link_layer(1, GATEWAY_MAC));
        let behind = ipv6(GATEWAY6, ALL_NODES, 0, &extension(ICMPV6, &message));
        let frames = [
            ("a member's address", who_has(FIRST)),
            ("a member's address, IPv6", asks(FIRST6)),
            ("an address that rests", who_has(GONE)),
            ("a stranger's address", who_has(PEER)),
            ("a stranger's address, IPv6", asks(PEER6)),
            ("an announcement", ethernet(BROADCAST, GATEWAY_MAC, 0x0806, &announcement)),
            ("a reply", ethernet(ENI_MAC, GATEWAY_MAC, 0x0806, &reply)),
            ("a probe for duplicates", solicitation(ANY6, POD6, &[])),
            ("a solicitation from afar", far),
            ("a solicitation behind a header", ethernet(BROADCAST, GATEWAY_MAC, 0x86dd, &behind)),
            ("IPv4", ethernet(ENI_MAC, GATEWAY_MAC, 0x0800, &ipv4(PEER, POD, &udp(b"x")))),
            ("IPv6", ethernet(ENI_MAC, GATEWAY_MAC, 0x86dd, &ipv6(PEER6, POD6, UDP, &udp(b"x")))),
            ("another protocol", ethernet(BROADCAST, GATEWAY_MAC, 0x88cc, &[0; 46])),
        ];
        for program in [Program::VlanUntag, Program::EniIngress] {
            for (what, frame) in &frames {
                let outcome = run(&bpf, program, frame);
                assert_eq!((outcome.code, &outcome.frame), (PASS, frame), "{what}");
                assert!(outcome.drops.is_empty() && outcome.counts.is_empty(), "{what}");
            }
        }
    });
}

#[test]
fn nobody_is_answered_by_an_eni_whose_mac_is_not_known() {
    place::run(|| {
        let mut bpf = place::load();
        set_eni(&mut bpf, lo(), lo());
        bpf.remove_eni(lo()).unwrap();
        assert_eq!(run(&bpf, Program::EniIngress, &who_has(POD)).code, PASS);
        assert_eq!(run(&bpf, Program::EniIngress, &asks(POD6)).code, PASS);
    });
}

/// An ENI with a stranger behind our ingress program.
struct Eni {
    tap: Tap,
    probe: Probe,
    reader: Reader,
    _bpf: Bpf,
}

impl Eni {
    fn new(ingress: Program, egress: Program) -> Self {
        let mut bpf = place::load();
        let tap = Tap::new("eth1", "00:16:3e:00:00:01");
        set_eni(&mut bpf, tap.link, lo());
        bpf.attach(tap.link, &[ingress, egress]).unwrap();
        let probe = Probe::attach(&tap.name, "probe_ingress");
        Self { tap, probe, reader: bpf.reader().unwrap(), _bpf: bpf }
    }

    fn trunk() -> Self {
        Self::new(Program::VlanUntag, Program::VlanTag)
    }

    /// Lets a frame in; what the stranger then saw, and which counts rose.
    fn receive(&mut self, frame: &[u8]) -> (u64, Vec<&'static str>) {
        let counts = || {
            let reader = &self.reader;
            reader.drops().unwrap().into_iter().chain(reader.counts().unwrap())
        };
        let before: Vec<_> = counts().collect();
        let seen = self.probe.seen();
        self.tap.write(frame);
        let rose = before.iter().zip(counts()).filter(|(before, after)| before.1 != after.1);
        let rose = rose.map(|(before, _after)| before.0).collect();
        (self.probe.seen() - seen, rose)
    }
}

fn on(vid: u16, frame: &[u8]) -> Vec<u8> {
    tagged(frame, 0x8100, vid)
}

fn v4_to(destination: Ipv4Addr, mac: Mac) -> Vec<u8> {
    ethernet(mac, GATEWAY_MAC, 0x0800, &ipv4(PEER, destination, &udp(b"hello")))
}

fn v6_to(destination: Ipv6Addr, mac: Mac) -> Vec<u8> {
    ethernet(mac, GATEWAY_MAC, 0x86dd, &ipv6(PEER6, destination, UDP, &udp(b"hello")))
}

#[test]
fn a_member_gets_the_frames_of_its_vlan_without_their_tag() {
    place::run(|| {
        let mut eni = Eni::trunk();
        for (vid, frame) in [
            (101, v4_to(FIRST, ENI_MAC)),
            (101, v6_to(FIRST6, ENI_MAC)),
            (102, v4_to(SECOND, MEMBER_MAC)),
            (102, v6_to(SECOND6, MEMBER_MAC)),
            (102, v4_to(SECOND, ENI_MAC)),
            // Priority bits are no part of the VLAN id.
            (0xe000 + 101, v4_to(FIRST, ENI_MAC)),
            // It rests: the node tells the sender.
            (101, v6_to(GONE6, ENI_MAC)),
        ] {
            assert_eq!(eni.receive(&on(vid, &frame)), (1, vec!["untagged"]), "vlan {vid}");
            let last = eni.probe.last();
            assert_eq!(usize::try_from(last.length).unwrap(), frame.len());
        }
        assert_eq!(eni.probe.tagged(), 0);
    });
}

/// The kernel has sorted frames by their MAC before it asks us: a MAC that is not the trunk's is
/// for another host, unless we say otherwise.
#[test]
fn frames_with_a_members_own_mac_reach_the_stack() {
    place::run(|| {
        let mut eni = Eni::trunk();
        tool("ip link set lo up");
        tool(&format!("ip address add {SECOND}/32 dev lo"));
        tool(&format!("ip address add {FIRST}/32 dev lo"));
        tool("ip route add default via 10.0.0.253 dev eth1 onlink");
        for (vid, address, mac) in
            [(101, FIRST, ENI_MAC), (102, SECOND, MEMBER_MAC), (102, SECOND, ENI_MAC)]
        {
            let socket = UdpSocket::bind((address, 7)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            eni.receive(&on(vid, &v4_to(address, mac)));
            let mut received = [0; 5];
            socket.recv(&mut received).unwrap();
            assert_eq!(&received, b"hello");
        }
        // Another's MAC stays another's.
        let other_hosts = || tool("cat /proc/net/snmp");
        let before = in_delivers(&other_hosts());
        assert_eq!(eni.receive(&on(102, &v4_to(SECOND, OTHER_MAC))), (1, vec!["untagged"]));
        assert_eq!(in_delivers(&other_hosts()), before);
    });
}

/// IPv4 packets given to a protocol.
fn in_delivers(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut both = names.split(' ').zip(values.split(' '));
    both.find(|(name, _)| *name == "InDelivers").unwrap().1.parse().unwrap()
}

#[test]
fn what_is_not_for_the_member_of_its_vlan_is_dropped_by_cause() {
    place::run(|| {
        let mut eni = Eni::trunk();
        let multicast = Ipv4Addr::new(224, 0, 0, 251);
        let request = arp(1, (GATEWAY_MAC, ANY), ([0; 6], SECOND));
        let reply = arp(2, (GATEWAY_MAC, GATEWAY), (ENI_MAC, FIRST));
        let router = [&[134, 0, 0, 0][..], &[0; 12]].concat();
        let advertisement = ethernet(
            [0x33, 0x33, 0, 0, 0, 1],
            GATEWAY_MAC,
            0x86dd,
            &ipv6(LINK_LOCAL, ALL_NODES, ICMPV6, &router),
        );
        let mut version = v4_to(FIRST, ENI_MAC);
        version[14] = 0x65;
        let mut short = v6_to(FIRST6, ENI_MAC);
        short.truncate(14 + 39);
        let cases = [
            ("an unknown VLAN", "unknown_vlan", on(103, &v4_to(FIRST, ENI_MAC))),
            ("a service tag", "unknown_vlan", tagged(&v4_to(FIRST, ENI_MAC), 0x88a8, 101)),
            ("another member's", "wrong_member", on(101, &v4_to(SECOND, ENI_MAC))),
            ("another member's, IPv6", "wrong_member", on(102, &v6_to(FIRST6, MEMBER_MAC))),
            ("a shared pod's", "wrong_member", on(101, &v4_to(POD, ENI_MAC))),
            ("nobody's", "wrong_member", on(101, &v4_to(PEER, ENI_MAC))),
            ("multicast", "vlan_control", on(101, &v4_to(multicast, [1, 0, 0x5e, 0, 0, 0xfb]))),
            ("broadcast", "vlan_control", on(101, &v4_to(Ipv4Addr::BROADCAST, BROADCAST))),
            ("multicast, IPv6", "vlan_control", on(101, &v6_to(ALL_NODES, BROADCAST))),
            ("link-local, IPv6", "vlan_control", on(101, &v6_to(LINK_LOCAL, ENI_MAC))),
            ("a router advertisement", "vlan_control", on(101, &advertisement)),
            (
                "a question for another member",
                "vlan_control",
                on(101, &ethernet(BROADCAST, GATEWAY_MAC, 0x0806, &request)),
            ),
            ("the same, IPv6", "vlan_control", on(101, &asks(SECOND6))),
            ("a reply", "vlan_control", on(101, &ethernet(ENI_MAC, OTHER_MAC, 0x0806, &reply))),
            (
                "a tag in a tag",
                "vlan_control",
                on(101, &tagged(&v4_to(FIRST, ENI_MAC), 0x8100, 101)),
            ),
            ("IPv6 called IPv4", "malformed", on(101, &version)),
            ("a short header", "malformed", on(101, &short)),
        ];
        for (what, cause, frame) in cases {
            assert_eq!(eni.receive(&frame), (0, vec![cause]), "{what}");
        }
    });
}

#[test]
fn a_member_answers_on_its_vlan_with_its_mac() {
    place::run(|| {
        let mut eni = Eni::trunk();
        for (vid, target, target6, mac) in
            [(101, FIRST, FIRST6, ENI_MAC), (102, SECOND, SECOND6, MEMBER_MAC)]
        {
            assert_eq!(eni.receive(&on(vid, &who_has(target))), (0, vec!["arp_answered"]));
            assert_eq!(eni.tap.read(), on(vid, &is_at(target, mac)));
            assert_eq!(eni.receive(&on(vid, &asks(target6))), (0, vec!["nd_answered"]));
            let answer = eni.tap.read();
            assert_eq!(answer[12..16], on(vid, &[0; 14])[12..16]);
            let untagged = [&answer[..12], &answer[16..]].concat();
            assert_eq!(checked(untagged), advertises(target6, mac));
        }
    });
}

#[test]
fn untagged_frames_of_the_trunk_pass_and_are_answered() {
    place::run(|| {
        let mut eni = Eni::trunk();
        assert_eq!(eni.receive(&v4_to(POD, ENI_MAC)), (1, vec![]));
        // A priority tag names no VLAN.
        assert_eq!(eni.receive(&on(0, &v4_to(POD, ENI_MAC))), (1, vec![]));
        assert_eq!(eni.probe.tagged(), 0);
        assert_eq!(eni.receive(&who_has(POD)), (0, vec!["arp_answered"]));
        assert_eq!(eni.tap.read(), is_at(POD, ENI_MAC));
        assert_eq!(eni.receive(&asks(POD6)), (0, vec!["nd_answered"]));
        assert_eq!(checked(eni.tap.read()), advertises(POD6, ENI_MAC));
    });
}

#[test]
fn an_eni_that_is_no_trunk_has_no_vlans() {
    place::run(|| {
        let mut eni = Eni::new(Program::EniIngress, Program::SourceGuard);
        let frame = v4_to(FIRST, ENI_MAC);
        assert_eq!(eni.receive(&on(101, &frame)), (0, vec!["unknown_vlan"]));
        assert_eq!(eni.receive(&frame), (1, vec![]));
        assert_eq!(eni.receive(&who_has(POD)), (0, vec!["arp_answered"]));
        assert_eq!(eni.tap.read(), is_at(POD, ENI_MAC));
    });
}
