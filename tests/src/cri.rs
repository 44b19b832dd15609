//! The Container Runtime Interface, called as a kubelet would.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Generated from `proto/cri.proto`.
#[allow(
    missing_debug_implementations,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

use v1::runtime_service_client::RuntimeServiceClient;

/// A container runtime's socket.
#[derive(Debug, Clone)]
pub struct Cri(RuntimeServiceClient<Channel>);

/// The pod whose sandbox is to run.
#[derive(Debug, Clone, Default)]
pub struct PodConfig {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Parent of its cgroup, absolute in each controller.
    pub cgroup_parent: String,
    /// Where its containers log, as the runtime sees it.
    pub log_directory: String,
}

impl Cri {
    /// Connects to the socket at `path`, as this process sees it.
    pub async fn connect(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        // The URI is a form that has to be kept; the connector does not look at it.
        let channel = Endpoint::from_static("http://cri.invalid")
            .connect_with_connector(service_fn(move |_: Uri| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await?;
        Ok(Self(RuntimeServiceClient::new(channel)))
    }

    /// Runs a sandbox and returns its id; the runtime calls CNI ADD on the way.
    pub async fn run(&mut self, pod: &PodConfig) -> Result<String> {
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                namespace: pod.namespace.clone(),
                attempt: 0,
            }),
            hostname: pod.name.clone(),
            log_directory: pod.log_directory.clone(),
            annotations: pod.annotations.clone().into_iter().collect(),
            linux: Some(v1::LinuxPodSandboxConfig { cgroup_parent: pod.cgroup_parent.clone() }),
            ..v1::PodSandboxConfig::default()
        };
        let request = v1::RunPodSandboxRequest { config: Some(config) };
        let reply = self.0.run_pod_sandbox(request).await.context("RunPodSandbox")?;
        Ok(reply.into_inner().pod_sandbox_id)
    }

    /// Addresses of a sandbox, as CNI gave them to the runtime.
    pub async fn addresses(&mut self, id: &str) -> Result<Vec<String>> {
        let network = self.status(id).await?.0.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        Ok(std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect())
    }

    /// Status of a sandbox, and the runtime's own JSON about it.
    pub async fn status(&mut self, id: &str) -> Result<(v1::PodSandboxStatus, serde_json::Value)> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let reply = self.0.pod_sandbox_status(request).await.context("PodSandboxStatus")?;
        let reply = reply.into_inner();
        let info = reply.info.get("info").map_or("null", String::as_str);
        Ok((reply.status.unwrap_or_default(), serde_json::from_str(info)?))
    }

    /// Stops a sandbox (CNI DEL) and removes it.
    pub async fn remove(&mut self, id: &str) -> Result<()> {
        let stop = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.0.stop_pod_sandbox(stop).await.context("StopPodSandbox")?;
        let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.0.remove_pod_sandbox(remove).await.context("RemovePodSandbox")?;
        Ok(())
    }

    /// Whether the network is ready, and why not; the runtime calls CNI STATUS to find out.
    pub async fn network_ready(&mut self) -> Result<(bool, String)> {
        let reply = self.0.status(v1::StatusRequest { verbose: false }).await?.into_inner();
        let conditions = reply.status.unwrap_or_default().conditions;
        let network = conditions
            .into_iter()
            .find(|condition| condition.r#type == "NetworkReady")
            .context("the runtime says nothing of NetworkReady")?;
        Ok((network.status, network.message))
    }
}
