//! Pods by the real binary, called as libcni does.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{Lab, LabNode};
use crate::driver::{self, Attachment, Outcome, Verb};
use crate::node::PodNs;

/// The annotation that chooses a PodNetworking.
const POD_NETWORKING: &str = "k8s.aliyun.com/pod-networking";

/// A pod to be made.
#[derive(Debug, Clone)]
pub struct PodRequest {
    /// Its node.
    pub node: String,
    /// Its name, which is its sandbox's too.
    pub name: String,
    /// Its PodNetworking; an address of a shared ENI if `None`.
    pub pod_networking: Option<String>,
}

impl PodRequest {
    /// A pod on a shared ENI.
    pub fn shared(node: &str, name: &str) -> Self {
        Self { node: node.to_owned(), name: name.to_owned(), pod_networking: None }
    }

    /// A pod with a member ENI.
    pub fn trunk(node: &str, name: &str, pod_networking: &str) -> Self {
        let pod_networking = Some(pod_networking.to_owned());
        Self { node: node.to_owned(), name: name.to_owned(), pod_networking }
    }
}

/// A pod with its network.
#[derive(Debug)]
pub struct LabPod {
    /// What was asked for.
    pub request: PodRequest,
    /// Its namespace.
    pub netns: PodNs,
    /// What the runtime says of it.
    pub attachment: Attachment,
    /// The result of ADD.
    pub result: Value,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// ADD, from spawn to exit of the binary.
    pub add_time: Duration,
}

impl Lab {
    /// Makes a namespace and calls ADD, which has to succeed.
    pub async fn add_pod(&self, request: &PodRequest) -> Result<LabPod> {
        let (pod, outcome) = self.try_pod(request, &Map::new()).await?;
        outcome.ok().with_context(|| format!("ADD of {}", request.name))?;
        Ok(pod)
    }

    /// Makes a namespace and calls ADD; `more` joins the configuration.
    pub async fn try_pod(
        &self,
        request: &PodRequest,
        more: &Map<String, Value>,
    ) -> Result<(LabPod, Outcome)> {
        let node = self.node(&request.node)?;
        let netns = node.node.pod(&request.name).await?;
        let attachment = attachment(request, &netns);
        let outcome = self.cni(node, Verb::Add, &attachment, more).await?;
        let (request, result) = (request.clone(), outcome.stdout.clone());
        let (addresses, add_time) = (outcome.addresses(), outcome.elapsed);
        Ok((LabPod { request, netns, attachment, result, addresses, add_time }, outcome))
    }

    /// Calls DEL, and takes the namespace away.
    pub async fn del_pod(&self, pod: LabPod) -> Result<Duration> {
        let node = self.node(&pod.request.node)?;
        let outcome = self.cni(node, Verb::Del, &pod.attachment, &Map::new()).await?.ok();
        let outcome = outcome.with_context(|| format!("DEL of {}", pod.request.name))?;
        Ok(outcome.elapsed)
    }

    /// Calls CHECK with the result of ADD as `prevResult`.
    pub async fn check_pod(&self, pod: &LabPod) -> Result<Outcome> {
        let node = self.node(&pod.request.node)?;
        let mut more = Map::new();
        more.insert("prevResult".to_owned(), pod.result.clone());
        self.cni(node, Verb::Check, &pod.attachment, &more).await
    }

    /// Calls the binary on a node; `more` joins the configuration.
    pub async fn cni(
        &self,
        node: &LabNode,
        verb: Verb,
        attachment: &Attachment,
        more: &Map<String, Value>,
    ) -> Result<Outcome> {
        let command = node.node.command("/opt/cni/bin/terway");
        let conf = driver::configuration(attachment, more);
        driver::call(command, verb, attachment, &conf).await
    }

    /// Calls GC: whatever is not in `valid` goes.
    pub async fn gc(&self, node: &str, valid: &[&Attachment]) -> Result<Outcome> {
        let list: Vec<_> = valid
            .iter()
            .map(|valid| json!({ "containerID": valid.container_id, "ifname": valid.ifname }))
            .collect();
        let mut more = Map::new();
        more.insert("cni.dev/valid-attachments".to_owned(), Value::Array(list.clone()));
        more.insert("cni.dev/attachments".to_owned(), Value::Array(list));
        self.cni(self.node(node)?, Verb::Gc, &Attachment::default(), &more).await
    }
}

/// What a runtime would say of the pod.
pub(crate) fn attachment(request: &PodRequest, netns: &PodNs) -> Attachment {
    let annotation =
        request.pod_networking.iter().map(|name| (POD_NETWORKING.to_owned(), name.clone()));
    let uid = format!("{}-uid", request.name);
    Attachment {
        container_id: request.name.clone(),
        netns: Some(netns.path().to_owned()),
        ifname: "eth0".to_owned(),
        pod: Some(("default".to_owned(), request.name.clone(), uid)),
        annotations: annotation.collect(),
    }
}
