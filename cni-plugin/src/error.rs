//! Everything that can go wrong, with the CNI code, the sentence and the cure of each.

use std::io;
use std::path::PathBuf;

use proto::agent::Failure;
use proto::failure::cni_code;
use serde::Serialize;
use thiserror::Error;

use crate::agent::{Distrust, Unreachable};
use crate::env::Verb;
use crate::version::SpecVersion;

/// A failure of the plugin. `Display` is the `msg` of the CNI error.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("cniVersion {found} is not supported")]
    UnsupportedVersion { found: String },
    #[error("{verb} came with cniVersion {since}; the configuration says {found}")]
    VerbTooNew { verb: Verb, since: SpecVersion, found: SpecVersion },
    #[error("unsupported field in the configuration: {key} = {value}")]
    UnsupportedField { key: &'static str, value: String, cure: &'static str },
    #[error("{subject}: the network namespace {path} {}", if *.left_over { "is only a file" } else { "does not exist" })]
    NoNamespace { subject: String, path: String, left_over: bool },
    #[error("not set in the environment: {}", names.join(", "))]
    MissingVariables { names: Vec<&'static str> },
    #[error("{name}={value:?}: expected {expected}")]
    BadVariable { name: &'static str, value: String, expected: &'static str },
    #[error("cannot read the configuration from stdin")]
    Stdin(#[source] io::Error),
    #[error("cannot write the result to stdout")]
    Stdout(#[source] io::Error),
    #[error("{subject}: cannot look at the network namespace {path}")]
    Namespace { subject: String, path: String, source: io::Error },
    #[error("{not_told}; and the DEL cannot be queued in {}", dir.display())]
    Queue { not_told: Box<Self>, dir: PathBuf, source: io::Error },
    #[error("cannot start the runtime for the call to terwayd")]
    Runtime(#[source] io::Error),
    #[error("the configuration on stdin is not a JSON object")]
    Decode { problem: String },
    #[error("configuration key {key}: {problem}")]
    BadValue { key: String, problem: String },
    #[error("unknown configuration key {key:?}")]
    UnknownKey { key: String, nearest: Option<String>, known: String },
    #[error("{subject}: the network namespace {path} is the one of the plugin itself")]
    OwnNamespace { subject: String, path: String },
    #[error("{subject}: {unreachable}")]
    Unreachable { verb: Verb, subject: String, unreachable: Unreachable },
    #[error("{subject}: {distrust}")]
    Distrusted { verb: Verb, subject: String, distrust: Distrust },
    #[error("{}", failure.message)]
    Daemon { failure: Failure },
    #[error("{subject}: terwayd failed without a reason: {message}")]
    Untyped { verb: Verb, subject: String, code: String, message: String },
}

impl Error {
    /// The `code` of the CNI error: the table of the design, in one place for what the plugin
    /// itself finds, in `proto::failure` for what the daemon says.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::UnsupportedVersion { .. } | Self::VerbTooNew { .. } => 1,
            Self::UnsupportedField { .. } => 2,
            Self::NoNamespace { .. } => 3,
            Self::MissingVariables { .. } | Self::BadVariable { .. } => 4,
            Self::Stdin(_)
            | Self::Stdout(_)
            | Self::Namespace { .. }
            | Self::Queue { .. }
            | Self::Runtime(_) => 5,
            Self::Decode { .. } => 6,
            Self::BadValue { .. } | Self::UnknownKey { .. } => 7,
            Self::OwnNamespace { .. } => 8,
            Self::Unreachable { verb: Verb::Status, .. }
            | Self::Distrusted { verb: Verb::Status, .. }
            | Self::Untyped { verb: Verb::Status, .. } => 50,
            Self::Unreachable { .. } => 11,
            Self::Distrusted { .. } | Self::Untyped { .. } => 999,
            Self::Daemon { failure } => cni_code(failure.reason()),
        }
    }

    /// The `details` of the CNI error: the cause below, and what to do.
    pub(crate) fn details(&self) -> String {
        match self {
            Self::UnsupportedVersion { .. } => {
                let known = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
                format!("terway speaks {known}; set cniVersion in the network configuration")
            }
            Self::VerbTooNew { since, .. } => {
                format!("set cniVersion in the network configuration to {since} or later")
            }
            Self::UnsupportedField { cure, .. } => (*cure).to_owned(),
            Self::NoNamespace { .. } => {
                "the sandbox is gone or was never made; nothing was set up".to_owned()
            }
            Self::MissingVariables { .. } => format!(
                "terway {} is a CNI plugin, run by a container runtime: see the parameters in the \
                 CNI specification 1.1.0, section 2",
                env!("CARGO_PKG_VERSION")
            ),
            Self::Stdin(source) | Self::Stdout(source) | Self::Runtime(source) => {
                source.to_string()
            }
            Self::Namespace { source, .. } => format!(
                "{source}; CNI_NETNS must name a network namespace of the sandbox's own that root \
                 can open"
            ),
            Self::Queue { dir, source, .. } => format!(
                "{source}; make {} a directory that root can write, or start terwayd: the address \
                 stays in use until a DEL gets through or terwayd collects it",
                dir.display()
            ),
            Self::Decode { problem } => problem.clone(),
            Self::BadVariable { .. } | Self::BadValue { .. } => String::new(),
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                format!("did you mean {nearest:?}?")
            }
            Self::UnknownKey { known, .. } => format!("terway knows {known}"),
            Self::OwnNamespace { .. } => "the runtime has to make a network namespace for the \
                                          sandbox and name it in CNI_NETNS; a pod in the node's \
                                          own network needs no plugin"
                .to_owned(),
            Self::Unreachable { unreachable, .. } => unreachable.details(),
            Self::Distrusted { distrust, .. } => distrust.details(),
            Self::Daemon { failure } => failure.details.clone(),
            Self::Untyped { code, .. } => {
                format!("gRPC status {code}; look at the log of terwayd for this call")
            }
        }
    }

    /// The CNI error object.
    pub(crate) fn to_json(&self, version: SpecVersion) -> String {
        let object = ErrorObject {
            cni_version: version.as_str(),
            code: self.code(),
            msg: self.to_string(),
            details: self.details(),
        };
        serde_json::to_string_pretty(&object).expect("strings and numbers are JSON")
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorObject {
    cni_version: &'static str,
    code: u32,
    msg: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    details: String,
}
