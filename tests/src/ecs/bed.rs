//! A small cloud for the tests of this module: one VPC, four vSwitches, three groups, instances on
//! demand, and a clock that a test moves.

use jiff::{SignedDuration, Timestamp};
use model::{InstanceId, SecurityGroupId, VSwitchId, VpcId, ZoneId};
use serde_json::Value;

use super::actions::{self, Product};
use super::cloud::{Answer, Cloud, Moment};
use super::operations::{Effect, Work};
use super::refusal::Refusal;
use super::settings::Settings;
use super::setup::{InstanceSpec, VSwitchSpec, VpcSpec};

pub(crate) struct Bed {
    pub(crate) cloud: Cloud,
    pub(crate) now: Timestamp,
    /// What was done to the wires.
    pub(crate) done: Vec<Effect>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut cloud = Cloud::new(Settings::default(), 1);
        let vpc = VpcSpec {
            id: VpcId::new("vpc-lab"),
            v4: "10.0.0.0/16".parse().unwrap(),
            v6: Some("2408:4005:3a0::/56".parse().unwrap()),
            address_quota: 1000,
        };
        cloud.add_vpc(&vpc, now).unwrap();
        for (id, zone, v4, v6) in [
            ("vsw-a", "cn-hangzhou-h", "10.0.1.0/24", Some("2408:4005:3a0:1::/64")),
            ("vsw-b", "cn-hangzhou-h", "10.0.2.0/24", Some("2408:4005:3a0:2::/64")),
            ("vsw-elsewhere", "cn-hangzhou-i", "10.0.3.0/24", None),
            ("vsw-tiny", "cn-hangzhou-h", "10.0.4.0/28", None),
        ] {
            let spec = VSwitchSpec {
                id: VSwitchId::new(id),
                vpc: VpcId::new("vpc-lab"),
                zone: ZoneId::new(zone),
                v4: v4.parse().unwrap(),
                v6: v6.map(|block| block.parse().unwrap()),
            };
            cloud.add_vswitch(&spec, now).unwrap();
        }
        for id in ["sg-a", "sg-b", "sg-c"] {
            let vpc = VpcId::new("vpc-lab");
            cloud.add_group(&SecurityGroupId::new(id), &vpc, false, now).unwrap();
        }
        Self { cloud, now, done: Vec::new() }
    }

    /// A running instance of that type in `vsw-a`, its primary ENI in use.
    pub(crate) fn boot(&mut self, kind: &str) -> String {
        let name = format!("node{}", self.cloud.view().instances().count() + 1);
        let spec = InstanceSpec {
            name,
            kind: kind.to_owned(),
            vswitch: VSwitchId::new("vsw-a"),
            groups: vec![SecurityGroupId::new("sg-a")],
            v6_addresses: 0,
            jumbo: false,
            ram_role: None,
        };
        let (id, _operation): (InstanceId, _) = self.cloud.add_instance(&spec, self.now).unwrap();
        self.settle();
        id.to_string()
    }

    pub(crate) fn advance(&mut self, seconds: f64) {
        self.now += SignedDuration::try_from_secs_f64(seconds).unwrap();
    }

    /// What an action answers at once; its work is not done.
    pub(crate) fn start(
        &mut self,
        action: &str,
        pairs: &[(&str, &str)],
    ) -> Result<Answer, Refusal> {
        let region = ("RegionId".to_owned(), "cn-hangzhou".to_owned());
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut raw: Vec<_> = pairs.collect();
        let product = if action.contains("VSwitch") || action.contains("Vpc") {
            Product::Vpc
        } else {
            Product::Ecs
        };
        if action != "DescribeInstanceTypes" {
            raw.push(region);
        }
        let moment = Moment::lagging(
            self.now,
            std::time::Duration::from_millis(u64::from(self.cloud.settings.api_lag_ms)),
        );
        actions::call(&mut self.cloud, product, action, raw, moment)
    }

    /// What an action answers, its work done and time gone on.
    pub(crate) fn call(&mut self, action: &str, pairs: &[(&str, &str)]) -> Result<Value, Refusal> {
        let answer = self.start(action, pairs)?;
        self.settle();
        Ok(answer.body)
    }

    /// The code by which an action is refused.
    pub(crate) fn refused(&mut self, action: &str, pairs: &[(&str, &str)]) -> String {
        self.start(action, pairs).unwrap_err().code
    }

    /// Does all that is due, and lets time go on until nothing is.
    pub(crate) fn settle(&mut self) {
        while let Some(due) = self.cloud.operations.next_due() {
            self.now = self.now.max(due);
            for work in self.cloud.tick(self.now) {
                self.finish(work, &Ok(()));
            }
        }
    }

    pub(crate) fn finish(&mut self, work: Work, outcome: &Result<(), String>) {
        if outcome.is_ok() {
            self.done.extend(work.effects);
        }
        self.cloud.finish(work.id, outcome, self.now);
    }

    /// A new ENI in `vsw-b`; further parameters as given.
    pub(crate) fn create(&mut self, more: &[(&str, &str)]) -> String {
        let mut pairs = vec![("VSwitchId", "vsw-b"), ("SecurityGroupIds.1", "sg-a")];
        pairs.extend_from_slice(more);
        let body = self.call("CreateNetworkInterface", &pairs).unwrap();
        body["NetworkInterfaceId"].as_str().unwrap().to_owned()
    }

    /// Attached and in use.
    pub(crate) fn attach(&mut self, eni: &str, instance: &str) {
        let pairs = [("NetworkInterfaceId", eni), ("InstanceId", instance)];
        self.call("AttachNetworkInterface", &pairs).unwrap();
    }

    /// A member attached to a trunk and in use.
    pub(crate) fn attach_member(&mut self, eni: &str, instance: &str, trunk: &str) {
        let pairs = [
            ("NetworkInterfaceId", eni),
            ("InstanceId", instance),
            ("TrunkNetworkInstanceId", trunk),
        ];
        self.call("AttachNetworkInterface", &pairs).unwrap();
    }

    /// The only ENI of that id, as `DescribeNetworkInterfaces` shows it now.
    pub(crate) fn describe(&mut self, eni: &str) -> Option<Value> {
        let pairs = [("NetworkInterfaceId.1", eni)];
        let body = self.call("DescribeNetworkInterfaces", &pairs).unwrap();
        body["NetworkInterfaceSets"]["NetworkInterfaceSet"].get(0).cloned()
    }

    /// The same without letting time go on.
    pub(crate) fn describe_now(&mut self, eni: &str) -> Value {
        let answer = self.start("DescribeNetworkInterfaces", &[("NetworkInterfaceId.1", eni)]);
        answer.unwrap().body["NetworkInterfaceSets"]["NetworkInterfaceSet"][0].clone()
    }

    pub(crate) fn status_now(&mut self, eni: &str) -> String {
        self.describe_now(eni)["Status"].as_str().unwrap_or("gone").to_owned()
    }

    pub(crate) fn status(&mut self, eni: &str) -> String {
        let found = self.describe(eni);
        found.map_or_else(|| "gone".to_owned(), |eni| eni["Status"].as_str().unwrap().to_owned())
    }
}
