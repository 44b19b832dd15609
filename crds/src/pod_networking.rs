//! PodNetworking: which vSwitches and security groups the pods of a selector get.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::duration;
use crate::yaml::{Place, YamlError, objects};

/// A PodNetworking (cluster scope).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetworking {
    /// `metadata.name`.
    pub name: String,
    /// `spec`.
    pub spec: PodNetworkingSpec,
}

/// What its author wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodNetworkingSpec {
    /// How long a pod's address stays its own.
    #[serde(default)]
    pub allocation_type: AllocationType,
    /// On what kind of ENI.
    #[serde(default)]
    pub eni_options: EniOptions,
    /// 1 to 5 groups; those of `eni_conf` if absent.
    #[serde(default, rename = "securityGroupIDs")]
    pub security_group_ids: Option<Vec<String>>,
    /// Which pods; both parts must match.
    #[serde(default)]
    pub selector: Option<Selector>,
    /// vSwitch ids; those of `eni_conf` if absent.
    #[serde(default)]
    pub v_switch_options: Option<Vec<String>>,
    /// Which of them.
    #[serde(default)]
    pub v_switch_select_options: VSwitchSelectOptions,
}

/// `allocationType`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllocationType {
    /// Elastic or Fixed.
    #[serde(default, rename = "type")]
    pub kind: AllocationKind,
    /// Of a fixed address; means nothing for an elastic one.
    #[serde(default)]
    pub release_strategy: Option<ReleaseStrategy>,
    /// A Go duration, at least five minutes.
    #[serde(default)]
    pub release_after: Option<String>,
}

/// `allocationType.type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum AllocationKind {
    /// The address goes with the pod.
    #[default]
    Elastic,
    /// The address outlives the pod.
    Fixed,
}

/// `allocationType.releaseStrategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ReleaseStrategy {
    /// After `releaseAfter` without the pod.
    #[serde(rename = "TTL")]
    Ttl,
    /// By hand only.
    Never,
}

/// `eniOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EniOptions {
    /// Trunk, ENI or Default.
    #[serde(default)]
    pub eni_type: EniKind,
}

/// `eniOptions.eniType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum EniKind {
    /// What the node offers.
    #[default]
    Default,
    /// A member of the node's trunk.
    Trunk,
    /// A NIC of the pod's own.
    #[serde(rename = "ENI")]
    Eni,
}

/// `vSwitchSelectOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VSwitchSelectOptions {
    /// `ordered`, `random` or `most`.
    #[serde(default)]
    pub v_switch_selection_policy: VSwitchPolicy,
}

/// `vSwitchSelectOptions.vSwitchSelectionPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VSwitchPolicy {
    /// The first of the list that has an address.
    #[default]
    Ordered,
    /// Any that has one.
    Random,
    /// The one with the most.
    Most,
}

/// `selector`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// By the pod's labels.
    #[serde(default)]
    pub pod_selector: Option<LabelSelector>,
    /// By its namespace's labels.
    #[serde(default)]
    pub namespace_selector: Option<LabelSelector>,
}

/// `meta/v1` `LabelSelector`: all of its parts must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must be equal.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    /// Labels that must fit.
    #[serde(default)]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: LabelOperator,
    /// With what.
    #[serde(default)]
    pub values: Vec<String>,
}

/// `operator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum LabelOperator {
    /// One of the values.
    In,
    /// None of the values.
    NotIn,
    /// Has the label.
    Exists,
    /// Has it not.
    DoesNotExist,
}

impl PodNetworking {
    /// Its `kind`.
    pub const KIND: &'static str = "PodNetworking";

    /// The shortest `releaseAfter`, five minutes.
    const RELEASE_FLOOR: std::time::Duration = std::time::Duration::from_mins(5);

    /// The PodNetworkings of a YAML file, checked as the API server and its webhook would.
    pub fn from_yaml(text: &str, file: &Path) -> Result<Vec<Self>, YamlError> {
        objects(text, file, Self::KIND)?
            .into_iter()
            .map(|(name, spec)| {
                let found = Self { name, spec };
                found.check(Place { file, kind: Self::KIND, name: &found.name })?;
                Ok(found)
            })
            .collect()
    }

    fn check(&self, place: Place<'_>) -> Result<(), YamlError> {
        self.check_allocation(place)?;
        let ids = [
            ("spec.securityGroupIDs", &self.spec.security_group_ids, 5),
            ("spec.vSwitchOptions", &self.spec.v_switch_options, usize::MAX),
        ];
        for (field, ids, most) in ids {
            check_ids(field, ids.as_deref(), most, place)?;
        }
        let Some(selector) = &self.spec.selector else { return Ok(()) };
        let parts = [
            ("spec.selector.podSelector", &selector.pod_selector),
            ("spec.selector.namespaceSelector", &selector.namespace_selector),
        ];
        for (field, part) in parts {
            part.as_ref().map_or(Ok(()), |part| part.check(field, place))?;
        }
        Ok(())
    }

    fn check_allocation(&self, place: Place<'_>) -> Result<(), YamlError> {
        let allocation = &self.spec.allocation_type;
        let Some(after) = &allocation.release_after else { return Ok(()) };
        let field = "spec.allocationType.releaseAfter";
        match duration::parse(after) {
            Err(error) => Err(place.wrong(field, error.to_string())),
            Ok(after) if after < Self::RELEASE_FLOOR => {
                Err(place.wrong(field, "must be at least 5 minutes (\"5m0s\")"))
            }
            Ok(_) => Ok(()),
        }
    }
}

fn check_ids(
    field: &str,
    ids: Option<&[String]>,
    most: usize,
    place: Place<'_>,
) -> Result<(), YamlError> {
    let Some(ids) = ids else { return Ok(()) };
    if ids.is_empty() {
        let reason = "is an empty list; leave the field out to use those of eni_conf";
        return Err(place.wrong(field, reason));
    }
    if ids.len() > most {
        return Err(
            place.wrong(field, format!("has {} entries, at most {most} are allowed", ids.len()))
        );
    }
    for (id, index) in ids.iter().zip(0..) {
        if id.trim().is_empty() || ids.iter().take(index).any(|before| before == id) {
            return Err(place
                .wrong(&format!("{field}[{index}]"), format!("{id:?} is empty or there twice")));
        }
    }
    Ok(())
}

impl LabelSelector {
    fn check(&self, field: &str, place: Place<'_>) -> Result<(), YamlError> {
        for (key, value) in &self.match_labels {
            let field = format!("{field}.matchLabels.{key}");
            check_label(&field, key, std::slice::from_ref(value), place)?;
        }
        for (requirement, index) in self.match_expressions.iter().zip(0..) {
            let field = format!("{field}.matchExpressions[{index}]");
            requirement.check(&field, place)?;
        }
        Ok(())
    }
}

impl LabelRequirement {
    fn check(&self, field: &str, place: Place<'_>) -> Result<(), YamlError> {
        let wants = matches!(self.operator, LabelOperator::In | LabelOperator::NotIn);
        match (wants, self.values.is_empty()) {
            (true, true) => Err(place.wrong(field, format!("{:?} needs values", self.operator))),
            (false, false) => {
                Err(place.wrong(field, format!("{:?} takes no values", self.operator)))
            }
            _ => check_label(field, &self.key, &self.values, place),
        }
    }
}

fn check_label(
    field: &str,
    key: &str,
    values: &[String],
    place: Place<'_>,
) -> Result<(), YamlError> {
    let name = key.rsplit('/').next().unwrap_or(key);
    if name.is_empty() || !is_label_value(name) || key.matches('/').count() > 1 {
        return Err(place.wrong(field, format!("{key:?} is not the name of a label")));
    }
    match values.iter().find(|value| !is_label_value(value)) {
        Some(value) => Err(place.wrong(field, format!("{value:?} is not the value of a label"))),
        None => Ok(()),
    }
}

/// At most 63 letters, digits, `-`, `_`, `.`, that begin and end with a letter or digit; may be empty.
fn is_label_value(value: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = [value.chars().next(), value.chars().last()];
    value.len() <= 63
        && value.chars().all(inside)
        && ends.into_iter().flatten().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<Vec<PodNetworking>, YamlError> {
        let text = format!(
            "apiVersion: network.alibabacloud.com/v1beta1\nkind: PodNetworking\nmetadata:\n  name: web\nspec:\n{spec}"
        );
        PodNetworking::from_yaml(&text, Path::new("/etc/web.yaml"))
    }

    #[test]
    fn the_documents_example_is_read() {
        let found = parse(
            "  allocationType: {type: Fixed, releaseStrategy: TTL, releaseAfter: 5m0s}
  selector:
    podSelector: {matchLabels: {app: nginx}}
    namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}
  securityGroupIDs: [sg-1, sg-2]
  vSwitchOptions: [vsw-1]
  vSwitchSelectOptions: {vSwitchSelectionPolicy: most}
  eniOptions: {eniType: Trunk}
",
        )
        .unwrap();
        insta::assert_debug_snapshot!(found);
    }

    #[test]
    fn what_is_left_out_has_the_reference_s_defaults() {
        let found = parse("  {}").unwrap();
        assert_eq!(found[0].spec, PodNetworkingSpec::default());
        assert_eq!(found[0].spec.eni_options.eni_type, EniKind::Default);
        assert_eq!(found[0].spec.security_group_ids, None);
    }

    #[test]
    fn a_wrong_field_is_named_with_its_file() {
        for (spec, expected) in [
            ("  vswitchOptions: [a]", "spec.vswitchOptions: unknown field `vswitchOptions`"),
            ("  eniOptions: {eniType: Trnk}", "spec.eniOptions.eniType: unknown variant `Trnk`"),
            ("  securityGroupIDs: sg-1", "spec.securityGroupIDs: invalid type: string \"sg-1\""),
            ("  securityGroupIDs: []", "spec.securityGroupIDs: is an empty list"),
            ("  securityGroupIDs: [a, b, c, d, e, f]", "has 6 entries, at most 5"),
            (
                "  securityGroupIDs: [a, a]",
                "spec.securityGroupIDs[1]: \"a\" is empty or there twice",
            ),
            ("  vSwitchOptions: []", "spec.vSwitchOptions: is an empty list"),
            (
                "  allocationType: {releaseAfter: 5}",
                "spec.allocationType.releaseAfter: invalid type",
            ),
            ("  allocationType: {releaseAfter: 5 min}", "\"5 min\" is not a duration"),
            ("  allocationType: {releaseAfter: 4m59s}", "must be at least 5 minutes"),
            ("  selector: {podSelector: {matchLabels: {a b: c}}}", "\"a b\" is not the name"),
            (
                "  selector: {podSelector: {matchExpressions: [{key: a, operator: In}]}}",
                "spec.selector.podSelector.matchExpressions[0]: In needs values",
            ),
        ] {
            let error = parse(spec).unwrap_err().to_string();
            assert!(error.starts_with("/etc/web.yaml: PodNetworking \"web\": spec"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_document_that_is_no_pod_networking_is_refused() {
        for (text, expected) in [
            ("kind: ConfigMap\napiVersion: v1", "document 1 is apiVersion v1 kind ConfigMap"),
            ("a: [", "/etc/web.yaml:"),
            ("- a", "document 1 is apiVersion ? kind ?"),
            (
                "apiVersion: network.alibabacloud.com/v1beta1\nkind: PodNetworking\nmetadata: {name: A}\nspec: {}",
                "metadata.name: must be lower-case",
            ),
            (
                "apiVersion: network.alibabacloud.com/v1beta1\nkind: PodNetworking\nmetadata: {name: a}\nspecs: {}",
                "specs: unknown field",
            ),
        ] {
            let error = PodNetworking::from_yaml(text, Path::new("/etc/web.yaml")).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_may_hold_many() {
        let one = "apiVersion: network.alibabacloud.com/v1beta1\nkind: PodNetworking\nspec: {}\nmetadata: ";
        let text = format!("---\n{one}{{name: a}}\n---\n{one}{{name: b}}\n---\n");
        let found = PodNetworking::from_yaml(&text, Path::new("x")).unwrap();
        assert_eq!(found.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
