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
use model::{EniId, IpPair, IpStack, Mark, SandboxKey};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// MAC of the node's primary NIC.
pub(crate) const PRIMARY_MAC: &str = "00:16:3e:00:00:0a";

/// Runs `test` on a node: eth0 is up and has the node's addresses; behind it is the namespace
/// `vpc`.
pub(crate) fn on_a_node(stack: IpStack, test: impl AsyncFnOnce(Node) + Send + 'static) {
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
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// `ip`, which must succeed.
pub(crate) fn ip(arguments: &str) -> String {
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
pub(crate) struct Node {
    stack: IpStack,
}

impl Node {
    pub(crate) async fn datapath(&self) -> Datapath {
        self.datapath_with(RuleLayout::PerEni).await
    }

    pub(crate) async fn datapath_with(&self, rule_layout: RuleLayout) -> Datapath {
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
    pub(crate) fn plug(n: u8) {
        let mac = eni_mac(n);
        ip(&format!(
            "link add eth{n} address {mac} mtu 1500 type veth peer v{n} netns vpc address ee:ff:ff:ff:ff:ff"
        ));
        ip(&format!("-n vpc link set v{n} up"));
        ip(&format!("-n vpc addr add 10.0.{n}.253/32 dev v{n}"));
        ip(&format!("-n vpc -6 addr add fd00:{n}::fd/128 dev v{n} nodad"));
    }

    pub(crate) fn unplug(n: u8) {
        ip(&format!("link del eth{n}"));
    }

    pub(crate) fn eni(&self, n: u8, kind: EniKind) -> EniSpec {
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
    pub(crate) async fn set_eni(&self, datapath: &Datapath, n: u8, kind: EniKind) -> EniLink {
        Self::plug(n);
        datapath.set_eni(self.eni(n, kind), Duration::from_secs(5)).await.unwrap()
    }

    fn pair(&self, v4: &str, v6: &str) -> IpPair {
        let v4 = self.stack.v4().then(|| v4.parse().unwrap());
        let v6 = self.stack.v6().then(|| v6.parse().unwrap());
        IpPair::new(v4, v6).unwrap()
    }

    /// A shared pod of `eni-<eni>` with number `n`; its namespace is made, and the VPC routes its
    /// addresses to the ENI.
    pub(crate) fn pod(&self, eni: u8, n: u8) -> PodSpec {
        let name = format!("p{eni}-{n}");
        ip(&format!("netns add {name}"));
        let (v4, v6) = (format!("10.0.{eni}.{n}"), format!("fd00:{eni}::{n:x}"));
        Self::route_to_pods(eni, n);
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

    /// A path that leads to the node's own namespace.
    pub(crate) fn own_netns() -> PathBuf {
        let path = PathBuf::from("/run/netns/own");
        fs::write(&path, "").unwrap();
        let none: Option<&str> = None;
        mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none).unwrap();
        path
    }

    /// The VPC sends what is for pod `n` to the ENI.
    pub(crate) fn route_to_pods(eni: u8, n: u8) {
        let mac = eni_mac(eni);
        for (address, family) in
            [(format!("10.0.{eni}.{n}"), "-4"), (format!("fd00:{eni}::{n:x}"), "-6")]
        {
            ip(&format!("-n vpc {family} route replace {address} dev v{eni}"));
            ip(&format!("-n vpc neigh replace {address} dev v{eni} lladdr {mac} nud permanent"));
        }
    }

    /// A pod behind a member of the trunk `eni-<eni>`.
    pub(crate) fn member_pod(
        &self,
        eni: u8,
        n: u8,
        vlan: u32,
        macs: Option<MemberMacs>,
    ) -> PodSpec {
        let member = Some(MemberSpec { vlan: vlan.try_into().unwrap(), macs });
        PodSpec { member, ..self.pod(eni, n) }
    }
}

fn eni_mac(n: u8) -> String {
    format!("00:16:3e:00:01:{n:02x}")
}

/// Plans and adds.
pub(crate) async fn add(datapath: &Datapath, spec: &PodSpec) -> Pod {
    let link = datapath.plan_pod(spec).await.unwrap();
    let pod = Pod { spec: spec.clone(), link };
    let link = datapath.add_pod(pod.clone()).await.unwrap();
    assert_eq!(link, pod.link);
    pod
}

/// Waits until nothing waits for the reaper.
pub(crate) async fn settled(datapath: &Datapath) {
    eventually("the reaper is done", || datapath.reaper_queue() == 0).await;
}

/// Waits for a condition, and says which did not come.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not after 10 s: {what}");
}

/// Pings both addresses, as far as the stack has them, from a namespace; the node's own is "".
pub(crate) fn ping(from: &str, stack: IpStack, to: [&str; 2]) {
    for (to, wanted) in to.into_iter().zip([stack.v4(), stack.v6()]) {
        if wanted && let Err(answer) = ping_between(from, to) {
            panic!("{from:?} -> {to}: {answer}");
        }
    }
}

/// What `ping` says when there is no answer.
pub(crate) fn ping_between(from: &str, to: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    if from.is_empty() {
        command = Command::new("ping");
    } else {
        command.args(["netns", "exec", from, "ping"]);
    }
    let output = command.args(["-c", "1", "-W", "2", to]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(text) }
}
