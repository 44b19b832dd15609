//! Runs the CNI binary as libcni does: environment and stdin in, one JSON object out
//! (CNI spec 1.1.0, section 2 "Execution protocol").

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Name of the network in the lab's configurations.
pub const NETWORK: &str = "terway";

/// The key of `runtimeConfig` under which containerd passes a pod's annotations.
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A CNI verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// ADD.
    Add,
    /// DEL.
    Del,
    /// CHECK.
    Check,
    /// GC.
    Gc,
    /// STATUS.
    Status,
    /// VERSION.
    Version,
}

impl Verb {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// What the runtime says of one attachment; the default is nobody's, for verbs that are about none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; a DEL may go without.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// Namespace, name and UID of the pod, for `CNI_ARGS`.
    pub pod: Option<(String, String, String)>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Attachment {
    fn args(&self) -> Option<String> {
        let (namespace, name, uid) = self.pod.as_ref()?;
        Some(format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
             K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={uid}",
            self.container_id
        ))
    }
}

/// How the binary ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its one JSON object; null if it printed nothing.
    pub stdout: Value,
    /// Its log.
    pub stderr: String,
    /// Whether it exited with 0.
    pub success: bool,
    /// From spawn to exit.
    pub elapsed: Duration,
}

impl Outcome {
    /// The result, or the CNI error as an error.
    pub fn ok(self) -> Result<Self> {
        if self.success {
            return Ok(self);
        }
        let text = |key: &str| self.stdout.get(key).and_then(Value::as_str).unwrap_or_default();
        anyhow::bail!("CNI error {}: {} ({})", self.code(), text("msg"), text("details"))
    }

    /// The CNI error's code; 0 if there is none.
    pub fn code(&self) -> u64 {
        self.stdout.get("code").and_then(Value::as_u64).unwrap_or_default()
    }

    /// The CNI error's `msg` and `details`.
    pub fn message(&self) -> String {
        let text = |key: &str| self.stdout.get(key).and_then(Value::as_str).unwrap_or_default();
        format!("{} {}", text("msg"), text("details")).trim().to_owned()
    }

    /// Addresses of the result, without their prefix lengths.
    pub fn addresses(&self) -> Vec<std::net::IpAddr> {
        let ips = self.stdout.get("ips").and_then(Value::as_array);
        ips.into_iter()
            .flatten()
            .filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
            .collect()
    }
}

/// The plugin's configuration for one call, as libcni makes it of the conflist.
pub fn configuration(attachment: &Attachment, more: &Map<String, Value>) -> Value {
    let mut conf = json!({ "cniVersion": "1.1.0", "name": NETWORK, "type": "terway" });
    if let Some(conf) = conf.as_object_mut() {
        if !attachment.annotations.is_empty() {
            let annotations = json!({ ANNOTATIONS: attachment.annotations });
            conf.insert("runtimeConfig".to_owned(), annotations);
        }
        conf.extend(more.clone());
    }
    conf
}

/// What the environment says of a call, but for `CNI_PATH`.
pub(crate) fn variables(verb: Verb, attachment: &Attachment) -> Vec<(&'static str, OsString)> {
    let mut variables = vec![("CNI_COMMAND", verb.name().into())];
    if matches!(verb, Verb::Gc | Verb::Status | Verb::Version) {
        return variables;
    }
    variables.push(("CNI_CONTAINERID", attachment.container_id.clone().into()));
    variables.push(("CNI_IFNAME", attachment.ifname.clone().into()));
    variables.extend(attachment.args().map(|args| ("CNI_ARGS", args.into())));
    variables.extend(attachment.netns.clone().map(|path| ("CNI_NETNS", path.into())));
    variables
}

/// Runs `binary` by `command` (which decides in which namespaces).
pub async fn call(
    mut command: Command,
    verb: Verb,
    attachment: &Attachment,
    conf: &Value,
) -> Result<Outcome> {
    command
        .env_clear()
        .envs(variables(verb, attachment))
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[expect(clippy::disallowed_methods, reason = "the lab measures")]
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    stdin.write_all(conf.to_string().as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let elapsed = start.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    let stdout = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).with_context(|| format!("stdout is not JSON: {text}"))?
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Outcome { stdout, stderr, success: output.status.success(), elapsed })
}

/// Where the staged binaries and objects lie: `TERWAY_STAGE`, else where this program itself was
/// staged, else target/stage/dev.
pub fn stage() -> PathBuf {
    let own = || {
        let program = std::env::current_exe().ok()?;
        let dir = program.parent()?;
        dir.join("terway.bpf.o").exists().then(|| dir.to_owned())
    };
    let dev = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stage/dev");
    std::env::var_os("TERWAY_STAGE").map(PathBuf::from).or_else(own).unwrap_or_else(dev)
}

/// A staged file.
pub fn staged(name: &str) -> Result<PathBuf> {
    let path = stage().join(name);
    anyhow::ensure!(path.exists(), "{} is missing: run `cargo xtask build`", path.display());
    Ok(std::fs::canonicalize(path)?)
}
