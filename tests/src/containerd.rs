//! containerd on a node of the lab, driven over CRI.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::Command;
use tokio::time;

use crate::cri::{Cri, PodConfig};
use crate::driver;
use crate::image;
use crate::node::{Node, Process};

/// Of Debian's containernetworking-plugins.
const LOOPBACK: &str = "/usr/lib/cni/loopback";

/// How long containerd may take to serve.
const START: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    node: Node,
    process: Process,
    /// Its CRI.
    pub cri: Cri,
}

/// Where `cargo xtask setup --containerd` puts its builds.
pub fn binaries() -> Result<PathBuf> {
    let path = std::env::var_os("TERWAY_CONTAINERD").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/containerd"),
        PathBuf::from,
    );
    anyhow::ensure!(
        path.join("containerd").exists(),
        "{} has no containerd: run `cargo xtask setup --containerd`",
        path.display()
    );
    Ok(std::fs::canonicalize(path)?)
}

impl Containerd {
    /// Starts it on `node`, with the lab's image as the sandbox's.
    pub async fn start(node: &Node, logs: &Path) -> Result<Self> {
        let binaries = binaries()?;
        // containerd gives each sandbox its `lo` by this plugin.
        let plugins = node.host_path("/opt/cni/bin");
        std::fs::create_dir_all(&plugins)?;
        std::fs::copy(LOOPBACK, plugins.join("loopback"))
            .with_context(|| format!("cannot copy {LOOPBACK}: run `cargo xtask setup`"))?;
        let config = node.host_path("/etc/containerd/config.toml");
        std::fs::write(&config, configuration())
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(binaries.join("containerd"));
        command.env("PATH", path_with(&binaries));
        let log = logs.join(format!("containerd-{}.log", node.name()));
        let process = node.spawn("containerd", command, &log).await?;
        let socket = node.host_path("/run/containerd/containerd.sock");
        let cri = time::timeout(START, connect(&socket)).await.with_context(|| {
            format!("containerd does not serve after {START:?}; its log: {}", log.display())
        })?;
        let containerd = Self { node: node.clone(), process, cri };
        containerd.import(&binaries).await?;
        Ok(containerd)
    }

    /// The pod as CRI wants it.
    pub fn pod(&self, namespace: &str, name: &str, uid: &str) -> PodConfig {
        PodConfig {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            cgroup_parent: self.node.cgroup().join(uid).to_string_lossy().into_owned(),
            log_directory: format!("/var/log/pods/{namespace}_{name}_{uid}"),
            ..PodConfig::default()
        }
    }

    /// Stops it; sandboxes are to be removed before, for their shims outlive it.
    pub async fn stop(self) -> Result<()> {
        self.process.stop(Duration::from_secs(10)).await?;
        Ok(())
    }

    async fn import(&self, binaries: &Path) -> Result<()> {
        let archive = self.node.host_path("/var/lib/containerd/lab-pod.tar");
        image::write(&driver::staged("lab-pod")?, &archive)?;
        let output = self
            .node
            .command(binaries.join("ctr"))
            .args(["-n", "k8s.io", "images", "import", "--local"])
            .arg("/var/lib/containerd/lab-pod.tar")
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "ctr images import: {said}");
        Ok(())
    }
}

async fn connect(socket: &Path) -> Cri {
    loop {
        if let Ok(mut cri) = Cri::connect(socket).await
            && cri.network_ready().await.is_ok()
        {
            return cri;
        }
        time::sleep(LOOK).await;
    }
}

fn path_with(binaries: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}:/usr/sbin:/sbin", binaries.display())
}

/// No `CAP_SYS_RESOURCE` here, so containerd may not lower `oom_score_adj`; no registry, so the
/// sandbox's image is pinned.
fn configuration() -> String {
    format!(
        r#"version = 3
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{}"
"#,
        image::IMAGE
    )
}
