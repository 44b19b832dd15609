//! Calls to the cloud, counted and timed around the client, whoever that is.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use cloud::{
    Action, AssignAddresses, AssignPrefixes, AttachEni, CallOptions, Client, CloudError, CreateEni,
    DetachEni, Ecs, Eni, EniFilter,
};
use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{EniId, InstanceType, InstanceTypeId, VSwitch, VSwitchId};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;
use tokio::time::Instant;

use super::{CallResult, Metrics, Of, labels};

/// A cloud whose calls are counted and timed.
#[derive(Debug)]
pub struct Measured<E> {
    cloud: Arc<E>,
    metrics: Metrics,
}

impl<E> Measured<E> {
    /// `cloud`, seen through `metrics`.
    pub const fn new(cloud: Arc<E>, metrics: Metrics) -> Self {
        Self { cloud, metrics }
    }

    /// A call whose answer nobody waits for any more is not counted.
    async fn measure<T>(
        &self,
        action: Action,
        call: impl Future<Output = Result<T, CloudError>> + Send,
    ) -> Result<T, CloudError> {
        let begun = Instant::now();
        let result = call.await;
        self.metrics.cloud_call(action, CallResult::from(&result), begun.elapsed());
        result
    }
}

impl<E: Ecs> Ecs for Measured<E> {
    async fn create_eni(
        &self,
        request: &CreateEni,
        options: CallOptions,
    ) -> Result<Eni, CloudError> {
        let call = self.cloud.create_eni(request, options);
        self.measure(Action::CreateNetworkInterface, call).await
    }

    async fn describe_enis(
        &self,
        filter: &EniFilter,
        options: CallOptions,
    ) -> Result<Vec<Eni>, CloudError> {
        let call = self.cloud.describe_enis(filter, options);
        self.measure(Action::DescribeNetworkInterfaces, call).await
    }

    async fn attach_eni(
        &self,
        request: &AttachEni,
        options: CallOptions,
    ) -> Result<(), CloudError> {
        let call = self.cloud.attach_eni(request, options);
        self.measure(Action::AttachNetworkInterface, call).await
    }

    async fn detach_eni(
        &self,
        request: &DetachEni,
        options: CallOptions,
    ) -> Result<(), CloudError> {
        let call = self.cloud.detach_eni(request, options);
        self.measure(Action::DetachNetworkInterface, call).await
    }

    async fn delete_eni(&self, eni: &EniId, options: CallOptions) -> Result<(), CloudError> {
        let call = self.cloud.delete_eni(eni, options);
        self.measure(Action::DeleteNetworkInterface, call).await
    }

    async fn assign_v4(
        &self,
        request: &AssignAddresses<Ipv4Addr>,
        options: CallOptions,
    ) -> Result<Vec<Ipv4Addr>, CloudError> {
        let call = self.cloud.assign_v4(request, options);
        self.measure(Action::AssignPrivateIpAddresses, call).await
    }

    async fn unassign_v4(
        &self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        options: CallOptions,
    ) -> Result<(), CloudError> {
        let call = self.cloud.unassign_v4(eni, addresses, options);
        self.measure(Action::UnassignPrivateIpAddresses, call).await
    }

    async fn assign_v6(
        &self,
        request: &AssignAddresses<Ipv6Addr>,
        options: CallOptions,
    ) -> Result<Vec<Ipv6Addr>, CloudError> {
        let call = self.cloud.assign_v6(request, options);
        self.measure(Action::AssignIpv6Addresses, call).await
    }

    async fn unassign_v6(
        &self,
        eni: &EniId,
        addresses: &[Ipv6Addr],
        options: CallOptions,
    ) -> Result<(), CloudError> {
        let call = self.cloud.unassign_v6(eni, addresses, options);
        self.measure(Action::UnassignIpv6Addresses, call).await
    }

    async fn assign_v4_prefixes(
        &self,
        request: &AssignPrefixes,
        options: CallOptions,
    ) -> Result<Vec<Ipv4Network>, CloudError> {
        let call = self.cloud.assign_v4_prefixes(request, options);
        self.measure(Action::AssignPrivateIpAddresses, call).await
    }

    async fn unassign_v4_prefixes(
        &self,
        eni: &EniId,
        prefixes: &[Ipv4Network],
        options: CallOptions,
    ) -> Result<(), CloudError> {
        let call = self.cloud.unassign_v4_prefixes(eni, prefixes, options);
        self.measure(Action::UnassignPrivateIpAddresses, call).await
    }

    async fn assign_v6_prefixes(
        &self,
        request: &AssignPrefixes,
        options: CallOptions,
    ) -> Result<Vec<Ipv6Network>, CloudError> {
        let call = self.cloud.assign_v6_prefixes(request, options);
        self.measure(Action::AssignIpv6Addresses, call).await
    }

    async fn unassign_v6_prefixes(
        &self,
        eni: &EniId,
        prefixes: &[Ipv6Network],
        options: CallOptions,
    ) -> Result<(), CloudError> {
        let call = self.cloud.unassign_v6_prefixes(eni, prefixes, options);
        self.measure(Action::UnassignIpv6Addresses, call).await
    }

    async fn instance_type(
        &self,
        id: &InstanceTypeId,
        options: CallOptions,
    ) -> Result<Option<InstanceType>, CloudError> {
        let call = self.cloud.instance_type(id, options);
        self.measure(Action::DescribeInstanceTypes, call).await
    }

    async fn vswitch(
        &self,
        id: &VSwitchId,
        options: CallOptions,
    ) -> Result<Option<VSwitch>, CloudError> {
        let call = self.cloud.vswitch(id, options);
        self.measure(Action::DescribeVSwitches, call).await
    }
}

/// How long calls have waited for our own budget, as the client knows it.
#[derive(Debug)]
pub struct BudgetWaits(pub Arc<Client>);

impl Collector for BudgetWaits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "terway_cloud_budget_wait",
            "How long calls to the cloud have waited for our own budget (rate_limit)",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        for (action, waited) in self.0.budget_waits() {
            let of = Of { action: labels::Action(action) };
            ConstCounter::new(waited.as_secs_f64()).encode(family.encode_family(&of)?)?;
        }
        Ok(())
    }
}
