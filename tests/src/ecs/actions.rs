//! The actions of the API: what each takes, and the way every call goes.

mod asked;
mod assign;
mod attach;
mod create;
mod describe;
mod groups;
mod instances;
mod modify;
mod permissions;
mod vpc;

#[cfg(test)]
mod tests;

use super::arguments::{Arguments, Grammar, Shape};
use super::cloud::{Answer, Cloud, Moment};
use super::refusal::Refusal;
use super::tokens::TokenKey;

pub(crate) use permissions::permission;

/// Which API an endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// Version 2014-05-26.
    Ecs,
    /// Version 2016-04-28.
    Vpc,
}

impl Product {
    /// The names of its actions here.
    pub fn actions(self) -> impl Iterator<Item = &'static str> {
        ACTIONS.iter().filter(move |action| action.product == self).map(|action| action.name)
    }

    /// Its only version here.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Ecs => "2014-05-26",
            Self::Vpc => "2016-04-28",
        }
    }
}

/// Shorthands for the grammars.
const TEXT: Shape = Shape::Text;
const NUMBER: Shape = Shape::Number;
const FLAG: Shape = Shape::Flag;
const TEXTS: Shape = Shape::Texts;
const TAGS: Shape = Shape::Records(&["Key", "Value"]);

const TOKEN: &str = "ClientToken";

/// Tags of one object.
const MOST_TAGS: usize = 20;

type Run = fn(&mut Cloud, &Arguments, Moment) -> Result<Answer, Refusal>;

struct Action {
    name: &'static str,
    product: Product,
    grammar: Grammar,
    run: Run,
}

const fn ecs(name: &'static str, grammar: Grammar, run: Run) -> Action {
    Action { name, product: Product::Ecs, grammar, run }
}

const fn vpc(name: &'static str, grammar: Grammar, run: Run) -> Action {
    Action { name, product: Product::Vpc, grammar, run }
}

static ACTIONS: &[Action] = &[
    ecs("CreateNetworkInterface", create::GRAMMAR, create::run),
    ecs("DeleteNetworkInterface", create::DELETE, create::delete),
    ecs("AttachNetworkInterface", attach::GRAMMAR, attach::attach),
    ecs("DetachNetworkInterface", attach::DETACH, attach::detach),
    ecs("DescribeNetworkInterfaces", describe::GRAMMAR, describe::list),
    ecs("DescribeNetworkInterfaceAttribute", describe::ATTRIBUTE, describe::attribute),
    ecs("ModifyNetworkInterfaceAttribute", modify::GRAMMAR, modify::run),
    ecs("AssignPrivateIpAddresses", assign::V4, assign::assign_v4),
    ecs("UnassignPrivateIpAddresses", assign::UNASSIGN_V4, assign::unassign_v4),
    ecs("AssignIpv6Addresses", assign::V6, assign::assign_v6),
    ecs("UnassignIpv6Addresses", assign::UNASSIGN_V6, assign::unassign_v6),
    ecs("TagResources", modify::TAG, modify::tag),
    ecs("DescribeInstanceTypes", instances::TYPES, instances::types),
    ecs("DescribeInstances", instances::GRAMMAR, instances::list),
    ecs("CreateSecurityGroup", groups::CREATE, groups::create),
    ecs("DescribeSecurityGroups", groups::GRAMMAR, groups::list),
    ecs("DescribeSecurityGroupAttribute", groups::ATTRIBUTE, groups::attribute),
    ecs("ModifySecurityGroupPolicy", groups::POLICY, groups::policy),
    ecs("AuthorizeSecurityGroup", permissions::INGRESS, permissions::authorize_ingress),
    ecs("AuthorizeSecurityGroupEgress", permissions::EGRESS, permissions::authorize_egress),
    ecs("RevokeSecurityGroup", permissions::REVOKE_INGRESS, permissions::revoke_ingress),
    ecs("RevokeSecurityGroupEgress", permissions::REVOKE_EGRESS, permissions::revoke_egress),
    vpc("DescribeVSwitches", vpc::GRAMMAR, vpc::list),
    vpc("DescribeVSwitchAttributes", vpc::ATTRIBUTES, vpc::attributes),
    vpc("DescribeVpcs", vpc::VPCS, vpc::vpcs),
];

/// Serves one call whose signature was good.
pub(crate) fn call(
    cloud: &mut Cloud,
    product: Product,
    name: &str,
    raw: Vec<(String, String)>,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let action = find(product, name)?;
    cloud.buckets.take(action.name, cloud.settings.limit(action.name), moment.now)?;
    let arguments = Arguments::parse(raw, action.grammar)?;
    check_region(cloud, action, &arguments)?;
    let Some(token) = arguments.text(TOKEN) else {
        return (action.run)(cloud, &arguments, moment);
    };
    let key = TokenKey::new(action.name, token)?;
    let parameters = arguments.fingerprint(TOKEN);
    cloud.tokens.forget(moment.now, cloud.settings.token_seconds);
    if let Some(body) = cloud.tokens.answered(&key, &parameters)? {
        return Ok(Answer::now(body));
    }
    let answer = (action.run)(cloud, &arguments, moment)?;
    if let Some(operation) = answer.wait.and_then(|id| cloud.operations.get_mut(id)) {
        operation.token = Some(key.clone());
    }
    let in_flight = answer.wait.is_some();
    cloud.tokens.remember(key, parameters, answer.body.clone(), in_flight, moment.now);
    Ok(answer)
}

/// The token of a call whose action has one.
pub(crate) fn token(name: &str, parameters: &[(String, String)]) -> Option<TokenKey> {
    let has_token = |action: &&Action| action.grammar.iter().any(|(known, _)| *known == TOKEN);
    let action = ACTIONS.iter().filter(has_token).find(|action| action.name == name)?;
    let (_, token) = parameters.iter().find(|(name, value)| name == TOKEN && !value.is_empty())?;
    // One that is malformed is refused when the call is read.
    TokenKey::new(action.name, token).ok()
}

/// The action by the name that callers and faults use.
pub(crate) fn known(name: &str) -> bool {
    ACTIONS.iter().any(|action| action.name == name)
}

fn find(product: Product, name: &str) -> Result<&'static Action, Refusal> {
    let found = ACTIONS.iter().find(|action| action.product == product && action.name == name);
    found.ok_or_else(|| {
        let text = format!("Specified api {name} is not found at this endpoint and version.");
        Refusal::new(404, "InvalidAction.NotFound", text)
    })
}

/// `RegionId` is in every call whose action knows it.
fn check_region(cloud: &Cloud, action: &Action, arguments: &Arguments) -> Result<(), Refusal> {
    if !action.grammar.iter().any(|(name, _)| *name == "RegionId") {
        return Ok(());
    }
    if action.name == "DescribeInstanceTypes" && arguments.text("RegionId").is_none() {
        return Ok(());
    }
    let region = arguments.required("RegionId")?;
    if region == cloud.settings.region {
        return Ok(());
    }
    let text = format!("The specified RegionId {region} does not exist.");
    Err(Refusal::new(404, "InvalidRegionId.NotFound", text))
}
