//! What the API takes in one call, checked before anything is sent: its own refusal would name the
//! parameter and not the limit.

use std::ops::RangeInclusive;

use crate::request::List;
use crate::{
    Action, AddressRequest, AssignAddresses, AssignPrefixes, CloudError, CreateEni, EniFilter,
};

/// `SecurityGroupIds` of a new ENI.
const SECURITY_GROUPS: RangeInclusive<usize> = 1..=10;
/// `NetworkInterfaceId` of a Describe.
const IDS: RangeInclusive<usize> = 0..=100;
/// `Tag`.
const TAGS: RangeInclusive<usize> = 0..=20;

pub(crate) fn create_eni(request: &CreateEni) -> Result<(), CloudError> {
    let action = Action::CreateNetworkInterface;
    let pairs = [
        (List::V4, request.secondary_v4, List::V4_PREFIXES, request.v4_prefixes),
        (List::V6, request.v6, List::V6_PREFIXES, request.v6_prefixes),
    ];
    for (of_addresses, addresses, of_prefixes, prefixes) in pairs {
        holds(action, of_addresses.count, of(addresses), 0..=of_addresses.assign_most)?;
        holds(action, of_prefixes.count, of(prefixes), 0..=of_prefixes.assign_most)?;
        if addresses > 0 && prefixes > 0 {
            let (one, other) = (of_addresses.count, of_prefixes.count);
            let rule = format!("{one} and {other}, and the API takes one of them in a call");
            return Err(CloudError::NotSent { action, rule });
        }
    }
    holds(action, "SecurityGroupIds", request.security_groups.len(), SECURITY_GROUPS)?;
    holds(action, "Tag", request.tags.len(), TAGS)
}

pub(crate) fn describe_enis(filter: &EniFilter) -> Result<(), CloudError> {
    let action = Action::DescribeNetworkInterfaces;
    holds(action, "NetworkInterfaceId", filter.ids.len(), IDS)?;
    holds(action, "Tag", filter.tags.len(), TAGS)
}

pub(crate) fn assign<A>(of: List, request: &AssignAddresses<A>) -> Result<(), CloudError> {
    let (name, count) = match &request.addresses {
        AddressRequest::Any(count) => (of.count, self::of(*count)),
        AddressRequest::These(addresses) => (of.items, addresses.len()),
    };
    holds(of.assign, name, count, 1..=of.assign_most)
}

pub(crate) fn assign_prefixes(of: List, request: &AssignPrefixes) -> Result<(), CloudError> {
    holds(of.assign, of.count, self::of(request.count), 1..=of.assign_most)
}

pub(crate) fn unassign<A>(of: List, items: &[A]) -> Result<(), CloudError> {
    holds(of.unassign, of.items, items.len(), 1..=of.unassign_most)
}

fn of(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn holds(
    action: Action,
    name: &str,
    found: usize,
    limit: RangeInclusive<usize>,
) -> Result<(), CloudError> {
    if limit.contains(&found) {
        return Ok(());
    }
    let (least, most) = (limit.start(), limit.end());
    let rule = format!("{found} as {name}, and the API takes {least} to {most} in a call");
    Err(CloudError::NotSent { action, rule })
}
