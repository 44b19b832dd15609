//! Load, pin, attach, replace: over restarts and upgrades, beside strangers.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use aya::programs::{SchedClassifier, TcAttachType};
use daemon::bpf::{
    Address, Bpf, BpfError, Direction, Endpoint, Filter, MemberMacs, Node, Program, filters,
};
use model::{IpPair, LinkIndex, Mac, Mark};

use crate::frames::{ethernet, ipv4, udp};
use crate::place::{self, PINS, tool};
use crate::probe::Probe;
use crate::run::lo;
use crate::tap::Tap;
use crate::world::{
    ENI_MAC, FIRST, GATEWAY_MAC, HOST_MAC, MARK, MASK, NODE, PEER, POD, POD_MAC, set_eni, set_pod,
    vlan,
};

/// What each kind of link carries.
const TRUNK: [Program; 2] = [Program::VlanUntag, Program::VlanTag];
const ENI: [Program; 2] = [Program::EniIngress, Program::SourceGuard];
const VETH: [Program; 2] = [Program::FromPod, Program::ToPod];

fn ours(link: LinkIndex) -> Vec<(Program, u32)> {
    let found = filters(link).unwrap();
    found.iter().map(|filter| (filter.program.unwrap(), filter.program_id.unwrap())).collect()
}

/// `tc` as a second witness: priority, handle, name, program id.
fn by_tc(name: &str, direction: Direction) -> Vec<(u64, String, String, u64)> {
    let json = tool(&format!("tc -json filter show dev {name} {}", direction.name()));
    let filters: serde_json::Value = serde_json::from_str(&json).unwrap();
    let described = filters
        .as_array()
        .unwrap()
        .iter()
        .filter(|filter| filter["options"].get("handle").is_some());
    described
        .map(|filter| {
            let options = &filter["options"];
            (
                filter["pref"].as_u64().unwrap(),
                options["handle"].as_str().unwrap().to_owned(),
                options["bpf_name"].as_str().unwrap().to_owned(),
                options["prog"]["id"].as_u64().unwrap(),
            )
        })
        .collect()
}

/// `bpftool` as a second witness: id of the pinned program.
fn pinned(program: Program) -> u64 {
    let json = tool(&format!("bpftool -j prog show pinned {PINS}/programs/{}", program.name()));
    let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
    shown["id"].as_u64().unwrap()
}

fn pins() -> Vec<String> {
    let mut names = Vec::new();
    for directory in [PINS.to_owned(), format!("{PINS}/programs")] {
        for entry in fs::read_dir(directory).unwrap() {
            names.push(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    names.sort();
    names
}

fn map_ids() -> Vec<(String, u64)> {
    pins()
        .into_iter()
        .filter(|name| name.chars().all(char::is_uppercase))
        .map(|name| {
            let json = tool(&format!("bpftool -j map show pinned {PINS}/{name}"));
            let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
            let id = shown["id"].as_u64().unwrap();
            (name, id)
        })
        .collect()
}

#[test]
fn filters_are_where_the_design_wants_them_as_tc_and_bpftool_see_it() {
    place::run(|| {
        let bpf = place::load();
        let links: Vec<Tap> =
            ["eth1", "eth2", "cali1"].map(|name| Tap::new(name, "00:16:3e:00:00:01")).into();
        for (link, programs) in links.iter().zip([TRUNK, ENI, VETH]) {
            bpf.attach(link.link, &programs).unwrap();
            for program in programs {
                let point = program.attach_point();
                let expected = (
                    u64::from(point.priority),
                    "0x1".to_owned(),
                    program.name().to_owned(),
                    u64::from(bpf.id(program)),
                );
                assert_eq!(by_tc(&link.name, point.direction), [expected]);
                assert_eq!(pinned(program), u64::from(bpf.id(program)));
            }
            assert_eq!(ours(link.link), programs.map(|program| (program, bpf.id(program))));
        }
    });
}

#[test]
fn a_hundred_restarts_leave_one_filter_and_the_same_maps() {
    place::run(|| {
        let trunk = Tap::new("eth1", "00:16:3e:00:00:01");
        let mut bpf = place::load();
        set_eni(&mut bpf, trunk.link, lo());
        bpf.attach(trunk.link, &TRUNK).unwrap();
        let maps = map_ids();
        let names = pins();
        let addresses = bpf.addresses().unwrap();
        assert_eq!(maps.len(), 9);
        for _ in 0..100 {
            drop(bpf);
            assert_eq!(ours(trunk.link).len(), 2, "filters outlive their daemon");
            bpf = place::load();
            bpf.attach(trunk.link, &TRUNK).unwrap();
        }
        assert_eq!(ours(trunk.link), TRUNK.map(|program| (program, bpf.id(program))));
        assert_eq!(by_tc("eth1", Direction::Ingress).len(), 1);
        assert_eq!(by_tc("eth1", Direction::Egress).len(), 1);
        assert_eq!((map_ids(), pins()), (maps, names));
        assert_eq!(bpf.addresses().unwrap().len(), addresses.len());
    });
}

/// The trunk's kernel sends for the member while the programs are replaced: no frame is lost, and
/// none leaves without its tag.
#[test]
fn replacing_the_programs_lets_no_frame_slip_by() {
    place::run(|| {
        const FRAMES: usize = 2000;
        let mut trunk = Tap::new("eth1", "00:16:3e:00:00:01");
        let mut bpf = place::load();
        set_eni(&mut bpf, trunk.link, lo());
        bpf.attach(trunk.link, &TRUNK).unwrap();
        tool("ip link set lo up");
        tool(&format!("ip address add {FIRST}/32 dev lo"));
        tool("ip route add default via 10.0.0.253 dev eth1 onlink");
        tool("ip neighbour add 10.0.0.253 lladdr ee:ff:ff:ff:ff:ff dev eth1 nud permanent");
        let socket = UdpSocket::bind(format!("{FIRST}:0")).unwrap();
        let link = trunk.link;
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                for _ in 0..FRAMES {
                    socket.send_to(b"hello", format!("{PEER}:7")).unwrap();
                    let frame = trunk.read();
                    assert_eq!(frame[12..16], [0x81, 0, 0, 101]);
                }
            });
            while !sending.is_finished() {
                bpf.attach(link, &TRUNK).unwrap();
            }
        });
        let counts = bpf.reader().unwrap().counts().unwrap();
        assert!(counts.contains(&("tagged", FRAMES.try_into().unwrap())), "{counts:?}");
        assert!(bpf.drops().unwrap().iter().all(|(_cause, drops)| *drops == 0));
    });
}

#[test]
fn a_stranger_at_25000_is_left_alone_and_sees_frames_without_tags() {
    place::run(|| {
        let mut trunk = Tap::new("eth1", "00:16:3e:00:00:01");
        let mut bpf = place::load();
        set_eni(&mut bpf, trunk.link, lo());
        bpf.attach(trunk.link, &TRUNK).unwrap();
        let stranger_in = Probe::attach("eth1", "probe_ingress");
        let stranger_out = Probe::attach("eth1", "probe_egress");
        let link = trunk.link;
        let foreign = || -> Vec<Filter> {
            let found = filters(link).unwrap();
            found.into_iter().filter(|filter| filter.program.is_none()).collect()
        };
        let before = foreign();
        assert_eq!(before.len(), 2);
        assert!(before.iter().all(|filter| filter.point.priority == 25_000));

        tool("ip link set lo up");
        tool(&format!("ip address add {FIRST}/32 dev lo"));
        tool("ip route add default via 10.0.0.253 dev eth1 onlink");
        tool("ip neighbour add 10.0.0.253 lladdr ee:ff:ff:ff:ff:ff dev eth1 nud permanent");
        let socket = UdpSocket::bind(format!("{FIRST}:0")).unwrap();
        let inward = ethernet(ENI_MAC, GATEWAY_MAC, 0x0800, &ipv4(PEER, FIRST, &udp(b"hello")));
        let inward = crate::frames::tagged(&inward, 0x8100, 101);
        for _ in 0..10 {
            bpf.attach(trunk.link, &TRUNK).unwrap();
            trunk.write(&inward);
            socket.send_to(b"hello", format!("{PEER}:7")).unwrap();
            // The answer to `inward` may be an ICMP error: every frame that leaves is tagged.
            assert_eq!(trunk.read()[12..16], [0x81, 0, 0, 101]);
        }
        assert_eq!((stranger_in.seen(), stranger_in.tagged()), (10, 0));
        assert!(stranger_out.seen() >= 10);
        assert_eq!(stranger_out.tagged(), 0);
        assert_eq!(foreign(), before);
    });
}

#[test]
fn a_stranger_that_overwrites_the_mark_does_not_misroute_a_pod() {
    place::run(|| {
        let mut pod = Tap::new("cali1", "02:00:00:00:00:02");
        let mut bpf = place::load();
        set_pod(&mut bpf, pod.link);
        bpf.attach(pod.link, &[Program::FromPod, Program::ToPod, Program::SetMark]).unwrap();
        let stranger = Probe::attach("cali1", "probe_mark");
        let after = Probe::attach_at("cali1", "probe_ingress", 60_000);
        pod.write(&ethernet(HOST_MAC, POD_MAC, 0x0800, &ipv4(POD, PEER, &udp(b"hello"))));
        assert_eq!((stranger.seen(), stranger.last().mark), (1, MARK));
        assert_eq!((after.seen(), after.last().mark), (1, !MASK | MARK));
    });
}

/// Ids of the TCX programs, in the order in which they run. (Debian's bpftool does not know TCX.)
fn tcx() -> Vec<u32> {
    let (_revision, programs) = SchedClassifier::query_tcx("eth1", TcAttachType::Ingress).unwrap();
    programs.iter().map(aya::programs::ProgramInfo::id).collect()
}

#[test]
fn a_tcx_program_on_the_trunk_sees_no_tag_either() {
    place::run(|| {
        let mut trunk = Tap::new("eth1", "00:16:3e:00:00:01");
        let mut bpf = place::load();
        set_eni(&mut bpf, trunk.link, lo());
        bpf.attach(trunk.link, &TRUNK).unwrap();
        assert_eq!(bpf.precede_tcx(trunk.link).unwrap(), None);
        let stranger = Probe::attach_tcx("eth1", "probe_ingress");
        let inward = ethernet(ENI_MAC, GATEWAY_MAC, 0x0800, &ipv4(PEER, FIRST, &udp(b"hello")));
        let inward = crate::frames::tagged(&inward, 0x8100, 101);
        trunk.write(&inward);
        assert_eq!((stranger.seen(), stranger.tagged()), (1, 1), "this is what must not be");

        // At start, and again after restarts of the daemon, which swap the program.
        for frames in 2..5 {
            let preceded = bpf.precede_tcx(trunk.link).unwrap().unwrap();
            assert_eq!(preceded.programs.len(), 1);
            assert_eq!(preceded.programs[0].1, "probe_ingress");
            trunk.write(&inward);
            assert_eq!((stranger.seen(), stranger.tagged()), (frames, 1));
            assert_eq!(tcx(), [bpf.id(Program::VlanUntag), preceded.programs[0].0]);
            drop(bpf);
            bpf = place::load();
        }

        // When the stranger has gone, so has ours. The kernel lets go of a link a bit later.
        drop(stranger);
        assert!(place::eventually(|| tcx().len() == 1));
        assert_eq!(bpf.precede_tcx(trunk.link).unwrap(), None);
        assert!(place::eventually(|| tcx().is_empty()));
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_an_error_that_names_it() {
    place::run(|| {
        fs::create_dir_all(PINS).unwrap();
        for (wrong, what) in [
            ("array key 4 value 36 entries 4096", "has type Array"),
            ("hash key 8 value 36 entries 4096", "has key size 8, this version wants 4"),
            ("hash key 4 value 40 entries 4096", "has value size 40, this version wants 36"),
            ("hash key 4 value 36 entries 16", "has max entries 16, this version wants 4096"),
        ] {
            tool(&format!("bpftool map create {PINS}/ENDPOINTS type {wrong} name x"));
            let error = Bpf::load(&place::stage("terway.bpf.o"), Path::new(PINS)).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(what), "{text}");
            assert!(text.contains("/sys/fs/bpf/terway/v1/ENDPOINTS"), "{text}");
            assert!(text.contains("remove the pin"), "{text}");
            fs::remove_file(format!("{PINS}/ENDPOINTS")).unwrap();
        }
        drop(place::load());
    });
}

#[test]
fn pins_need_a_bpf_file_system_and_programs_an_object() {
    place::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let pins = directory.path().join("terway/v1");
        let error = Bpf::load(&place::stage("terway.bpf.o"), &pins).unwrap_err();
        assert!(matches!(error, BpfError::NotBpffs { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
        assert!(!pins.exists());
        let missing = directory.path().join("terway.bpf.o");
        let error = Bpf::load(&missing, Path::new(PINS)).unwrap_err();
        assert!(error.to_string().contains("--bpf-object"), "{error}");
        fs::write(&missing, b"no object").unwrap();
        let error = Bpf::load(&missing, Path::new(PINS)).unwrap_err();
        assert!(error.to_string().contains("cannot load the eBPF object"), "{error}");
    });
}

#[test]
fn a_link_that_is_gone_is_an_error_that_says_so_and_has_no_filters() {
    place::run(|| {
        let bpf = place::load();
        let gone = LinkIndex::try_from(4242).unwrap();
        let error = bpf.attach(gone, &VETH).unwrap_err();
        assert!(error.is_link_gone(), "{error}");
        assert_eq!(error.to_string(), "cannot attach the tc filters of link 4242");
        assert_eq!(filters(gone).unwrap(), []);
        let silent = Tap::new("eth1", "00:16:3e:00:00:01");
        assert_eq!(filters(silent.link).unwrap(), []);
    });
}

#[test]
fn entries_are_read_as_they_were_written_and_removed_twice() {
    place::run(|| {
        let mut bpf = place::load();
        let link = LinkIndex::try_from(7).unwrap();
        let endpoint = Endpoint {
            addresses: IpPair::V4(POD),
            mac: Mac::new(POD_MAC),
            mark: Mark::new(MARK, MASK).unwrap(),
        };
        let address = Address { vlan: Some(vlan(101)), tombstone: true };
        let macs = MemberMacs { member: Mac::new(POD_MAC), gateway: Mac::GATEWAY };
        bpf.set_endpoint(link, &endpoint).unwrap();
        bpf.set_address(link, FIRST.into(), address).unwrap();
        bpf.set_member(link, vlan(101), None).unwrap();
        bpf.set_member(link, vlan(102), Some(macs)).unwrap();
        bpf.set_eni(link, Mac::new(ENI_MAC)).unwrap();

        assert_eq!(bpf.node().unwrap(), None);
        let node = Node { link, v4: Some(NODE), v6: None, mark_mask: MASK };
        bpf.set_node(&node).unwrap();
        assert_eq!(bpf.node().unwrap(), Some(node));
        assert_eq!(bpf.endpoints().unwrap(), [(link, endpoint)]);
        assert_eq!(bpf.addresses().unwrap(), [(link, FIRST.into(), address)]);
        assert_eq!(bpf.enis().unwrap(), [(link, Mac::new(ENI_MAC))]);
        let mut members = bpf.members().unwrap();
        members.sort_by_key(|member| member.1);
        assert_eq!(members, [(link, vlan(101), None), (link, vlan(102), Some(macs))]);

        for _ in 0..2 {
            bpf.remove_endpoint(link).unwrap();
            bpf.remove_address(link, FIRST.into()).unwrap();
            bpf.remove_member(link, vlan(101)).unwrap();
            bpf.remove_member(link, vlan(102)).unwrap();
            bpf.remove_eni(link).unwrap();
        }
        assert_eq!(bpf.endpoints().unwrap(), []);
        assert_eq!(bpf.addresses().unwrap(), []);
        assert_eq!(bpf.members().unwrap(), []);
        assert_eq!(bpf.enis().unwrap(), []);
    });
}
