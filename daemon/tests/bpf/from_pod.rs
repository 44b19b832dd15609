//! What a pod may send, and what it may not.

use std::net::{Ipv4Addr, Ipv6Addr};

use daemon::bpf::{Endpoint, Program};
use model::{IpPair, Mark};

use crate::frames::{
    ICMPV6, Mac, UDP, arp, ethernet, extension, fragment, ipv4, ipv4_with, ipv6, link_layer,
    neighbour, tagged, udp,
};
use crate::place;
use crate::probe::Probe;
use crate::run::{MARK_BEFORE, PASS, SHOT, lo, run};
use crate::tap::Tap;
use crate::world::{
    ALL_NODES, ALL_ROUTERS, ANY, ANY6, BROADCAST, HOST_MAC, LINK_LOCAL, MARK, OTHER_MAC, PEER,
    PEER6, POD, POD_MAC, POD6, set_pod,
};

const HOP_BY_HOP: u8 = 0;
const DESTINATION: u8 = 60;
const FRAGMENT: u8 = 44;
const ROUTING: u8 = 43;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

fn v4(source: Ipv4Addr) -> Vec<u8> {
    ethernet(HOST_MAC, POD_MAC, 0x0800, &ipv4(source, PEER, &udp(b"hello")))
}

fn v6(source: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(HOST_MAC, POD_MAC, 0x86dd, &ipv6(source, PEER6, next, payload))
}

fn v6_to(destination: Ipv6Addr, source: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(HOST_MAC, POD_MAC, 0x86dd, &ipv6(source, destination, next, payload))
}

fn v6_udp(source: Ipv6Addr) -> Vec<u8> {
    v6(source, UDP, &udp(b"hello"))
}

fn from_mac(source: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    ethernet(HOST_MAC, source, ether_type, payload)
}

fn arp_from(operation: u8, mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    ethernet(BROADCAST, POD_MAC, 0x0806, &arp(operation, (mac, ip), ([0; 6], PEER)))
}

fn own_option(kind: u8) -> Vec<u8> {
    link_layer(kind, POD_MAC)
}

fn legitimate() -> Vec<(&'static str, Vec<u8>)> {
    let option = [1, 1, 1, 0];
    let options = ipv4_with(POD, PEER, 0, &option, &udp(b"hello"));
    let last_fragment = ipv4_with(POD, PEER, 2, &[], b"the rest of it");
    let chain = extension(DESTINATION, &extension(UDP, &udp(b"hello")));
    let ask = neighbour(SOLICITATION, PEER6, &own_option(1));
    let speak = neighbour(ADVERTISEMENT, POD6, &own_option(2));
    let echo = [128, 0, 0, 0, 0, 1, 0, 1];
    vec![
        ("IPv4", v4(POD)),
        ("IPv4 with options", from_mac(POD_MAC, 0x0800, &options)),
        ("an IPv4 fragment without ports", from_mac(POD_MAC, 0x0800, &last_fragment)),
        ("IPv6", v6_udp(POD6)),
        ("IPv6 with extension headers", v6(POD6, HOP_BY_HOP, &chain)),
        ("an IPv6 fragment", v6(POD6, FRAGMENT, &fragment(ICMPV6, 3, b"the rest"))),
        ("an echo request", v6(POD6, ICMPV6, &echo)),
        ("an ARP request", arp_from(1, POD_MAC, POD)),
        ("an ARP reply", arp_from(2, POD_MAC, POD)),
        ("a solicitation", v6(POD6, ICMPV6, &ask)),
        ("a solicitation without option", v6(POD6, ICMPV6, &neighbour(SOLICITATION, PEER6, &[]))),
        ("an advertisement of its own", v6(POD6, ICMPV6, &speak)),
    ]
}

fn spoofed() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let foreign_option = link_layer(1, OTHER_MAC);
    let lie = neighbour(ADVERTISEMENT, PEER6, &own_option(2));
    let with_lie = neighbour(ADVERTISEMENT, POD6, &link_layer(2, OTHER_MAC));
    let second_option = [own_option(1), foreign_option.clone()].concat();
    let ask = |options: &[u8]| neighbour(SOLICITATION, PEER6, options);
    let advertise = [&[ROUTER_ADVERTISEMENT, 0, 0, 0][..], &[0; 12]].concat();
    vec![
        ("its neighbour's IPv4", "spoofed_source", v4(PEER)),
        ("the host's link-local IPv4", "spoofed_source", v4(Ipv4Addr::new(169, 254, 1, 1))),
        ("its neighbour's IPv6", "spoofed_source", v6_udp(PEER6)),
        ("a mapped address", "spoofed_source", v6_udp(POD.to_ipv6_mapped())),
        (
            "a foreign MAC with its own IPv4",
            "spoofed_mac",
            from_mac(OTHER_MAC, 0x0800, &ipv4(POD, PEER, &udp(b"hello"))),
        ),
        (
            "a foreign MAC with its own IPv6",
            "spoofed_mac",
            from_mac(OTHER_MAC, 0x86dd, &ipv6(POD6, PEER6, UDP, &udp(b"hello"))),
        ),
        (
            "ARP from a foreign MAC",
            "spoofed_mac",
            from_mac(OTHER_MAC, 0x0806, &arp(1, (POD_MAC, POD), ([0; 6], PEER))),
        ),
        ("ARP for its neighbour's address", "spoofed_arp", arp_from(1, POD_MAC, PEER)),
        ("an ARP reply for its neighbour", "spoofed_arp", arp_from(2, POD_MAC, PEER)),
        ("ARP with a foreign hardware address", "spoofed_arp", arp_from(2, OTHER_MAC, POD)),
        ("a foreign option", "spoofed_nd", v6(POD6, ICMPV6, &ask(&foreign_option))),
        ("a foreign second option", "spoofed_nd", v6(POD6, ICMPV6, &ask(&second_option))),
        ("an advertisement for its neighbour", "spoofed_nd", v6(POD6, ICMPV6, &lie)),
        ("the same, link-local", "spoofed_nd", v6(LINK_LOCAL, ICMPV6, &lie)),
        ("its own address at a foreign MAC", "spoofed_nd", v6(POD6, ICMPV6, &with_lie)),
        (
            "an advertisement behind extension headers",
            "spoofed_nd",
            v6(POD6, HOP_BY_HOP, &extension(ROUTING, &extension(ICMPV6, &lie))),
        ),
        ("a router advertisement", "spoofed_nd", v6(LINK_LOCAL, ICMPV6, &advertise)),
        ("a redirect", "spoofed_nd", v6(POD6, ICMPV6, &neighbour(REDIRECT, PEER6, &[0; 16]))),
        (
            "a probe for its neighbour's address",
            "spoofed_nd",
            v6_to(ALL_NODES, ANY6, ICMPV6, &neighbour(SOLICITATION, PEER6, &[])),
        ),
    ]
}

fn control() -> Vec<(&'static str, Vec<u8>)> {
    let report = extension(ICMPV6, &[143, 0, 0, 0, 0, 0, 0, 0]);
    let probe = |target| neighbour(SOLICITATION, target, &[]);
    let ask = [&[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &own_option(1)].concat();
    let echo = [128, 0, 0, 0, 0, 1, 0, 1];
    let router: Ipv6Addr = "fe80::1".parse().unwrap();
    vec![
        ("a multicast report", v6_to(ALL_ROUTERS, LINK_LOCAL, HOP_BY_HOP, &report)),
        ("a multicast report without address", v6_to(ALL_ROUTERS, ANY6, HOP_BY_HOP, &report)),
        ("a probe for its address", v6_to(ALL_NODES, ANY6, ICMPV6, &probe(POD6))),
        ("a probe for its link-local address", v6_to(ALL_NODES, ANY6, ICMPV6, &probe(LINK_LOCAL))),
        ("a router solicitation", v6_to(ALL_ROUTERS, LINK_LOCAL, ICMPV6, &ask)),
        ("a ping to its gateway", v6_to(router, LINK_LOCAL, ICMPV6, &echo)),
        ("DHCP", from_mac(POD_MAC, 0x0800, &ipv4(ANY, Ipv4Addr::BROADCAST, &udp(b"discover")))),
        ("an ARP probe", arp_from(1, POD_MAC, ANY)),
    ]
}

fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let mut version = v4(POD);
    version[14] = 0x65;
    let mut length = v4(POD);
    length[14] = 0x44;
    let mut version6 = v6_udp(POD6);
    version6[14] = 0x45;
    let mut hardware = arp_from(1, POD_MAC, POD);
    hardware[15] = 6;
    let chain = (0..9).fold(udp(b"hello"), |inner, _| extension(DESTINATION, &inner));
    let cut = &neighbour(SOLICITATION, PEER6, &[])[..20];
    let empty_option = neighbour(SOLICITATION, PEER6, &[1, 0, 2, 0, 0, 0, 0, 1]);
    let many = neighbour(SOLICITATION, PEER6, &[14, 1, 0, 0, 0, 0, 0, 0].repeat(5));
    vec![
        ("IPv6 called IPv4", version),
        ("an IPv4 header of four words", length),
        ("IPv4 called IPv6", version6),
        ("ARP of another hardware", hardware),
        ("an endless chain of headers", v6(POD6, DESTINATION, &chain)),
        ("a chain that ends early", v6(POD6, DESTINATION, &[])),
        ("a solicitation cut off", v6(POD6, ICMPV6, cut)),
        ("an option without length", v6(POD6, ICMPV6, &empty_option)),
        ("more options than are read", v6(POD6, ICMPV6, &many)),
        ("another protocol", from_mac(POD_MAC, 0x88cc, &[0; 40])),
    ]
}

#[test]
fn a_pod_sends_as_itself_with_the_mark_of_its_eni() {
    place::run(|| {
        let mut bpf = place::load();
        set_pod(&mut bpf, lo());
        for (what, frame) in legitimate() {
            let outcome = run(&bpf, Program::FromPod, &frame);
            assert_eq!(outcome.code, PASS, "{what}");
            assert_eq!(outcome.mark, MARK_BEFORE | MARK, "{what}");
            assert_eq!(outcome.frame, frame, "{what}");
            assert!(outcome.drops.is_empty() && outcome.counts.is_empty(), "{what}: {outcome:?}");
        }
    });
}

#[test]
fn what_a_pod_must_not_send_is_dropped_and_counted_once_by_its_cause() {
    place::run(|| {
        let mut bpf = place::load();
        set_pod(&mut bpf, lo());
        let control = control().into_iter().map(|(what, frame)| (what, "pod_control", frame));
        let malformed = malformed().into_iter().map(|(what, frame)| (what, "malformed", frame));
        let tags =
            [0x8100, 0x88a8].map(|kind| ("a tag", "tagged_by_pod", tagged(&v4(POD), kind, 101)));
        let all = spoofed().into_iter().chain(control).chain(malformed).chain(tags);
        let mut dropped = 0;
        for (what, cause, frame) in all {
            let outcome = run(&bpf, Program::FromPod, &frame);
            assert_eq!((outcome.code, outcome.drops), (SHOT, vec![cause]), "{what}");
            dropped += 1;
        }
        let counters = bpf.reader().unwrap().counters(lo()).unwrap().unwrap();
        assert_eq!((counters.dropped, counters.tx_packets), (dropped, 0));
    });
}

/// By a link: the kernel refuses them as a test run, and keeps a tag beside the frame.
#[test]
fn short_and_tagged_frames_of_a_pod_are_dropped() {
    place::run(|| {
        let mut bpf = place::load();
        let mut pod = Tap::new("cali1", "02:00:00:00:00:02");
        set_pod(&mut bpf, pod.link);
        bpf.attach(pod.link, &[Program::FromPod]).unwrap();
        let probe = Probe::attach("cali1", "probe_ingress");
        let reader = bpf.reader().unwrap();
        let cut = |mut frame: Vec<u8>, length: usize| {
            frame.truncate(14 + length);
            frame
        };
        let cases = [
            ("a short IPv4 header", "malformed", cut(v4(POD), 19)),
            ("a short IPv6 header", "malformed", cut(v6_udp(POD6), 39)),
            ("a short ARP", "malformed", cut(arp_from(1, POD_MAC, POD), 27)),
            ("a tag", "tagged_by_pod", tagged(&v4(POD), 0x8100, 101)),
            ("a priority tag", "tagged_by_pod", tagged(&v4(POD), 0x8100, 0)),
            ("a service tag", "tagged_by_pod", tagged(&v4(POD), 0x88a8, 101)),
        ];
        for (what, cause, frame) in cases {
            let count = || {
                let drops = reader.drops().unwrap();
                drops.iter().find(|(name, _)| *name == cause).unwrap().1
            };
            let before = count();
            pod.write(&frame);
            assert_eq!((count() - before, probe.seen()), (1, 0), "{what}");
        }
        pod.write(&v4(POD));
        assert_eq!((probe.seen(), probe.last().mark), (1, MARK));
    });
}

#[test]
fn a_pod_that_is_not_known_sends_nothing() {
    place::run(|| {
        let mut bpf = place::load();
        for program in [Program::FromPod, Program::SetMark] {
            let outcome = run(&bpf, program, &v4(POD));
            assert_eq!((outcome.code, outcome.drops), (SHOT, vec!["unknown_pod"]));
        }
        set_pod(&mut bpf, lo());
        assert_eq!(run(&bpf, Program::FromPod, &v4(POD)).code, PASS);
        bpf.remove_endpoint(lo()).unwrap();
        assert_eq!(run(&bpf, Program::FromPod, &v4(POD)).code, SHOT);
    });
}

#[test]
fn a_pod_of_one_family_has_no_address_of_the_other() {
    place::run(|| {
        let mut bpf = place::load();
        let mut endpoint = Endpoint {
            addresses: IpPair::V4(POD),
            mac: model::Mac::new(POD_MAC),
            mark: Mark::new(MARK, 0x7f).unwrap(),
        };
        bpf.set_endpoint(lo(), &endpoint).unwrap();
        assert_eq!(run(&bpf, Program::FromPod, &v4(POD)).code, PASS);
        assert_eq!(run(&bpf, Program::FromPod, &v6_udp(POD6)).drops, ["spoofed_source"]);
        assert_eq!(run(&bpf, Program::FromPod, &v6_udp(ANY6)).drops, ["pod_control"]);
        endpoint.addresses = IpPair::V6(POD6);
        bpf.set_endpoint(lo(), &endpoint).unwrap();
        assert_eq!(run(&bpf, Program::FromPod, &v6_udp(POD6)).code, PASS);
        assert_eq!(run(&bpf, Program::FromPod, &v4(POD)).drops, ["spoofed_source"]);
        assert_eq!(run(&bpf, Program::FromPod, &arp_from(1, POD_MAC, ANY)).drops, ["pod_control"]);
    });
}

#[test]
fn a_mark_that_was_overwritten_is_set_again() {
    place::run(|| {
        let mut bpf = place::load();
        set_pod(&mut bpf, lo());
        let outcome = run(&bpf, Program::SetMark, &v4(PEER));
        assert_eq!((outcome.code, outcome.mark), (PASS, MARK_BEFORE | MARK));
    });
}

#[test]
fn frames_of_a_pod_are_counted_both_ways() {
    place::run(|| {
        let mut bpf = place::load();
        set_pod(&mut bpf, lo());
        let reader = bpf.reader().unwrap();
        let frame = v4(POD);
        run(&bpf, Program::FromPod, &frame);
        run(&bpf, Program::ToPod, &frame);
        run(&bpf, Program::ToPod, &frame);
        // A pod that is set again keeps its counters.
        set_pod(&mut bpf, lo());
        let length = u64::try_from(frame.len()).unwrap();
        let counters = reader.counters(lo()).unwrap().unwrap();
        assert_eq!((counters.tx_packets, counters.tx_bytes), (1, length));
        assert_eq!((counters.rx_packets, counters.rx_bytes), (2, 2 * length));
        bpf.remove_endpoint(lo()).unwrap();
        assert_eq!(reader.counters(lo()).unwrap(), None);
        assert_eq!(run(&bpf, Program::ToPod, &frame).code, PASS);
    });
}
