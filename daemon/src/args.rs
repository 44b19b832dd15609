//! The command line, and the environment that stands in for it: what is needed before `eni_conf`.

use std::path::PathBuf;

use clap::{ArgGroup, Parser};
use cloud::EndpointOptions;

use crate::failpoints::Fault;
use crate::telemetry::Format;

/// The daemon of one node: gives its pods addresses of the VPC.
#[derive(Debug, Clone, Parser)]
#[command(name = "terwayd", version)]
#[command(group(ArgGroup::new("what").required(true).args(["standalone", "explain_config", "list_failpoints"])))]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Args {
    /// Run without a cluster: `eni_conf` and the `PodNetworking` manifests (*.yaml) are in DIR.
    #[arg(long, env = "TERWAYD_STANDALONE", value_name = "DIR")]
    pub standalone: Option<PathBuf>,
    /// The eBPF programs.
    #[arg(
        long,
        env = "TERWAYD_BPF_OBJECT",
        value_name = "FILE",
        default_value = "/usr/lib/terway/terway.bpf.o"
    )]
    pub bpf_object: PathBuf,
    /// What survives a restart: the checkpoint and the DEL queue.
    #[arg(long, env = "TERWAYD_STATE", value_name = "DIR", default_value = "/var/lib/terway")]
    pub state: PathBuf,
    /// The sockets.
    #[arg(long, env = "TERWAYD_RUN", value_name = "DIR", default_value = "/run/terway")]
    pub run: PathBuf,
    /// The pinned eBPF maps, in a directory of the schema's version below DIR.
    #[arg(long, env = "TERWAYD_PINS", value_name = "DIR", default_value = "/sys/fs/bpf/terway")]
    pub pins: PathBuf,
    /// The instance metadata service.
    #[arg(
        long,
        env = "TERWAYD_METADATA",
        value_name = "URL",
        default_value = "http://100.100.100.200"
    )]
    pub metadata: String,
    /// Where to write the network configuration list once pods can be taken.
    #[arg(long, env = "TERWAYD_CONFLIST", value_name = "FILE", default_value = proto::conflist::PATH)]
    pub conflist: PathBuf,
    /// Write no network configuration list.
    #[arg(long, env = "TERWAYD_NO_CONFLIST")]
    pub no_conflist: bool,
    /// Which log lines: a level, or `target=level` and more of them, by comma.
    #[arg(long, env = "TERWAYD_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How log lines look.
    #[arg(long, env = "TERWAYD_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
    /// Cut off pods that are up but in no record (a lost checkpoint); without it, terwayd does not
    /// start beside such.
    #[arg(long, env = "TERWAYD_FORGET_PODS")]
    pub forget_pods: bool,
    /// Print the keys of `eni_conf`, their types, defaults and meanings.
    #[arg(long)]
    pub explain_config: bool,
    /// Print the names of all fail points, for tests.
    #[arg(long)]
    pub list_failpoints: bool,
    /// For tests: die at this fail point.
    #[arg(long, env = "TERWAYD_FAILPOINT", value_name = "NAME[@COUNT]", hide = true)]
    pub failpoint: Option<Fault>,
    /// The ECS API, a URL or a host.
    #[arg(long, env = "ECS_ENDPOINT", value_name = "URL")]
    pub ecs_endpoint: Option<String>,
    /// The VPC API, a URL or a host.
    #[arg(long, env = "VPC_ENDPOINT", value_name = "URL")]
    pub vpc_endpoint: Option<String>,
    /// The scheme of an endpoint that has none: `http` or `https`.
    #[arg(long, env = "ALICLOUD_CLIENT_SCHEME", value_name = "SCHEME")]
    pub client_scheme: Option<String>,
    /// Which endpoints when none is named: `vpc` or `public`.
    #[arg(long, env = "ALICLOUD_ENDPOINT_TYPE", value_name = "TYPE")]
    pub endpoint_type: Option<String>,
}

impl Args {
    /// Where the plugin calls.
    pub fn agent_socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// Where `terwayctl` calls.
    pub fn debug_socket(&self) -> PathBuf {
        self.run.join("debug.sock")
    }

    /// Where the plugin leaves DELs.
    pub fn del_queue(&self) -> PathBuf {
        self.state.join("del-queue")
    }

    /// The pins of this version's maps.
    pub fn schema_pins(&self) -> PathBuf {
        self.pins.join(format!("v{}", crate::bpf::SCHEMA))
    }

    /// As the cloud's client takes them.
    pub fn endpoints(&self) -> EndpointOptions {
        EndpointOptions {
            ecs: self.ecs_endpoint.clone(),
            vpc: self.vpc_endpoint.clone(),
            scheme: self.client_scheme.clone(),
            kind: self.endpoint_type.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["terwayd"].iter().chain(args))
    }

    #[test]
    fn the_paths_are_those_the_plugin_knows() {
        let args = parse(&["--standalone", "/etc/terway"]).unwrap();
        assert_eq!(args.agent_socket().to_str(), Some(proto::AGENT_SOCKET));
        assert_eq!(args.debug_socket().to_str(), Some(proto::DEBUG_SOCKET));
        assert_eq!(args.del_queue().to_str(), Some(proto::DEL_QUEUE));
        let pins = format!("/sys/fs/bpf/terway/v{}", crate::bpf::SCHEMA);
        assert_eq!(args.schema_pins().to_str(), Some(pins.as_str()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(parse(&[]).unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        let wrong = parse(&["--standalone", "/etc", "--failpoint", "add.nowhere"]).unwrap_err();
        assert!(wrong.to_string().contains("add.nowhere"), "{wrong}");
        assert!(parse(&["--list-failpoints"]).is_ok());
        assert!(parse(&["--explain-config"]).is_ok());
    }
}
