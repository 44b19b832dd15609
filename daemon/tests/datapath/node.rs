//! A node in namespaces of its own: network, mounts, BPF file system. All of it goes with the
//! thread of the test, also after a panic.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use daemon::bpf::MemberMacs;
use daemon::datapath::{
    Datapath, EniKind, EniLink, EniSpec, MemberSpec, Options, Pod, PodSpec, RuleLayout,
};
use model::{EniId, IpPair, IpStack, Mac, Mark, SandboxKey};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// MAC of the node's primary NIC.
pub const PRIMARY_MAC: &str = "00:16:3e:00:00:0a";
/// The node's primary addresses.
pub const PRIMARY: [&str; 2] = ["10.0.0.10", "fd00::a"];

/// Runs `test` on a node: eth0 is up and has the node's addresses; behind it is the namespace
/// `vpc`.
pub fn on_a_node(stack: IpStack, test: impl AsyncFnOnce(Node) + Send + 'static) {
    let thread = thread::Builder::new().name("node".to_owned());
    let thread = thread.spawn(move || {
        enter_new_namespaces();
        make_primary();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(Node { stack }));
    });
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread is the test's own and dies with it")]
fn enter_new_namespaces() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    fs::create_dir_all("/run/netns").unwrap();
    mount(Some("netns"), "/run/netns", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mount(Some("mnt"), "/mnt", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::create_dir("/mnt/bpf").unwrap();
    mount(Some("bpf"), "/mnt/bpf", Some("bpf"), MsFlags::empty(), none).unwrap();
}

fn make_primary() {
    ip("netns add vpc");
    ip("link set lo up");
    ip("-n vpc link set lo up");
    ip("netns exec vpc sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    ip(&format!("link add eth0 address {PRIMARY_MAC} type veth peer v0 netns vpc"));
    ip("link set eth0 up");
    ip("-n vpc link set v0 up");
    ip("addr add 10.0.0.10/24 dev eth0");
    ip("-6 addr add fd00::a/64 dev eth0 nodad");
    ip("-n vpc addr add 10.0.0.253/24 dev v0");
    ip("-n vpc -6 addr add fd00::fd/64 dev v0 nodad");
    ip("route add default via 10.0.0.253");
    ip("-6 route add default via fd00::fd");
    // The outside world is an address of the VPC's own.
    ip("-n vpc addr add 10.9.9.9/32 dev lo");
    ip("-n vpc -6 addr add fd09::9/128 dev lo nodad");
}

/// A command that must succeed; its output.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// `ip`, which must succeed.
pub fn ip(arguments: &str) -> String {
    run(&format!("ip {arguments}"))
}

/// Where the programs are.
fn object() -> PathBuf {
    let stage = std::env::var_os("TERWAY_STAGE").map(PathBuf::from);
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/stage/dev");
    let object = stage.unwrap_or_else(|| default.into()).join("terway.bpf.o");
    assert!(object.exists(), "{} is missing: run cargo xtask build", object.display());
    object
}

/// The node of a test.
pub struct Node {
    stack: IpStack,
}

impl Node {
    pub async fn datapath(&self) -> Datapath {
        self.datapath_with(RuleLayout::PerEni).await
    }

    pub async fn datapath_with(&self, rule_layout: RuleLayout) -> Datapath {
        let options = Options {
            primary_mac: PRIMARY_MAC.parse().unwrap(),
            stack: self.stack,
            rule_layout,
            mark_mask: Mark::DEFAULT_MASK,
            object: object(),
            pins: "/mnt/bpf/terway".into(),
        };
        Datapath::start(options).await.unwrap()
    }

    /// Plugs the NIC of `eni-<n>` as `ethN`: down, as the cloud does. The VPC's end routes what is
    /// given to it.
    pub fn plug(&self, n: u8) {
        let mac = eni_mac(n);
        ip(&format!(
            "link add eth{n} address {mac} mtu 1500 type veth peer v{n} netns vpc address ee:ff:ff:ff:ff:ff"
        ));
        ip(&format!("-n vpc link set v{n} up"));
        ip(&format!("-n vpc addr add 10.0.{n}.253/32 dev v{n}"));
        ip(&format!("-n vpc -6 addr add fd00:{n}::fd/128 dev v{n} nodad"));
    }

    pub fn unplug(&self, n: u8) {
        ip(&format!("link del eth{n}"));
    }

    pub fn eni(&self, n: u8, kind: EniKind) -> EniSpec {
        let (v4, v6) = (format!("10.0.{n}.253"), format!("fd00:{n}::fd"));
        EniSpec {
            id: EniId::new(format!("eni-{n}")),
            kind,
            mac: eni_mac(n).parse().unwrap(),
            mark: Mark::new(n.into(), Mark::DEFAULT_MASK).unwrap(),
            gateway: self.pair(&v4, &v6),
        }
    }

    /// An ENI with its NIC, set up.
    pub async fn set_eni(&self, datapath: &Datapath, n: u8, kind: EniKind) -> EniLink {
        self.plug(n);
        datapath.set_eni(self.eni(n, kind), Duration::from_secs(5)).await.unwrap()
    }

    fn pair(&self, v4: &str, v6: &str) -> IpPair {
        let v4 = self.stack.v4().then(|| v4.parse().unwrap());
        let v6 = self.stack.v6().then(|| v6.parse().unwrap());
        IpPair::new(v4, v6).unwrap()
    }

    /// A shared pod of `eni-<eni>` with number `n`; its namespace is made, and the VPC routes its
    /// addresses to the ENI.
    pub fn pod(&self, eni: u8, n: u8) -> PodSpec {
        let name = format!("p{eni}-{n}");
        ip(&format!("netns add {name}"));
        let (v4, v6) = (format!("10.0.{eni}.{n}"), format!("fd00:{eni}::{n:x}"));
        let mac = eni_mac(eni);
        for (address, family) in [(&v4, ""), (&v6, "-6")] {
            ip(&format!("-n vpc {family} route add {address} dev v{eni}"));
            ip(&format!("-n vpc neigh add {address} dev v{eni} lladdr {mac} nud permanent"));
        }
        PodSpec {
            key: SandboxKey {
                network: "terway".to_owned(),
                container_id: name.clone(),
                ifname: "eth0".to_owned(),
            },
            pod: None,
            netns: PathBuf::from("/run/netns").join(name),
            ifname: "eth0".parse().unwrap(),
            addresses: self.pair(&v4, &v6),
            eni: EniId::new(format!("eni-{eni}")),
            member: None,
            mtu: None,
            mac: None,
        }
    }

    /// A pod behind a member of the trunk `eni-<eni>`.
    pub fn member_pod(&self, eni: u8, n: u8, vlan: u32, macs: Option<MemberMacs>) -> PodSpec {
        let member = Some(MemberSpec { vlan: vlan.try_into().unwrap(), macs });
        PodSpec { member, ..self.pod(eni, n) }
    }
}

fn eni_mac(n: u8) -> String {
    format!("00:16:3e:00:01:{n:02x}")
}

/// Plans and adds.
pub async fn add(datapath: &Datapath, spec: &PodSpec) -> Pod {
    let link = datapath.plan_pod(spec).await.unwrap();
    let pod = Pod { spec: spec.clone(), link };
    let link = datapath.add_pod(pod.clone()).await.unwrap();
    assert_eq!(link, pod.link);
    pod
}

/// Some MAC.
pub fn mac(last: u8) -> Mac {
    Mac::new([0x00, 0x16, 0x3e, 0x07, 0x07, last])
}
