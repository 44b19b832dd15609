//! What we ask of the cloud: one method an action, and what each takes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{
    EniId, InstanceId, InstanceType, InstanceTypeId, SecurityGroupId, VSwitch, VSwitchId, VpcId,
};

use crate::{CallOptions, ClientToken, CloudError, Eni, EniKind, EniStatus};

/// The ECS and VPC API, as far as we need it. [`crate::Client`] is the real one.
///
/// One instance is shared by all tasks (`Arc<impl Ecs>`). Every call ends by its deadline. A call that
/// fails for a passing reason is repeated until then with the same token; so the deadline is also
/// the caller's word on how patient it is.
/// [`CloudError::outcome`] says whether a failed write may have had an effect. What breaks a limit
/// that the API has for one call is refused before it is sent ([`CloudError::NotSent`]).
///
/// A call may be dropped at any time; its place in the queue of a budget is then free. A write that
/// was on its way may have been performed, or may be later: it is as after [`crate::Outcome::Unknown`].
/// Nothing of it is lost, for its token is the caller's: the same request asked again with the same
/// token is the same intent, and is answered with what the first one did. What has no token
/// (attach, detach, delete, unassign) may be asked again, or described.
pub trait Ecs: Send + Sync + 'static {
    /// Makes an ENI; it is `Available` in the answer, with its addresses.
    fn create_eni(
        &self,
        request: &CreateEni,
        options: CallOptions,
    ) -> impl Future<Output = Result<Eni, CloudError>> + Send;

    /// All ENIs that match, page by page. The cloud's reads lag behind its writes, and a list that
    /// was filtered by tag ends at 1,000: absence proves nothing.
    fn describe_enis(
        &self,
        filter: &EniFilter,
        options: CallOptions,
    ) -> impl Future<Output = Result<Vec<Eni>, CloudError>> + Send;

    /// Starts to attach; describe it until it is `InUse`.
    fn attach_eni(
        &self,
        request: &AttachEni,
        options: CallOptions,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Starts to detach; describe it until it is `Available`. An ENI or instance that the cloud
    /// does not know counts as success of the binding's release, and says nothing of the ENI.
    fn detach_eni(
        &self,
        request: &DetachEni,
        options: CallOptions,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Deletes an ENI; one that the cloud does not know is success.
    fn delete_eni(
        &self,
        eni: &EniId,
        options: CallOptions,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Adds secondary IPv4 addresses, and says which.
    fn assign_v4(
        &self,
        request: &AssignAddresses<Ipv4Addr>,
        options: CallOptions,
    ) -> impl Future<Output = Result<Vec<Ipv4Addr>, CloudError>> + Send;

    /// Takes secondary IPv4 addresses away. Success when the ENI is unknown, or when there is only
    /// one address and it is not assigned; of several, the cloud refuses all if it knows one not:
    /// then describe the ENI.
    fn unassign_v4(
        &self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        options: CallOptions,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Adds IPv6 addresses, and says which.
    fn assign_v6(
        &self,
        request: &AssignAddresses<Ipv6Addr>,
        options: CallOptions,
    ) -> impl Future<Output = Result<Vec<Ipv6Addr>, CloudError>> + Send;

    /// Takes IPv6 addresses away; see [`Ecs::unassign_v4`].
    fn unassign_v6(
        &self,
        eni: &EniId,
        addresses: &[Ipv6Addr],
        options: CallOptions,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Adds IPv4 prefixes (a /28 each), and says which.
    fn assign_v4_prefixes(
        &self,
        request: &AssignPrefixes,
        options: CallOptions,
    ) -> impl Future<Output = Result<Vec<Ipv4Network>, CloudError>> + Send;

    /// Takes IPv4 prefixes away; see [`Ecs::unassign_v4`].
    fn unassign_v4_prefixes(
        &self,
        eni: &EniId,
        prefixes: &[Ipv4Network],
        options: CallOptions,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Adds IPv6 prefixes (a /80 each), and says which.
    fn assign_v6_prefixes(
        &self,
        request: &AssignPrefixes,
        options: CallOptions,
    ) -> impl Future<Output = Result<Vec<Ipv6Network>, CloudError>> + Send;

    /// Takes IPv6 prefixes away; see [`Ecs::unassign_v4`].
    fn unassign_v6_prefixes(
        &self,
        eni: &EniId,
        prefixes: &[Ipv6Network],
        options: CallOptions,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// The quotas of an instance type; `None` when the cloud does not know it.
    fn instance_type(
        &self,
        id: &InstanceTypeId,
        options: CallOptions,
    ) -> impl Future<Output = Result<Option<InstanceType>, CloudError>> + Send;

    /// A vSwitch; `None` when the cloud does not know it.
    fn vswitch(
        &self,
        id: &VSwitchId,
        options: CallOptions,
    ) -> impl Future<Output = Result<Option<VSwitch>, CloudError>> + Send;
}

/// A new ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateEni {
    /// The intent.
    pub token: ClientToken,
    /// What it will be.
    pub kind: NewEni,
    /// Where.
    pub vswitch: VSwitchId,
    /// 1 to 10 groups of the vSwitch's VPC.
    pub security_groups: Vec<SecurityGroupId>,
    /// IPv4 addresses beside the primary one, at most 49.
    pub secondary_v4: u32,
    /// IPv6 addresses, at most 10.
    pub v6: u32,
    /// IPv4 prefixes (a /28 each), at most 10; the API takes them instead of `secondary_v4`.
    pub v4_prefixes: u32,
    /// IPv6 prefixes (a /80 each), at most 10; the API takes them instead of `v6`.
    pub v6_prefixes: u32,
    /// Who collects it, and the user's.
    pub tags: BTreeMap<String, String>,
    /// The resource group; the account's default if `None`.
    pub resource_group: Option<String>,
    /// Whether it goes when its instance is released.
    pub delete_on_release: bool,
    /// Whether the VPC drops sources that are not assigned to it.
    pub source_dest_check: bool,
    /// What a person reads in the console.
    pub description: Option<String>,
}

/// What a new ENI will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NewEni {
    /// A NIC of its own, or a member of a trunk.
    Secondary,
    /// A trunk.
    Trunk,
}

/// Which ENIs: all of these hold at once; nothing set is all of the region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EniFilter {
    /// Only these, if there is any; at most 100.
    pub ids: Vec<EniId>,
    /// Attached to this instance, members included.
    pub instance: Option<InstanceId>,
    /// In this VPC.
    pub vpc: Option<VpcId>,
    /// Of this kind.
    pub kind: Option<EniKind>,
    /// In this state.
    pub status: Option<EniStatus>,
    /// With all these tags.
    pub tags: BTreeMap<String, String>,
}

impl EniFilter {
    /// Just this one.
    pub fn id(id: EniId) -> Self {
        Self { ids: vec![id], ..Self::default() }
    }

    /// All of an instance.
    pub fn instance(instance: InstanceId) -> Self {
        Self { instance: Some(instance), ..Self::default() }
    }
}

/// An attachment to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachEni {
    /// What.
    pub eni: EniId,
    /// Where.
    pub instance: InstanceId,
    /// The trunk, for a member.
    pub trunk: Option<EniId>,
    /// The instance's network card; the cloud chooses if `None`.
    pub network_card: Option<u32>,
}

/// An attachment to undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachEni {
    /// What.
    pub eni: EniId,
    /// From where.
    pub instance: InstanceId,
    /// The trunk, for a member.
    pub trunk: Option<EniId>,
}

/// Addresses to add to an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignAddresses<A> {
    /// The intent.
    pub token: ClientToken,
    /// To which.
    pub eni: EniId,
    /// How many, or which.
    pub addresses: AddressRequest<A>,
}

/// Prefixes to add to an ENI: as many of the cloud's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignPrefixes {
    /// The intent.
    pub token: ClientToken,
    /// To which.
    pub eni: EniId,
    /// How many, 1 to 10.
    pub count: u32,
}

/// How many addresses, or which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressRequest<A> {
    /// As many, of the cloud's choice.
    Any(u32),
    /// Just these.
    These(Vec<A>),
}
