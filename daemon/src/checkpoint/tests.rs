//! Write, reopen, same contents; and what is not a checkpoint does not stop the daemon.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use controlplane::{Binding, Eni, EniSpec, Goal, Kind, Owner, Stage};
use model::{IpPair, IpStack, LinkIndex, Mac, Mode, PodRef, SecurityGroupId, VSwitchId, VlanId};
use proptest::prelude::*;
use proptest::{collection, option};
use tempfile::TempDir;

use super::*;
use crate::bpf::MemberMacs;
use crate::datapath::{MemberSpec, PodLink, PodSpec};
use crate::ipam::Uplink;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn reopen(state: &TempDir) -> Opened {
    // The writer of the handle before may still be letting the lock go.
    Checkpoint::open(state.path(), Duration::from_secs(5)).await.unwrap()
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9_.-]{0,12}"
}

fn sandbox_key() -> impl Strategy<Value = SandboxKey> {
    (name(), name(), "[a-z]{1,10}").prop_map(|(network, container_id, ifname)| SandboxKey {
        network,
        container_id,
        ifname,
    })
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac::new)
}

fn pair() -> impl Strategy<Value = IpPair> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(IpPair::V4),
        any::<Ipv6Addr>().prop_map(IpPair::V6),
        any::<(Ipv4Addr, Ipv6Addr)>().prop_map(|(v4, v6)| IpPair::Dual(v4, v6)),
    ]
}

fn vlan() -> impl Strategy<Value = VlanId> {
    (1u32..=4094).prop_map(|vlan| VlanId::try_from(vlan).unwrap())
}

fn pod() -> impl Strategy<Value = Option<PodRef>> {
    let pod = (name(), name(), option::of(name()));
    option::of(pod.prop_map(|(namespace, name, uid)| PodRef { namespace, name, uid }))
}

fn link() -> impl Strategy<Value = PodLink> {
    ("cali[0-9a-f]{11}", 1u32..9999, mac(), 1u32..9999, mac(), 68u32..9000).prop_map(
        |(host, host_index, host_mac, pod_index, pod_mac, mtu)| PodLink {
            host: host.parse().unwrap(),
            host_index: LinkIndex::try_from(host_index).unwrap(),
            host_mac,
            pod_index: LinkIndex::try_from(pod_index).unwrap(),
            pod_mac,
            mtu,
        },
    )
}

fn allocation() -> impl Strategy<Value = Allocation> {
    let groups = collection::vec(name().prop_map(SecurityGroupId::new), 0..3);
    (pair(), name(), option::of((name(), vlan(), name())), mac(), groups).prop_map(
        |(addresses, eni, member, mac, security_groups)| {
            let eni = EniId::new(eni);
            let (parent, vlan, pod_networking) = match member {
                Some((trunk, vlan, name)) => (EniId::new(trunk), Some(vlan), Some(name)),
                None => (eni.clone(), None, None),
            };
            let mode = if vlan.is_some() { Mode::Trunk } else { Mode::Shared };
            Allocation { mode, addresses, eni, parent, vlan, mac, security_groups, pod_networking }
        },
    )
}

prop_compose! {
    fn sandbox()(
        key in sandbox_key(),
        pod in pod(),
        allocation in allocation(),
        macs in option::of((mac(), mac())),
        asked in (option::of(68u32..9000), option::of(mac())),
        link in link(),
        phase in prop_oneof![Just(Phase::Adding), Just(Phase::Up), Just(Phase::Deleting)],
        micros in 0u64..1_000_000_000,
    ) -> SandboxRecord {
        let macs = macs.map(|(member, gateway)| MemberMacs { member, gateway });
        let spec = PodSpec {
            ifname: key.ifname.parse().unwrap(),
            netns: PathBuf::from(format!("/run/netns/{}", key.container_id)),
            key,
            pod,
            addresses: allocation.addresses,
            eni: allocation.parent.clone(),
            member: allocation.vlan.map(|vlan| MemberSpec { vlan, macs }),
            mtu: asked.0,
            mac: asked.1,
        };
        let add_time = Duration::from_micros(micros);
        SandboxRecord { phase, pod: Pod { spec, link }, allocation, add_time }
    }
}

prop_compose! {
    fn eni()(
        token in "[a-z0-9-]{1,64}",
        kind in prop_oneof![
            Just(Kind::Secondary),
            Just(Kind::Trunk),
            name().prop_map(|trunk| Kind::Member(EniId::new(trunk))),
        ],
        vswitch in name(),
        stack in prop_oneof![Just(IpStack::V4), Just(IpStack::V6), Just(IpStack::Dual)],
        counts in (0u32..50, 0u32..11, 0u32..11, 0u32..2),
        tags in collection::btree_map(name(), ".{0,8}", 0..3),
        resource_group in option::of(name()),
        source_dest_check in any::<bool>(),
        goal in prop_oneof![Just(Goal::Bound), Just(Goal::Gone)],
        stage in prop_oneof![
            Just(Stage::Intended),
            name().prop_map(|id| Stage::Made(EniId::new(id))),
            (name(), mac(), pair(), option::of(vlan())).prop_map(|(id, mac, addresses, vlan)| {
                Stage::Bound(Binding { id: EniId::new(id), mac, addresses, vlan })
            }),
        ],
    ) -> Eni<()> {
        let spec = EniSpec {
            kind,
            vswitch: VSwitchId::new(vswitch),
            security_groups: vec![SecurityGroupId::new("sg-1")],
            stack,
            v4: counts.0,
            v6: counts.1,
            v4_prefixes: counts.2,
            v6_prefixes: counts.3,
            tags,
            resource_group,
            source_dest_check,
        };
        Eni { token: ClientToken::try_from(token).unwrap(), spec, goal, stage, owner: () }
    }
}

fn owned<T>(eni: Eni<()>, owner: T) -> Eni<T> {
    let Eni { token, spec, goal, stage, owner: () } = eni;
    Eni { token, spec, goal, stage, owner }
}

prop_compose! {
    fn rest()(
        eni in name(),
        address in any::<IpAddr>(),
        millis in any::<u32>(),
        boot_id in name(),
        kind in prop_oneof![Just(RestKind::Cooling), Just(RestKind::Leaving)],
    ) -> RestRecord {
        let since = Duration::from_millis(millis.into());
        RestRecord { eni: EniId::new(eni), address, since, boot_id, kind }
    }
}

prop_compose! {
    fn assign()(
        token in "[a-z0-9-]{1,64}",
        eni in "[a-z0-9-]{1,64}",
        lot in prop::sample::select(Lot::ALL.as_slice()),
        count in 1u32..50,
    ) -> AssignRecord {
        let [token, eni] = [token, eni].map(|text| ClientToken::try_from(text).unwrap());
        AssignRecord { token, eni, lot, count }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let uplink = (1u32..127, pair()).prop_map(|(number, gateway)| Uplink { number, gateway });
    let owner = (sandbox_key(), pod(), name());
    let owner =
        owner.prop_map(|(sandbox, pod, pod_networking)| Owner { sandbox, pod, pod_networking });
    prop_oneof![
        4 => sandbox().prop_map(|record| Change::PutSandbox(Box::new(record))),
        1 => sandbox_key().prop_map(Change::RemoveSandbox),
        4 => (eni(), uplink).prop_map(|(eni, uplink)| Change::PutEni(Box::new(owned(eni, uplink)))),
        4 => (eni(), owner).prop_map(|(eni, owner)| Change::PutMember(Box::new(owned(eni, owner)))),
        4 => rest().prop_map(Change::PutRest),
        4 => assign().prop_map(Change::PutAssign),
        1 => Just(Change::Warmed),
    ]
}

/// What a list of changes comes to, in the order of the file.
#[derive(Default)]
struct Expected {
    sandboxes: BTreeMap<String, SandboxRecord>,
    enis: BTreeMap<String, EniRecord>,
    members: BTreeMap<String, MemberRecord>,
    rests: BTreeMap<String, RestRecord>,
    assigns: BTreeMap<String, AssignRecord>,
    warmed: bool,
}

impl Expected {
    fn apply(&mut self, change: Change) {
        let sandbox = |key: &SandboxKey| {
            format!("{}\u{1f}{}\u{1f}{}", key.network, key.container_id, key.ifname)
        };
        let rest = |eni: &EniId, address: IpAddr| format!("{eni}\u{1f}{address}");
        match change {
            Change::PutSandbox(record) => {
                self.sandboxes.insert(sandbox(&record.pod.spec.key), *record);
            }
            Change::RemoveSandbox(key) => drop(self.sandboxes.remove(&sandbox(&key))),
            Change::PutEni(record) => drop(self.enis.insert(record.token.to_string(), *record)),
            Change::RemoveEni(token) => drop(self.enis.remove(token.as_str())),
            Change::PutMember(record) => {
                self.members.insert(record.token.to_string(), *record);
            }
            Change::RemoveMember(token) => drop(self.members.remove(token.as_str())),
            Change::PutRest(record) => {
                self.rests.insert(rest(&record.eni, record.address), record);
            }
            Change::RemoveRest(eni, address) => drop(self.rests.remove(&rest(&eni, address))),
            Change::PutAssign(record) => {
                self.assigns.insert(record.token.to_string(), record);
            }
            Change::RemoveAssign(token) => drop(self.assigns.remove(token.as_str())),
            Change::Warmed => self.warmed = true,
        }
    }

    fn contents(self) -> Contents {
        Contents {
            sandboxes: self.sandboxes.into_values().collect(),
            enis: self.enis.into_values().collect(),
            members: self.members.into_values().collect(),
            rests: self.rests.into_values().collect(),
            assigns: self.assigns.into_values().collect(),
            warmed: self.warmed,
        }
    }
}

/// Removes again a part of what was put.
fn with_removals(changes: Vec<Change>, mask: u64) -> Vec<Change> {
    let removals: Vec<Change> = changes
        .iter()
        .enumerate()
        .filter(|(n, _)| (mask >> (n % 64)) & 1 == 1)
        .map(|(_, change)| match change {
            Change::PutSandbox(record) => Change::RemoveSandbox(record.pod.spec.key.clone()),
            Change::PutEni(record) => Change::RemoveEni(record.token.clone()),
            Change::PutMember(record) => Change::RemoveMember(record.token.clone()),
            Change::PutRest(rest) => Change::RemoveRest(rest.eni.clone(), rest.address),
            Change::PutAssign(assign) => Change::RemoveAssign(assign.token.clone()),
            other => other.clone(),
        })
        .collect();
    changes.into_iter().chain(removals).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_written_and_noted_is_read_again(
        changes in collection::vec(change(), 1..20),
        mask in any::<u64>(),
        notes in any::<u64>(),
    ) {
        let state = tempfile::tempdir().unwrap();
        let changes = with_removals(changes, mask);
        runtime().block_on(async {
            let opened = reopen(&state).await;
            prop_assert_eq!(&opened.contents, &Contents::default());
            for (n, change) in changes.iter().enumerate() {
                if (notes >> (n % 64)) & 1 == 1 {
                    opened.checkpoint.note(vec![change.clone()]);
                } else {
                    opened.checkpoint.write(vec![change.clone()]).await.unwrap();
                }
            }
            drop(opened);
            let mut expected = Expected::default();
            for change in changes {
                expected.apply(change);
            }
            let again = reopen(&state).await;
            prop_assert_eq!(again.contents, expected.contents());
            prop_assert_eq!(again.quarantined, None);
            Ok(())
        })?;
    }

    #[test]
    fn a_torn_file_is_set_aside_or_read_but_never_the_end(
        cut in option::of(0u64..600_000),
        holes in collection::vec((0u64..600_000, collection::vec(any::<u8>(), 1..600)), 0..6),
    ) {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(Checkpoint::FILE);
        runtime().block_on(async {
            let opened = reopen(&state).await;
            let rests = (0..40u8).map(|n| {
                let eni = EniId::new(format!("eni-{n}"));
                let address = IpAddr::from([10, 0, 0, n]);
                let (since, boot_id) = (Duration::from_secs(1), "b".to_owned());
                let kind = RestKind::Cooling;
                Change::PutRest(RestRecord { eni, address, since, boot_id, kind })
            });
            let rests: Vec<_> = rests.collect();
            for half in rests.chunks(20) {
                opened.checkpoint.write(half.to_vec()).await.unwrap();
            }
            drop(opened);
            drop(reopen(&state).await);
            let mut bytes = fs::read(&path).unwrap();
            if let Some(cut) = cut {
                bytes.truncate(usize::try_from(cut).unwrap());
            }
            for (at, hole) in holes {
                let at = usize::try_from(at).unwrap();
                for (byte, new) in bytes.iter_mut().skip(at).zip(hole) {
                    *byte = new;
                }
            }
            let torn = state.path().join("torn");
            fs::write(&torn, &bytes).unwrap();
            fs::rename(&torn, &path).unwrap();
            match Checkpoint::open(state.path(), Duration::from_secs(5)).await {
                Ok(Opened { contents, quarantined: Some(aside), checkpoint }) => {
                    prop_assert_eq!(contents, Contents::default());
                    prop_assert_eq!(fs::read(aside).unwrap().len(), bytes.len());
                    checkpoint.write(vec![]).await.unwrap();
                }
                // An older, whole state is possible where only free pages were hit.
                Ok(Opened { contents, quarantined: None, .. }) => {
                    prop_assert!(contents.rests.len() <= 40);
                }
                Err(error) => {
                    let foreign = matches!(error, CheckpointError::Foreign { .. });
                    prop_assert!(foreign, "{error}: {:?}", error.source());
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn the_file_is_its_owner_s_alone() {
    let parent = tempfile::tempdir().unwrap();
    let state = parent.path().join("var/lib/terway");
    let opened = Checkpoint::open(&state, Duration::ZERO).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join(Checkpoint::FILE)), 0o600);
    drop(opened);
}

#[tokio::test]
async fn a_second_daemon_waits_for_the_first_to_end() {
    let state = tempfile::tempdir().unwrap();
    let first = reopen(&state).await;
    let error = Checkpoint::open(state.path(), Duration::from_millis(200)).await.unwrap_err();
    assert!(error.to_string().contains("is in use by another terwayd, waited 0s"), "{error}");
    let path = state.path().to_owned();
    let second = tokio::spawn(async move { Checkpoint::open(&path, Duration::from_mins(1)).await });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    drop(first);
    assert!(second.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_note_becomes_durable_though_nobody_writes() {
    let state = tempfile::tempdir().unwrap();
    let opened = reopen(&state).await;
    let (eni, address) = (EniId::new("eni-1"), IpAddr::from([10, 0, 0, 1]));
    let (since, boot_id) = (Duration::from_secs(1), "b".to_owned());
    let rest = RestRecord { eni, address, since, boot_id, kind: RestKind::Cooling };
    opened.checkpoint.note(vec![Change::PutRest(rest.clone())]);
    let file = state.path().join(Checkpoint::FILE);
    let noted = async {
        loop {
            // What `kill -9` would leave now.
            let copy = tempfile::tempdir().unwrap();
            fs::copy(&file, copy.path().join(Checkpoint::FILE)).unwrap();
            let rests = reopen(&copy).await.contents.rests;
            if rests == [rest.clone()] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), noted).await.unwrap();
}

#[tokio::test]
async fn what_is_asked_first_is_written_first_whenever_it_is_waited_for() {
    let state = tempfile::tempdir().unwrap();
    let opened = reopen(&state).await;
    let (eni, address) = (EniId::new("eni-1"), IpAddr::from([10, 0, 0, 1]));
    let (since, boot_id) = (Duration::from_secs(1), "b".to_owned());
    let rest = RestRecord { eni: eni.clone(), address, since, boot_id, kind: RestKind::Cooling };
    let put = opened.checkpoint.write(vec![Change::PutRest(rest)]);
    opened.checkpoint.note(vec![Change::RemoveRest(eni, address)]);
    opened.checkpoint.write(Vec::new()).await.unwrap();
    put.await.unwrap();
    drop(opened);
    assert_eq!(reopen(&state).await.contents.rests, []);
}

#[tokio::test]
async fn garbage_is_set_aside_and_a_newer_schema_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(Checkpoint::FILE);
    fs::write(&path, b"this is no checkpoint, but long enough to be one".repeat(100)).unwrap();
    let opened = reopen(&state).await;
    let aside = opened.quarantined.clone().unwrap();
    assert_eq!(aside, state.path().join("checkpoint.redb.torn-0"));
    opened.checkpoint.write(Vec::new()).await.unwrap();
    drop(opened);

    let newer = tempfile::tempdir().unwrap();
    let path = newer.path().join(Checkpoint::FILE);
    {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        transaction.open_table(meta).unwrap().insert("schema", 2).unwrap();
        transaction.commit().unwrap();
    }
    let error = Checkpoint::open(newer.path(), Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("run the version that wrote it"), "{error}");
    assert!(path.exists(), "a file of a newer version was moved away");
}

#[tokio::test]
async fn a_file_of_a_newer_version_that_says_we_can_read_it_is_read_without_what_we_do_not_know() {
    type Table = redb::TableDefinition<'static, &'static str, &'static [u8]>;
    const REST: &str = r#"{"v": 2, "reads": 1, "eni": "eni-1", "address": "10.0.0.1", "since_millis": 7,
        "boot_id": "b", "kind": "cooling", "colour": "blue"}"#;
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(Checkpoint::FILE);
    {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        transaction.open_table(meta).unwrap().insert("schema", 2).unwrap();
        transaction.open_table(meta).unwrap().insert("schema_reads", 1).unwrap();
        let rests = Table::new("rests");
        transaction.open_table(rests).unwrap().insert("eni-1", REST.as_bytes()).unwrap();
        let unknown = Table::new("colours");
        transaction.open_table(unknown).unwrap().insert("eni-1", &b"blue"[..]).unwrap();
        transaction.commit().unwrap();
    }
    let opened = reopen(&state).await;
    assert_eq!(opened.quarantined, None);
    assert_eq!(opened.contents.rests.len(), 1);
    assert_eq!(opened.contents.rests[0].address.to_string(), "10.0.0.1");
    // We write beside it, and the newer daemon finds its file when it comes back.
    opened.checkpoint.write(vec![Change::Warmed]).await.unwrap();
    drop(opened);
    let opened = reopen(&state).await;
    assert!(opened.contents.warmed);
    assert_eq!(opened.contents.rests.len(), 1);
}
