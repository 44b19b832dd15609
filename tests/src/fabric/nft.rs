//! Applies security groups by `nft`, and reads what they refused.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use model::{EniId, SecurityGroupId};
use serde_json::Value;

use crate::ecs::Direction;

use super::Fabric;
use super::groups::{self, TABLE};
use super::ports::State;

/// Packets of one flow that a security group refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The ENI whose group it was.
    pub eni: EniId,
    /// Whether they were to leave or to reach the ENI.
    pub direction: Direction,
    /// The group with the rule; or all of the ENI's, where none had one that accepts.
    pub groups: Vec<SecurityGroupId>,
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// As `nft` prints it: `tcp`, `udp`, `icmp`.
    pub protocol: String,
    /// Destination port, where there is one.
    pub port: Option<u16>,
    /// How many.
    pub packets: u64,
}

impl Fabric {
    /// What security groups refused since the fabric was made.
    pub async fn refused(&self) -> Result<Vec<Refused>> {
        let listing = self.nft(&["-j", "list", "table", "inet", "lab"], String::new()).await?;
        let listing: Value = serde_json::from_str(&listing).context("nft prints no JSON")?;
        let objects = listing.get("nftables").and_then(Value::as_array);
        let objects = objects.context("nft prints no list of objects")?;
        let state = self.0.state.lock().await;
        let elements = objects
            .iter()
            .filter_map(|object| object.get("set"))
            .filter(|set| text(set.get("name")).starts_with("refused"))
            .filter_map(|set| set.get("elem")?.as_array())
            .flatten();
        elements.map(|element| refused(&state, element)).collect()
    }

    /// Makes the chains what the state says.
    pub(super) async fn apply_groups(&self, state: &mut State) -> Result<()> {
        let mut numbers = std::mem::take(&mut state.group_numbers);
        let desired = groups::desired(&state.guarded(), &state.groups, &mut numbers);
        state.group_numbers = numbers;
        let script = groups::script(&state.table, &desired);
        if !script.is_empty() {
            self.nft(&["-f", "-"], script).await.context("cannot apply the security groups")?;
        }
        state.table = desired;
        Ok(())
    }

    /// Runs `nft` in the VPC.
    async fn nft(&self, arguments: &[&str], input: String) -> Result<String> {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        self.0.vpc.run(move || run_nft(&arguments, &input)).await?
    }
}

/// What it prints; an error has what it says.
fn run_nft(arguments: &[String], input: &str) -> Result<String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft: run cargo xtask setup")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).context("nft does not read")?;
    }
    let output = child.wait_with_output()?;
    anyhow::ensure!(
        output.status.success(),
        "nft on {TABLE}: {}\n{input}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn refused(state: &State, element: &Value) -> Result<Refused> {
    let strange = || format!("nft prints an element that is not understood: {element}");
    let element = element.get("elem").with_context(strange)?;
    let key = element.pointer("/val/concat").and_then(Value::as_array).with_context(strange)?;
    let [mark, source, destination, protocol, port @ ..] = key.as_slice() else {
        anyhow::bail!(strange());
    };
    let reason = mark.as_u64().and_then(|mark| state.group_numbers.reason_of(mark));
    let reason = reason.with_context(strange)?;
    let port = port.first().and_then(Value::as_u64);
    let packets = element.pointer("/counter/packets").and_then(Value::as_u64);
    Ok(Refused {
        eni: reason.eni.clone(),
        direction: reason.direction,
        groups: reason.groups.clone(),
        source: text(Some(source)).parse().with_context(strange)?,
        destination: text(Some(destination)).parse().with_context(strange)?,
        protocol: text(Some(protocol)).to_owned(),
        port: port.and_then(|port| u16::try_from(port).ok()),
        packets: packets.with_context(strange)?,
    })
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}
