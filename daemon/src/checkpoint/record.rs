//! The records as they lie in the file: types of their own, so that neither a change of a domain
//! type nor a typo changes what an older file means. JSON, for people can read it; `v` is the
//! version of the record.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use cloud::ClientToken;
use controlplane::{Binding, Eni, EniSpec, Goal, Kind, Owner, Stage};
use model::{
    EniId, IpPair, IpStack, LinkIndex, Mac, Mode, OutOfRange, PodRef, SandboxKey, SecurityGroupId,
    VSwitchId, VlanId,
};
use serde::{Deserialize, Serialize};

use super::{AssignRecord, Phase, RestKind, RestRecord, SandboxRecord};
use crate::bpf::MemberMacs;
use crate::datapath::{MemberSpec, Pod, PodLink, PodSpec};
use crate::ipam::{Allocation, EniRecord, Lot, MemberRecord, Uplink};

/// A record with its version.
#[derive(Debug, Serialize)]
pub(super) struct Versioned<T> {
    v: u32,
    /// The oldest version that reads it, passing over what it does not know.
    reads: u32,
    #[serde(flatten)]
    record: T,
}

/// What a record is not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("version {0} of a record is not known to this terwayd")]
    Version(u32),
    #[error("not a record")]
    Json(#[from] serde_json::Error),
    #[error("a value is no value")]
    Value(#[from] OutOfRange),
    #[error("no address")]
    NoAddress,
}

const VERSION: u32 = 1;
/// A record that only gained fields keeps this; one that means something else raises it.
const READABLE_SINCE: u32 = 1;

/// A domain type with a record.
pub(super) trait Recorded: Sized {
    /// Its form in the file.
    type Record: Serialize + for<'de> Deserialize<'de>;

    fn to_record(&self) -> Self::Record;
    fn from_record(record: Self::Record) -> Result<Self, Unreadable>;

    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let (v, reads) = (VERSION, READABLE_SINCE);
        serde_json::to_vec(&Versioned { v, reads, record: self.to_record() })
    }

    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Head {
            v: u32,
            reads: Option<u32>,
        }
        // The version first: a newer record may be of any other form.
        let Head { v, reads } = serde_json::from_slice(bytes)?;
        if reads.unwrap_or(v) > VERSION {
            return Err(Unreadable::Version(v));
        }
        Self::from_record(serde_json::from_slice(bytes)?)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    network: String,
    container_id: String,
    ifname: String,
}

impl From<&SandboxKey> for KeyRecord {
    fn from(key: &SandboxKey) -> Self {
        let SandboxKey { network, container_id, ifname } = key.clone();
        Self { network, container_id, ifname }
    }
}

impl From<KeyRecord> for SandboxKey {
    fn from(record: KeyRecord) -> Self {
        let KeyRecord { network, container_id, ifname } = record;
        Self { network, container_id, ifname }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PodRefRecord {
    namespace: String,
    name: String,
    uid: Option<String>,
}

impl From<&PodRef> for PodRefRecord {
    fn from(pod: &PodRef) -> Self {
        let PodRef { namespace, name, uid } = pod.clone();
        Self { namespace, name, uid }
    }
}

impl From<PodRefRecord> for PodRef {
    fn from(record: PodRefRecord) -> Self {
        let PodRefRecord { namespace, name, uid } = record;
        Self { namespace, name, uid }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PairRecord {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl From<IpPair> for PairRecord {
    fn from(pair: IpPair) -> Self {
        Self { v4: pair.v4(), v6: pair.v6() }
    }
}

impl TryFrom<PairRecord> for IpPair {
    type Error = Unreadable;

    fn try_from(record: PairRecord) -> Result<Self, Unreadable> {
        Self::new(record.v4, record.v6).ok_or(Unreadable::NoAddress)
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PhaseRecord {
    Adding,
    Up,
    Deleting,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeRecord {
    Shared,
    Trunk,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxForm {
    phase: PhaseRecord,
    key: KeyRecord,
    pod: Option<PodRefRecord>,
    netns: PathBuf,
    mtu_asked: Option<u32>,
    mac_asked: Option<String>,
    link: LinkForm,
    allocation: AllocationForm,
    member_macs: Option<MacsForm>,
    add_micros: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LinkForm {
    host: String,
    host_index: u32,
    host_mac: String,
    pod_index: u32,
    pod_mac: String,
    mtu: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct AllocationForm {
    mode: ModeRecord,
    addresses: PairRecord,
    eni: String,
    parent: String,
    vlan: Option<u16>,
    mac: String,
    security_groups: Vec<String>,
    pod_networking: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct MacsForm {
    member: String,
    gateway: String,
}

impl Recorded for SandboxRecord {
    type Record = SandboxForm;

    fn to_record(&self) -> SandboxForm {
        let PodSpec { key, pod, netns, mtu, mac, member, .. } = &self.pod.spec;
        let macs = member.as_ref().and_then(|member| member.macs);
        SandboxForm {
            phase: match self.phase {
                Phase::Adding => PhaseRecord::Adding,
                Phase::Up => PhaseRecord::Up,
                Phase::Deleting => PhaseRecord::Deleting,
            },
            key: key.into(),
            pod: pod.as_ref().map(PodRefRecord::from),
            netns: netns.clone(),
            mtu_asked: *mtu,
            mac_asked: mac.map(|mac| mac.to_string()),
            link: link_form(&self.pod.link),
            allocation: allocation_form(&self.allocation),
            member_macs: macs.map(|macs| MacsForm {
                member: macs.member.to_string(),
                gateway: macs.gateway.to_string(),
            }),
            add_micros: u64::try_from(self.add_time.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn from_record(form: SandboxForm) -> Result<Self, Unreadable> {
        let allocation = allocation(form.allocation)?;
        let macs = form.member_macs.map(|macs| {
            let (member, gateway) = (macs.member.parse()?, macs.gateway.parse()?);
            Ok::<_, OutOfRange>(MemberMacs { member, gateway })
        });
        let macs = macs.transpose()?;
        let key = SandboxKey::from(form.key);
        let spec = PodSpec {
            ifname: key.ifname.parse()?,
            key,
            pod: form.pod.map(PodRef::from),
            netns: form.netns,
            addresses: allocation.addresses,
            eni: allocation.parent.clone(),
            member: allocation.vlan.map(|vlan| MemberSpec { vlan, macs }),
            mtu: form.mtu_asked,
            mac: form.mac_asked.as_deref().map(str::parse::<Mac>).transpose()?,
        };
        Ok(Self {
            phase: match form.phase {
                PhaseRecord::Adding => Phase::Adding,
                PhaseRecord::Up => Phase::Up,
                PhaseRecord::Deleting => Phase::Deleting,
            },
            pod: Pod { spec, link: link(&form.link)? },
            allocation,
            add_time: Duration::from_micros(form.add_micros),
        })
    }
}

fn link_form(link: &PodLink) -> LinkForm {
    LinkForm {
        host: link.host.to_string(),
        host_index: link.host_index.get(),
        host_mac: link.host_mac.to_string(),
        pod_index: link.pod_index.get(),
        pod_mac: link.pod_mac.to_string(),
        mtu: link.mtu,
    }
}

fn link(form: &LinkForm) -> Result<PodLink, Unreadable> {
    Ok(PodLink {
        host: form.host.parse()?,
        host_index: LinkIndex::try_from(form.host_index)?,
        host_mac: form.host_mac.parse()?,
        pod_index: LinkIndex::try_from(form.pod_index)?,
        pod_mac: form.pod_mac.parse()?,
        mtu: form.mtu,
    })
}

fn allocation_form(allocation: &Allocation) -> AllocationForm {
    let groups = allocation.security_groups.iter();
    AllocationForm {
        mode: match allocation.mode {
            Mode::Shared => ModeRecord::Shared,
            Mode::Trunk => ModeRecord::Trunk,
        },
        addresses: allocation.addresses.into(),
        eni: allocation.eni.to_string(),
        parent: allocation.parent.to_string(),
        vlan: allocation.vlan.map(VlanId::get),
        mac: allocation.mac.to_string(),
        security_groups: groups.map(ToString::to_string).collect(),
        pod_networking: allocation.pod_networking.clone(),
    }
}

fn allocation(form: AllocationForm) -> Result<Allocation, Unreadable> {
    Ok(Allocation {
        mode: match form.mode {
            ModeRecord::Shared => Mode::Shared,
            ModeRecord::Trunk => Mode::Trunk,
        },
        addresses: form.addresses.try_into()?,
        eni: EniId::new(form.eni),
        parent: EniId::new(form.parent),
        vlan: form.vlan.map(|vlan| VlanId::try_from(u32::from(vlan))).transpose()?,
        mac: form.mac.parse()?,
        security_groups: form.security_groups.into_iter().map(SecurityGroupId::new).collect(),
        pod_networking: form.pod_networking,
    })
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EniForm<T> {
    token: String,
    kind: KindForm,
    vswitch: String,
    security_groups: Vec<String>,
    stack: String,
    v4: u32,
    v6: u32,
    #[serde(default)]
    v4_prefixes: u32,
    #[serde(default)]
    v6_prefixes: u32,
    tags: BTreeMap<String, String>,
    resource_group: Option<String>,
    source_dest_check: bool,
    goal: GoalForm,
    stage: StageForm,
    owner: T,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindForm {
    Secondary,
    Trunk,
    Member { trunk: String },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum GoalForm {
    Bound,
    Gone,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StageForm {
    Intended,
    Made { id: String },
    Bound { id: String, mac: String, addresses: PairRecord, vlan: Option<u16> },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UplinkForm {
    number: u32,
    gateway: PairRecord,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OwnerForm {
    sandbox: KeyRecord,
    pod: Option<PodRefRecord>,
    pod_networking: String,
}

impl Recorded for EniRecord {
    type Record = EniForm<UplinkForm>;

    fn to_record(&self) -> Self::Record {
        let Uplink { number, gateway } = self.owner;
        eni_form(self, UplinkForm { number, gateway: gateway.into() })
    }

    fn from_record(form: Self::Record) -> Result<Self, Unreadable> {
        let UplinkForm { number, gateway } = form.owner.clone();
        eni(form, Uplink { number, gateway: gateway.try_into()? })
    }
}

impl Recorded for MemberRecord {
    type Record = EniForm<OwnerForm>;

    fn to_record(&self) -> Self::Record {
        let Owner { sandbox, pod, pod_networking } = &self.owner;
        let owner = OwnerForm {
            sandbox: sandbox.into(),
            pod: pod.as_ref().map(PodRefRecord::from),
            pod_networking: pod_networking.clone(),
        };
        eni_form(self, owner)
    }

    fn from_record(form: Self::Record) -> Result<Self, Unreadable> {
        let OwnerForm { sandbox, pod, pod_networking } = form.owner.clone();
        let owner = Owner { sandbox: sandbox.into(), pod: pod.map(PodRef::from), pod_networking };
        eni(form, owner)
    }
}

fn eni_form<T, F>(eni: &Eni<T>, owner: F) -> EniForm<F> {
    let EniSpec {
        kind,
        vswitch,
        security_groups,
        stack,
        v4,
        v6,
        v4_prefixes,
        v6_prefixes,
        tags,
        resource_group,
        source_dest_check,
    } = &eni.spec;
    EniForm {
        token: eni.token.to_string(),
        kind: match kind {
            Kind::Secondary => KindForm::Secondary,
            Kind::Trunk => KindForm::Trunk,
            Kind::Member(trunk) => KindForm::Member { trunk: trunk.to_string() },
        },
        vswitch: vswitch.to_string(),
        security_groups: security_groups.iter().map(ToString::to_string).collect(),
        stack: stack.to_string(),
        v4: *v4,
        v6: *v6,
        v4_prefixes: *v4_prefixes,
        v6_prefixes: *v6_prefixes,
        tags: tags.clone(),
        resource_group: resource_group.clone(),
        source_dest_check: *source_dest_check,
        goal: match eni.goal {
            Goal::Bound => GoalForm::Bound,
            Goal::Gone => GoalForm::Gone,
        },
        stage: match &eni.stage {
            Stage::Intended => StageForm::Intended,
            Stage::Made(id) => StageForm::Made { id: id.to_string() },
            Stage::Bound(Binding { id, mac, addresses, vlan }) => StageForm::Bound {
                id: id.to_string(),
                mac: mac.to_string(),
                addresses: (*addresses).into(),
                vlan: vlan.map(VlanId::get),
            },
        },
        owner,
    }
}

fn eni<T, F>(form: EniForm<F>, owner: T) -> Result<Eni<T>, Unreadable> {
    let spec = EniSpec {
        kind: match form.kind {
            KindForm::Secondary => Kind::Secondary,
            KindForm::Trunk => Kind::Trunk,
            KindForm::Member { trunk } => Kind::Member(EniId::new(trunk)),
        },
        vswitch: VSwitchId::new(form.vswitch),
        security_groups: form.security_groups.into_iter().map(SecurityGroupId::new).collect(),
        stack: form.stack.parse::<IpStack>()?,
        v4: form.v4,
        v6: form.v6,
        v4_prefixes: form.v4_prefixes,
        v6_prefixes: form.v6_prefixes,
        tags: form.tags,
        resource_group: form.resource_group,
        source_dest_check: form.source_dest_check,
    };
    let goal = match form.goal {
        GoalForm::Bound => Goal::Bound,
        GoalForm::Gone => Goal::Gone,
    };
    let stage = match form.stage {
        StageForm::Intended => Stage::Intended,
        StageForm::Made { id } => Stage::Made(EniId::new(id)),
        StageForm::Bound { id, mac, addresses, vlan } => Stage::Bound(Binding {
            id: EniId::new(id),
            mac: mac.parse()?,
            addresses: addresses.try_into()?,
            vlan: vlan.map(|vlan| VlanId::try_from(u32::from(vlan))).transpose()?,
        }),
    };
    Ok(Eni { token: ClientToken::try_from(form.token)?, spec, goal, stage, owner })
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RestForm {
    eni: String,
    address: IpAddr,
    since_millis: u64,
    boot_id: String,
    kind: RestKindForm,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RestKindForm {
    Cooling,
    Leaving,
}

impl Recorded for RestRecord {
    type Record = RestForm;

    fn to_record(&self) -> RestForm {
        RestForm {
            eni: self.eni.to_string(),
            address: self.address,
            since_millis: u64::try_from(self.since.as_millis()).unwrap_or(u64::MAX),
            boot_id: self.boot_id.clone(),
            kind: match self.kind {
                RestKind::Cooling => RestKindForm::Cooling,
                RestKind::Leaving => RestKindForm::Leaving,
            },
        }
    }

    fn from_record(form: RestForm) -> Result<Self, Unreadable> {
        Ok(Self {
            eni: EniId::new(form.eni),
            address: form.address,
            since: Duration::from_millis(form.since_millis),
            boot_id: form.boot_id,
            kind: match form.kind {
                RestKindForm::Cooling => RestKind::Cooling,
                RestKindForm::Leaving => RestKind::Leaving,
            },
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AssignForm {
    token: String,
    eni: String,
    lot: LotForm,
    count: u32,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LotForm {
    V4,
    V6,
    V4Prefix,
    V6Prefix,
}

impl Recorded for AssignRecord {
    type Record = AssignForm;

    fn to_record(&self) -> AssignForm {
        AssignForm {
            token: self.token.to_string(),
            eni: self.eni.to_string(),
            lot: match self.lot {
                Lot::V4 => LotForm::V4,
                Lot::V6 => LotForm::V6,
                Lot::V4Prefix => LotForm::V4Prefix,
                Lot::V6Prefix => LotForm::V6Prefix,
            },
            count: self.count,
        }
    }

    fn from_record(form: AssignForm) -> Result<Self, Unreadable> {
        Ok(Self {
            token: ClientToken::try_from(form.token)?,
            eni: ClientToken::try_from(form.eni)?,
            lot: match form.lot {
                LotForm::V4 => Lot::V4,
                LotForm::V6 => Lot::V6,
                LotForm::V4Prefix => Lot::V4Prefix,
                LotForm::V6Prefix => Lot::V6Prefix,
            },
            count: form.count,
        })
    }
}
