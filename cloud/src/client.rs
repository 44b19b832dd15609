//! [`Ecs`] by the real API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{EniId, InstanceType, InstanceTypeId, VSwitch, VSwitchId};

use crate::answer::{
    AssignedV4, AssignedV4Prefixes, AssignedV6, AssignedV6Prefixes, DescribedInstanceTypes,
    DescribedVSwitches, Done, Misread, NetworkInterface, NetworkInterfaces,
};
use crate::bounds;
use crate::request::{self, List, Parameters};
use crate::{
    Action, AssignAddresses, AssignPrefixes, AttachEni, CallOptions, Client, CloudError, CreateEni,
    DetachEni, Ecs, Eni, EniFilter, Meaning, Thing,
};

impl Ecs for Client {
    async fn create_eni(
        &self,
        request: &CreateEni,
        options: CallOptions,
    ) -> Result<Eni, CloudError> {
        bounds::create_eni(request)?;
        let parameters = request::create_eni(&self.region, request);
        let action = Action::CreateNetworkInterface;
        self.call(action, &parameters, options, NetworkInterface::read).await
    }

    async fn describe_enis(
        &self,
        filter: &EniFilter,
        options: CallOptions,
    ) -> Result<Vec<Eni>, CloudError> {
        bounds::describe_enis(filter)?;
        let all = request::describe_enis(&self.region, filter);
        let mut enis = BTreeMap::new();
        let mut token: Option<String> = None;
        let mut seen = BTreeSet::new();
        loop {
            let page = all.clone().with_some("NextToken", token.as_ref());
            let action = Action::DescribeNetworkInterfaces;
            let (found, next) = self.call(action, &page, options, NetworkInterfaces::read).await?;
            enis.extend(found.into_iter().map(|eni| (eni.id.clone(), eni)));
            let Some(next) = next else { return Ok(enis.into_values().collect()) };
            if !seen.insert(next.clone()) {
                return Err(same_page(action, next));
            }
            token = Some(next);
        }
    }

    async fn attach_eni(
        &self,
        request: &AttachEni,
        options: CallOptions,
    ) -> Result<(), CloudError> {
        let parameters = request::attach_eni(&self.region, request);
        self.act(Action::AttachNetworkInterface, &parameters, options).await
    }

    async fn detach_eni(
        &self,
        request: &DetachEni,
        options: CallOptions,
    ) -> Result<(), CloudError> {
        let parameters = request::detach_eni(&self.region, request);
        let result = self.act(Action::DetachNetworkInterface, &parameters, options).await;
        unless_gone(result, &[Thing::Eni, Thing::Instance])
    }

    async fn delete_eni(&self, eni: &EniId, options: CallOptions) -> Result<(), CloudError> {
        let parameters = request::delete_eni(&self.region, eni);
        let result = self.act(Action::DeleteNetworkInterface, &parameters, options).await;
        unless_gone(result, &[Thing::Eni])
    }

    async fn assign_v4(
        &self,
        request: &AssignAddresses<Ipv4Addr>,
        options: CallOptions,
    ) -> Result<Vec<Ipv4Addr>, CloudError> {
        bounds::assign(List::V4, request)?;
        let parameters = request::assign(&self.region, List::V4, request);
        let action = Action::AssignPrivateIpAddresses;
        self.call(action, &parameters, options, AssignedV4::read).await
    }

    async fn unassign_v4(
        &self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        options: CallOptions,
    ) -> Result<(), CloudError> {
        bounds::unassign(List::V4, addresses)?;
        let parameters = request::unassign(&self.region, List::V4, eni, addresses);
        let result = self.act(Action::UnassignPrivateIpAddresses, &parameters, options).await;
        unless_gone(result, unassigned(addresses))
    }

    async fn assign_v6(
        &self,
        request: &AssignAddresses<Ipv6Addr>,
        options: CallOptions,
    ) -> Result<Vec<Ipv6Addr>, CloudError> {
        bounds::assign(List::V6, request)?;
        let parameters = request::assign(&self.region, List::V6, request);
        self.call(Action::AssignIpv6Addresses, &parameters, options, AssignedV6::read).await
    }

    async fn unassign_v6(
        &self,
        eni: &EniId,
        addresses: &[Ipv6Addr],
        options: CallOptions,
    ) -> Result<(), CloudError> {
        bounds::unassign(List::V6, addresses)?;
        let parameters = request::unassign(&self.region, List::V6, eni, addresses);
        let result = self.act(Action::UnassignIpv6Addresses, &parameters, options).await;
        unless_gone(result, unassigned(addresses))
    }

    async fn assign_v4_prefixes(
        &self,
        request: &AssignPrefixes,
        options: CallOptions,
    ) -> Result<Vec<Ipv4Network>, CloudError> {
        bounds::assign_prefixes(List::V4_PREFIXES, request)?;
        let parameters = request::assign_prefixes(&self.region, List::V4_PREFIXES, request);
        let action = Action::AssignPrivateIpAddresses;
        self.call(action, &parameters, options, AssignedV4Prefixes::read).await
    }

    async fn unassign_v4_prefixes(
        &self,
        eni: &EniId,
        prefixes: &[Ipv4Network],
        options: CallOptions,
    ) -> Result<(), CloudError> {
        bounds::unassign(List::V4_PREFIXES, prefixes)?;
        let parameters = request::unassign(&self.region, List::V4_PREFIXES, eni, prefixes);
        let result = self.act(Action::UnassignPrivateIpAddresses, &parameters, options).await;
        unless_gone(result, unassigned(prefixes))
    }

    async fn assign_v6_prefixes(
        &self,
        request: &AssignPrefixes,
        options: CallOptions,
    ) -> Result<Vec<Ipv6Network>, CloudError> {
        bounds::assign_prefixes(List::V6_PREFIXES, request)?;
        let parameters = request::assign_prefixes(&self.region, List::V6_PREFIXES, request);
        self.call(Action::AssignIpv6Addresses, &parameters, options, AssignedV6Prefixes::read).await
    }

    async fn unassign_v6_prefixes(
        &self,
        eni: &EniId,
        prefixes: &[Ipv6Network],
        options: CallOptions,
    ) -> Result<(), CloudError> {
        bounds::unassign(List::V6_PREFIXES, prefixes)?;
        let parameters = request::unassign(&self.region, List::V6_PREFIXES, eni, prefixes);
        let result = self.act(Action::UnassignIpv6Addresses, &parameters, options).await;
        unless_gone(result, unassigned(prefixes))
    }

    async fn instance_type(
        &self,
        id: &InstanceTypeId,
        options: CallOptions,
    ) -> Result<Option<InstanceType>, CloudError> {
        let parameters = request::instance_types(id);
        let action = Action::DescribeInstanceTypes;
        match self.call(action, &parameters, options, Ok::<DescribedInstanceTypes, Misread>).await {
            Ok(types) => Ok(types.find(id)),
            Err(error) if is_gone(&error, &[Thing::InstanceType]) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn vswitch(
        &self,
        id: &VSwitchId,
        options: CallOptions,
    ) -> Result<Option<VSwitch>, CloudError> {
        let parameters = request::vswitches(&self.region, id);
        let action = Action::DescribeVSwitches;
        let result = self.call(action, &parameters, options, DescribedVSwitches::read).await;
        match result {
            Ok(vswitches) => Ok(vswitches.into_iter().find(|vswitch| &vswitch.id == id)),
            Err(error) if is_gone(&error, &[Thing::VSwitch]) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Client {
    /// A write that answers only that it was done.
    async fn act(
        &self,
        action: Action,
        parameters: &Parameters,
        options: CallOptions,
    ) -> Result<(), CloudError> {
        self.call(action, parameters, options, |_: Done| Ok(())).await
    }
}

/// What an unassign's refusal may name without harm. Of several addresses the cloud refuses all
/// when one is not there, and the others remain.
const fn unassigned<A>(addresses: &[A]) -> &'static [Thing] {
    match addresses {
        [_] => &[Thing::Eni, Thing::Address],
        _ => &[Thing::Eni],
    }
}

/// A release of what is not there is done.
fn unless_gone(result: Result<(), CloudError>, things: &[Thing]) -> Result<(), CloudError> {
    match result {
        Err(error) if is_gone(&error, things) => Ok(()),
        other => other,
    }
}

fn is_gone(error: &CloudError, things: &[Thing]) -> bool {
    matches!(error.meaning(), Some(Meaning::NotFound(thing)) if things.contains(thing))
}

fn same_page(action: Action, token: String) -> CloudError {
    let reason = "NextToken is one of before".to_owned();
    CloudError::Garbage { action, status: 200, reason, body: token, last: None }
}
