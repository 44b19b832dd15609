//! What the cloud's error codes mean: the tables of the API's pages, read by us.

use model::VSwitchId;

use crate::{Action, Meaning, Thing};

/// The meaning of `code`, which came with `status` in answer to a request that named `vswitch`.
pub(crate) fn meaning(action: Action, code: &str, status: u16, vswitch: Option<&str>) -> Meaning {
    match code {
        "InvalidVSwitchId.IpNotEnough" | "QuotaExceeded.PrivateIpAddress" => {
            Meaning::VSwitchExhausted { vswitch: vswitch.map(VSwitchId::new) }
        }
        "EniPerInstanceLimitExceeded" => Meaning::EniQuota,
        "InvalidOperation.Ipv4CountExceeded" | "Ipv4CountExceeded" => Meaning::V4Quota,
        "InvalidOperation.Ipv6CountExceeded"
        | "Ipv6CountExceeded"
        | "MaxEniIpv6IpsCountExceeded" => Meaning::V6Quota,
        "MaxEniCountExceeded" | "SecurityGroupInstanceLimitExceed" => Meaning::AccountQuota,
        "InvalidIp.IpAssigned" => Meaning::AddressTaken,
        "Operation.Conflict" | "IdempotentProcessing" => Meaning::Conflict,
        "InvalidEniId.NotFound" => Meaning::NotFound(Thing::Eni),
        "InvalidEcsId.NotFound" | "InvalidInstanceId.NotFound" => {
            Meaning::NotFound(Thing::Instance)
        }
        "InvalidIp.IpUnassigned" => Meaning::NotFound(Thing::Address),
        "InvalidVSwitchId.NotFound" | "InvalidVswitchID.NotFound" => {
            Meaning::NotFound(Thing::VSwitch)
        }
        "InvalidSecurityGroupId.NotFound" => Meaning::NotFound(Thing::SecurityGroup),
        "InvalidInstanceType.ValueNotSupported" | "InvalidInstanceType.NotFound"
            if action == Action::DescribeInstanceTypes =>
        {
            Meaning::NotFound(Thing::InstanceType)
        }
        "InvalidOperation.InvalidEniState" => Meaning::EniState,
        "InvalidOperation.InvalidEcsState" | "IncorrectInstanceStatus" => Meaning::InstanceState,
        "IdempotentFailed" | "IdempotentParameterMismatch" => Meaning::TokenMismatch,
        "InvalidSecurityToken.Expired" => Meaning::ExpiredCredentials,
        "InvalidTimeStamp.Expired" => Meaning::Clock,
        "InternalError" | "ServiceUnavailable" => Meaning::Unavailable,
        other => by_prefix(other).unwrap_or_else(|| by_status(status)),
    }
}

fn by_prefix(code: &str) -> Option<Meaning> {
    const FORBIDDEN: [&str; 6] = [
        "Forbidden",
        "NoPermission",
        "InvalidAccessKeyId",
        "InvalidSecurityToken",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
    ];
    let begins = |prefix: &&str| code.starts_with(*prefix);
    if code.starts_with("Throttling") {
        Some(Meaning::Throttled)
    } else {
        FORBIDDEN.iter().any(begins).then_some(Meaning::Forbidden)
    }
}

const fn by_status(status: u16) -> Meaning {
    match status {
        429 => Meaning::Throttled,
        500.. => Meaning::Unavailable,
        _ => Meaning::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_design_has_its_meaning() {
        let exhausted = || Meaning::VSwitchExhausted { vswitch: Some(VSwitchId::new("vsw-1")) };
        for (code, status, expected) in [
            ("InvalidVSwitchId.IpNotEnough", 403, exhausted()),
            ("QuotaExceeded.PrivateIpAddress", 403, exhausted()),
            ("EniPerInstanceLimitExceeded", 403, Meaning::EniQuota),
            ("InvalidOperation.Ipv4CountExceeded", 403, Meaning::V4Quota),
            ("InvalidOperation.Ipv6CountExceeded", 403, Meaning::V6Quota),
            ("MaxEniCountExceeded", 403, Meaning::AccountQuota),
            ("Throttling", 400, Meaning::Throttled),
            ("Throttling.User", 400, Meaning::Throttled),
            ("Throttling.Api", 503, Meaning::Throttled),
            ("Odd", 429, Meaning::Throttled),
            ("InternalError", 500, Meaning::Unavailable),
            ("ServiceUnavailable", 503, Meaning::Unavailable),
            ("Odd", 502, Meaning::Unavailable),
            ("Operation.Conflict", 403, Meaning::Conflict),
            ("IdempotentProcessing", 400, Meaning::Conflict),
            ("Ipv4CountExceeded", 403, Meaning::V4Quota),
            ("Ipv6CountExceeded", 403, Meaning::V6Quota),
            ("IdempotentFailed", 400, Meaning::TokenMismatch),
            ("IdempotentParameterMismatch", 400, Meaning::TokenMismatch),
            ("InvalidEniId.NotFound", 404, Meaning::NotFound(Thing::Eni)),
            ("InvalidEcsId.NotFound", 404, Meaning::NotFound(Thing::Instance)),
            ("InvalidIp.IpUnassigned", 403, Meaning::NotFound(Thing::Address)),
            ("InvalidIp.IpAssigned", 403, Meaning::AddressTaken),
            ("InvalidOperation.InvalidEniState", 400, Meaning::EniState),
            ("InvalidOperation.InvalidEcsState", 400, Meaning::InstanceState),
            ("InvalidSecurityToken.Expired", 400, Meaning::ExpiredCredentials),
            ("InvalidTimeStamp.Expired", 400, Meaning::Clock),
            ("Forbidden.RAM", 403, Meaning::Forbidden),
            ("InvalidAccessKeyId.NotFound", 404, Meaning::Forbidden),
            ("SignatureDoesNotMatch", 400, Meaning::Forbidden),
            ("InvalidParameter", 400, Meaning::Other),
        ] {
            let found = meaning(Action::CreateNetworkInterface, code, status, Some("vsw-1"));
            assert_eq!(found, expected, "{code}");
        }
    }

    #[test]
    fn an_instance_type_is_unknown_only_to_the_action_that_asks_for_it() {
        let code = "InvalidInstanceType.ValueNotSupported";
        let unknown = meaning(Action::DescribeInstanceTypes, code, 404, None);
        assert_eq!(unknown, Meaning::NotFound(Thing::InstanceType));
        assert_eq!(meaning(Action::AttachNetworkInterface, code, 400, None), Meaning::Other);
    }
}
