//! What of `eni_conf` only the cloud can judge: whether its vSwitches exist, lie in this node's zone
//! and hold what is asked of them, and whether the instance's type takes `ip_stack`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cloud::{CallOptions, Ecs, Priority};
use ipnetwork::IpNetwork;
use model::{InstanceType, IpStack, VSwitch, VSwitchId, ZoneId};
use tokio::time::Instant;

use crate::config::{Config, ConfigError};

/// A cloud that does not answer is not waited for: what is wrong then shows at the first pod.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bits of an IPv4 prefix.
const V4_PREFIX: u8 = 28;
/// Bits of an IPv6 prefix.
const V6_PREFIX: u8 = 80;

/// What a file is held against.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The file, for messages.
    pub(super) path: PathBuf,
    /// This node's zone.
    pub(super) zone: ZoneId,
    /// Its type.
    pub(super) kind: InstanceType,
}

impl Rules {
    /// For the file of `directory`.
    pub(super) fn of(directory: Option<&Path>, zone: ZoneId, kind: InstanceType) -> Self {
        Self { path: directory.unwrap_or(Path::new("")).join("eni_conf"), zone, kind }
    }

    /// The error names key, value and rule. What the cloud does not answer passes, with a warning.
    pub(super) async fn check(&self, config: &Config, cloud: &impl Ecs) -> Result<(), ConfigError> {
        self.stack(config.stack)?;
        let ids = config.vswitches.get(&self.zone).map_or(&[][..], Vec::as_slice);
        for (place, id) in ids.iter().enumerate() {
            let deadline = Instant::now() + PATIENCE;
            match cloud.vswitch(id, CallOptions::new(Priority::WarmPool, deadline)).await {
                Ok(found) => {
                    let wrong = |why| self.wrong(format!("vswitches.{}[{place}]", self.zone), why);
                    self.vswitch(id, found.as_ref(), config).map_err(wrong)?;
                }
                Err(error) => {
                    tracing::warn!(vswitch = %id, %error, "the cloud does not say whether a vSwitch of eni_conf fits; it is not waited for");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn wrong(&self, key: String, reason: String) -> ConfigError {
        ConfigError::Key { path: self.path.clone(), key, reason }
    }

    fn stack(&self, stack: IpStack) -> Result<(), ConfigError> {
        let InstanceType { id, v4_per_eni: v4, v6_per_eni: v6, .. } = &self.kind;
        let wrong = |why: String| Err(self.wrong("ip_stack".to_owned(), why));
        match stack {
            IpStack::Dual if v4 != v6 => wrong(format!(
                "\"dual\" needs as many addresses of each family, and an ENI of {id} takes {v4} of IPv4 and {v6} of IPv6"
            )),
            IpStack::V6 if *v6 == 0 => {
                wrong(format!("\"ipv6\" cannot be: an ENI of {id} takes no IPv6 address"))
            }
            IpStack::V4 | IpStack::V6 | IpStack::Dual => Ok(()),
        }
    }

    fn vswitch(
        &self,
        id: &VSwitchId,
        found: Option<&VSwitch>,
        config: &Config,
    ) -> Result<(), String> {
        let id = id.as_str();
        let Some(vswitch) = found else {
            return Err(format!("{id:?} does not exist, by the cloud's word"));
        };
        if vswitch.zone != self.zone {
            return Err(format!("{id:?} lies in zone {}, not in {}", vswitch.zone, self.zone));
        }
        if config.stack.v6() && vswitch.v6.is_none() {
            return Err(format!(
                "{id:?} has no IPv6 block, which ip_stack {:?} needs",
                config.stack
            ));
        }
        if config.prefixes.is_none() {
            return Ok(());
        }
        let v4 = (config.stack.v4(), Some(vswitch.v4), V4_PREFIX);
        let v6 = (config.stack.v6(), vswitch.v6, V6_PREFIX);
        for (counts, block, bits) in [v4, v6] {
            if let Some(block) = block.filter(|block| counts && block.prefix() > bits) {
                return Err(too_small(id, block, bits));
            }
        }
        Ok(())
    }
}

fn too_small(id: &str, block: IpNetwork, bits: u8) -> String {
    format!(
        "{id:?} has the block {block}, which holds no prefix /{bits}, and enable_ip_prefix asks for those"
    )
}

#[cfg(test)]
mod tests {
    use model::InstanceTypeId;

    use super::*;

    fn rules(v6_per_eni: u32) -> Rules {
        let kind = InstanceType {
            id: InstanceTypeId::new("ecs.t"),
            enis: 8,
            total_enis: 8,
            v4_per_eni: 20,
            v6_per_eni,
            trunk: false,
        };
        Rules::of(Some(Path::new("/etc/eni")), ZoneId::new("h"), kind)
    }

    fn config(more: &str) -> Config {
        let conf =
            format!(r#"{{"security_group": "sg-1", "vswitches": {{"h": ["vsw-1"]}}{more}}}"#);
        Config::parse(&conf, Path::new("eni_conf")).unwrap().0
    }

    fn vswitch(zone: &str, v4: &str, v6: Option<&str>) -> VSwitch {
        VSwitch {
            id: VSwitchId::new("vsw-1"),
            zone: ZoneId::new(zone),
            v4: v4.parse().unwrap(),
            v6: v6.map(|block| block.parse().unwrap()),
            available: 9,
        }
    }

    #[test]
    fn what_the_instance_s_type_does_not_take_is_named() {
        for (stack, v6_per_eni, rule) in [
            (IpStack::Dual, 1, Some("an ENI of ecs.t takes 20 of IPv4 and 1 of IPv6")),
            (IpStack::V6, 0, Some("takes no IPv6 address")),
            (IpStack::V6, 1, None),
            (IpStack::Dual, 20, None),
            (IpStack::V4, 0, None),
        ] {
            let found = rules(v6_per_eni).stack(stack).map_err(|error| error.to_string());
            match rule {
                None => assert_eq!(found, Ok(())),
                Some(rule) => {
                    let error = found.unwrap_err();
                    assert!(error.starts_with("/etc/eni/eni_conf: ip_stack: "), "{error}");
                    assert!(error.contains(rule), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_vswitch_that_does_not_fit_is_named_with_the_rule() {
        let (plain, dual) = (config(""), config(r#", "ip_stack": "dual""#));
        let prefix = config(r#", "enable_ip_prefix": true"#);
        let dual_prefix = config(r#", "enable_ip_prefix": true, "ip_stack": "dual""#);
        let good = vswitch("h", "10.0.0.0/24", Some("2408::/64"));
        let id = VSwitchId::new("vsw-1");
        for (config, found, rule) in [
            (&plain, None, Some("does not exist")),
            (&plain, Some(vswitch("g", "10.0.0.0/24", None)), Some("lies in zone g, not in h")),
            (&plain, Some(vswitch("h", "10.0.0.0/29", None)), None),
            (&dual, Some(vswitch("h", "10.0.0.0/24", None)), Some("has no IPv6 block")),
            (&prefix, Some(vswitch("h", "10.0.0.0/29", None)), Some("holds no prefix /28")),
            (&prefix, Some(vswitch("h", "10.0.0.0/28", None)), None),
            (
                &dual_prefix,
                Some(vswitch("h", "10.0.0.0/24", Some("2408::/96"))),
                Some("holds no prefix /80"),
            ),
            (&dual_prefix, Some(good), None),
        ] {
            let judged = rules(20).vswitch(&id, found.as_ref(), config);
            match rule {
                None => assert_eq!(judged, Ok(())),
                Some(rule) => {
                    let error = judged.unwrap_err();
                    assert!(error.starts_with("\"vsw-1\" ") && error.contains(rule), "{error}");
                }
            }
        }
    }
}
