//! What ADD and DEL do to a node's kernel, by `ip -j`, `tc -j` and `bpftool`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use daemon::bpf::SCHEMA;
use serde_json::{Value, json};
use terway_lab::lab::leftovers::{ip, tc};
use terway_lab::lab::{DaemonSettings, Lab, LabOptions, LabPod, PodRequest};
use terway_lab::traffic::{Answer, probe};
use tokio::time::{sleep, timeout};

const NODE: &str = "node1";

async fn lab(name: &str) -> Lab {
    Lab::up(LabOptions::for_test(name, 1).unwrap()).await.unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// `(family, priority) -> how many`, of the rules that are ours by priority.
async fn rules(lab: &Lab) -> BTreeMap<(&'static str, u64), usize> {
    let node = &lab.node(NODE).unwrap().node;
    let mut count = BTreeMap::new();
    for family in ["-4", "-6"] {
        for rule in ip(node, &format!("-j {family} rule show")).await.unwrap() {
            let priority = number(&rule, "priority");
            if (512..=513).contains(&priority) {
                *count.entry((family, priority)).or_default() += 1;
            }
        }
    }
    count
}

/// `(link, index)` of the ENIs that the daemon manages.
async fn enis(lab: &Lab) -> Vec<(String, u64)> {
    let enis = lab.terwayctl(NODE, "enis").await.unwrap();
    let enis = enis.get("enis").and_then(Value::as_array).unwrap();
    enis.iter().map(|eni| (text(eni, "link").to_owned(), number(eni, "link_index"))).collect()
}

/// A pod's route is in main and in every ENI's table, its neighbour is permanent on its host link.
async fn pod_is_in_the_kernel(lab: &Lab, pod: &LabPod, tables: &[u64]) {
    let node = &lab.node(NODE).unwrap().node;
    let listed = lab.terwayctl(NODE, "pods").await.unwrap();
    let listed = listed.get("pods").and_then(Value::as_array).unwrap();
    let record = listed.iter().find(|one| text(one, "name") == pod.request.name).unwrap();
    let link = text(record, "host_link");
    assert!(link.starts_with("cali") && link.len() == 15, "{link}");
    for address in &pod.addresses {
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        for table in tables.iter().copied().chain([254]) {
            let arguments = format!("-j {family} route show table {table} exact {address}");
            let routes = ip(node, &arguments).await.unwrap();
            assert_eq!(routes.len(), 1, "{arguments}: {routes:?}");
            assert_eq!(text(&routes[0], "dev"), link, "{arguments}");
            assert!(["122", "0x7a"].contains(&text(&routes[0], "protocol")), "{routes:?}");
        }
        let neighbours = ip(node, &format!("-j {family} neigh show dev {link}")).await.unwrap();
        let ours = |one: &&Value| text(one, "dst") == address.to_string();
        let neighbour = neighbours.iter().find(ours).unwrap();
        assert_eq!(neighbour["state"][0], "PERMANENT", "{neighbour}");
    }
    for (direction, program) in [("ingress", "from_pod"), ("egress", "to_pod")] {
        let filters = tc(node, &format!("-j filter show dev {link} {direction}")).await.unwrap();
        let ours: Vec<_> = filters.iter().filter(|one| one.get("options").is_some()).collect();
        assert_eq!(ours.len(), 1, "{filters:?}");
        assert_eq!(number(ours[0], "pref"), 100);
        assert_eq!(text(&ours[0]["options"], "handle"), "0x1");
        assert_eq!(text(&ours[0]["options"], "bpf_name"), program);
    }
}

/// Inside: one /32 and one /128, default routes by link-local next hops that are permanent.
async fn pod_is_as_designed_inside(pod: &LabPod) {
    let node = pod.netns.node();
    let inside = |arguments: &str| format!("-j -n {} {arguments}", pod.request.name);
    let links = ip(node, &inside("addr show dev eth0")).await.unwrap();
    let addresses: BTreeSet<_> = links[0]["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| text(one, "scope") == "global")
        .map(|one| format!("{}/{}", text(one, "local"), number(one, "prefixlen")))
        .collect();
    let expected = pod
        .addresses
        .iter()
        .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }));
    assert_eq!(addresses, expected.collect());
    for (family, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::1")] {
        let routes = ip(node, &inside(&format!("{family} route show default"))).await.unwrap();
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert_eq!(text(&routes[0], "gateway"), gateway);
        let neighbours = ip(node, &inside(&format!("{family} neigh show"))).await.unwrap();
        let next_hop = neighbours.iter().find(|one| text(one, "dst") == gateway).unwrap();
        assert_eq!(next_hop["state"][0], "PERMANENT");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_has_a_constant_number_of_rules_and_nothing_is_left_after_del() {
    let lab = lab("witness").await;
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    let enis = enis(&lab).await;
    let tables: Vec<_> = enis.iter().map(|(_, index)| 1000 + index).collect();
    let expected: BTreeMap<_, _> = ["-4", "-6"]
        .into_iter()
        .flat_map(|family| [((family, 512), 2 * enis.len()), ((family, 513), enis.len())])
        .collect();
    assert_eq!(rules(&lab).await, expected, "before any pod");

    let mut pods = Vec::new();
    for request in [
        PodRequest::shared(NODE, "shared-a"),
        PodRequest::shared(NODE, "shared-b"),
        PodRequest::trunk(NODE, "web-a", "web"),
        PodRequest::trunk(NODE, "db-a", "db"),
    ] {
        pods.push(lab.add_pod(&request).await.unwrap());
    }
    assert_eq!(rules(&lab).await, expected, "with four pods");
    for pod in &pods {
        pod_is_in_the_kernel(&lab, pod, &tables).await;
        pod_is_as_designed_inside(pod).await;
        let check = lab.check_pod(pod).await.unwrap();
        assert!(check.success, "CHECK of {}: {}", pod.request.name, check.message());
    }

    for pod in pods {
        lab.del_pod(pod).await.unwrap();
    }
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "left:\n{}", left.join("\n"));
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

/// `(priority, handle, name)` of the filters on one side of a link, each of a program that is pinned.
async fn programs(lab: &Lab, link: &str, side: &str) -> Vec<(u64, String, String)> {
    let node = &lab.node(NODE).unwrap().node;
    let mut found = Vec::new();
    for filter in lab.filters(NODE, link, side).await.unwrap() {
        let id = filter.program_id.to_string();
        let mut show = node.command("bpftool");
        let shown = show.args(["-j", "-f", "prog", "show", "id", &id]).output().await.unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let pins = shown.get("pinned").and_then(Value::as_array).cloned().unwrap_or_default();
        assert!(
            !pins.is_empty(),
            "program {id} ({}) on {link} is not pinned: {shown}",
            filter.name
        );
        found.push((filter.priority, filter.handle, filter.name));
    }
    found
}

/// The node's shared addresses do not fit the trunk's own: a second ENI carries the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_link_has_the_filters_that_the_mission_fixed_and_no_other_and_they_are_the_pinned_ones()
 {
    let mut options = LabOptions::for_test("filters", 1).unwrap();
    "ecs.u1-c1m4.xlarge".clone_into(&mut options.nodes[0].kind);
    let lab = Lab::up(options).await.unwrap();
    let more = json!({ "ip_stack": "ipv4", "min_pool_size": 12, "max_pool_size": 15 });
    let more = more.as_object().unwrap().clone();
    let settings = DaemonSettings { more, ..DaemonSettings::default() };
    let daemon = lab.start_daemon(NODE, &settings).await.unwrap();
    let mut pods = Vec::new();
    for request in [PodRequest::shared(NODE, "shared-a"), PodRequest::trunk(NODE, "web-a", "web")] {
        pods.push(lab.add_pod(&request).await.unwrap());
    }
    let mut links = Vec::new();
    for eni in lab.terwayctl(NODE, "enis").await.unwrap()["enis"].as_array().unwrap() {
        let (ingress, egress) = match text(eni, "kind") {
            "trunk" => ("vlan_untag", "vlan_tag"),
            "secondary" => ("eni_ingress", "source_guard"),
            other => panic!("{other}"),
        };
        links.push((text(eni, "link").to_owned(), (20_000, ingress), (50_001, egress)));
    }
    let mut kinds: Vec<_> = links.iter().map(|(_, ingress, _)| ingress.1).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["eni_ingress", "vlan_untag"], "one trunk and one shared ENI");
    for pod in lab.terwayctl(NODE, "pods").await.unwrap()["pods"].as_array().unwrap() {
        links.push((text(pod, "host_link").to_owned(), (100, "from_pod"), (100, "to_pod")));
    }
    assert_eq!(links.len(), 4, "{links:?}");
    for (link, ingress, egress) in links {
        for (side, (priority, name)) in [("ingress", ingress), ("egress", egress)] {
            let expected = [(priority, "0x1".to_owned(), name.to_owned())];
            assert_eq!(programs(&lab, &link, side).await, expected, "{link} {side}");
        }
    }
    for pod in pods {
        lab.del_pod(pod).await.unwrap();
    }
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

/// The tables' routes lead only to pods: what arrives for an address without one is refused by
/// the node itself, and neither leaves by eth0 nor circles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_for_an_address_without_a_pod_ends_on_the_node() {
    let lab = lab("nobody").await;
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let enis = lab.terwayctl(NODE, "enis").await.unwrap();
    let enis = enis.get("enis").and_then(Value::as_array).unwrap();
    let addresses: Vec<_> = enis
        .iter()
        .flat_map(|eni| eni.get("addresses").and_then(Value::as_array).into_iter().flatten())
        .filter(|address| text(address, "state") == "idle")
        .collect();
    for family in ["ipv4", "ipv6"] {
        let idle = addresses.iter().map(|address| text(address, family));
        let idle = idle.into_iter().find(|address| !address.is_empty()).unwrap();
        let address: std::net::IpAddr = idle.parse().unwrap();
        let target = std::net::SocketAddr::new(address, 7007);
        let place = lab.fabric().outside();
        let probe = probe(place, target, Duration::from_secs(3)).await.unwrap();
        let Answer::Failed(error) = &probe.answer else { panic!("{family}: {:?}", probe.answer) };
        assert!(error.contains("unreachable"), "{family}: {error}");
    }
    assert_eq!(lab.fabric().drops().await.unwrap().total(), 0, "nothing came back into the VPC");
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

/// Somebody changes an ENI's MTU by hand: it is what the NIC came with again, and so say the
/// kernel, the result of an ADD, CHECK, `terwayctl` and the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mtu_of_an_eni_is_the_same_wherever_it_is_said() {
    let lab = lab("mtu").await;
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let node = &lab.node(NODE).unwrap().node;
    let (link, _) = enis(&lab).await.remove(0);
    let before = lab.add_pod(&PodRequest::shared(NODE, "before")).await.unwrap();
    let mtu = async || number(&ip(node, &format!("-j link show {link}")).await.unwrap()[0], "mtu");
    let own = mtu().await;
    let changed = own - 100;
    ip(node, &format!("-j link set {link} mtu {changed}")).await.unwrap();
    let repaired = format!("link {link} mtu {changed} should be link {link} mtu {own}");
    let said = || {
        let log = daemon.said().unwrap();
        log.lines().any(|line| line.contains("repaired") && line.contains(&repaired))
    };
    let look = timeout(Duration::from_secs(10), async {
        while !said() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(look.await.is_ok(), "{repaired:?} is not in the log:\n{}", daemon.tail());
    assert_eq!(mtu().await, own);

    let after = lab.add_pod(&PodRequest::shared(NODE, "after")).await.unwrap();
    for pod in [&before, &after] {
        let interfaces = pod.result["interfaces"].as_array().unwrap();
        let said: Vec<_> = interfaces.iter().map(|one| number(one, "mtu")).collect();
        assert_eq!(said, [own; 3], "{interfaces:?}");
        let name = &pod.request.name;
        let inside = ip(node, &format!("-j -n {name} link show eth0")).await.unwrap();
        assert_eq!(number(&inside[0], "mtu"), own);
        let check = lab.check_pod(pod).await.unwrap();
        assert!(check.success, "{}", check.message());
    }
    let shown = lab.terwayctl(NODE, "enis").await.unwrap();
    assert_eq!(number(&shown["enis"][0], "mtu"), own, "{shown}");
    for pod in [before, after] {
        lab.del_pod(pod).await.unwrap();
    }
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

/// What a daemon could leave behind and `ip` does not show: each of it is a difference to the lab.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_a_sysctl_and_a_map_entry_too_many_are_seen() {
    let lab = lab("seen").await;
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let shown = lab.terwayctl(NODE, "enis").await.unwrap();
    let link = text(&shown["enis"][0], "link");
    // Nobody repairs.
    daemon.stop().await.unwrap();

    let node = &lab.node(NODE).unwrap().node;
    let before = lab.kernel_state(NODE).await.unwrap();
    let pins = format!("/sys/fs/bpf/terway/v{SCHEMA}");
    let filter = format!("{pins}/programs/source_guard");
    let address = "0 0 0 0 0 0 0 0 0 0 0xff 0xff 10 0 1 77";
    for words in [
        format!("tc filter add dev {link} egress pref 60000 bpf da pinned {filter}"),
        format!("sysctl -q -w net.ipv4.conf.{link}.log_martians=1"),
        format!("bpftool map update pinned {pins}/MEMBERS key 3 0 0 0 7 0 0 0 value {}", zeros(16)),
        format!("bpftool map update pinned {pins}/ENDPOINTS key 9 9 0 0 value {}", zeros(36)),
        format!(
            "bpftool map update pinned {pins}/ADDRESSES key 3 0 0 0 {address} value {}",
            zeros(8)
        ),
    ] {
        let output = node.command("sh").args(["-c", &words]).output().await.unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let difference = lab.kernel_state(NODE).await.unwrap().difference(&before);
    for sign in [
        "source_guard",
        "log_martians:1",
        "+ map MEMBERS 0300000007000000",
        "+ map ENDPOINTS 09090000",
        "+ map ADDRESSES 10.0.1.77",
    ] {
        assert!(difference.iter().any(|line| line.contains(sign)), "{sign}: {difference:#?}");
    }
    lab.down().await.unwrap();
}

fn zeros(count: usize) -> String {
    vec!["0"; count].join(" ")
}
