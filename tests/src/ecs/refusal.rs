//! What the cloud says when it does not do what it was asked: a code, a message and a status, as
//! the public pages of the API list them.

use std::fmt::Display;

use serde_json::{Value, json};

/// An error answer of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// `Code`.
    pub code: String,
    /// `Message`.
    pub message: String,
}

impl Refusal {
    /// Any code; the real ones have constructors below.
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// The body, as the API words it.
    pub(crate) fn body(&self, request_id: &str, host: &str) -> Value {
        json!({
            "RequestId": request_id,
            "HostId": host,
            "Code": self.code,
            "Message": self.message,
            "Recommend": format!("https://api.alibabacloud.com/troubleshoot?q={}", self.code),
        })
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        let text = format!("The input parameter {parameter} that is mandatory is not supplied.");
        Self::new(400, "MissingParameter", text)
    }

    pub(crate) fn invalid(parameter: &str, why: impl Display) -> Self {
        let text = format!("The specified parameter {parameter} is not valid: {why}.");
        Self::new(400, "InvalidParameter", text)
    }

    pub(crate) fn unsupported(parameter: &str) -> Self {
        let text = format!("The parameter {parameter} does not exist or is not supported here.");
        Self::new(400, "UnsupportedParameter", text)
    }

    pub(crate) fn amount(parameter: &str, why: impl Display) -> Self {
        let text = format!("The specified {parameter} is not valid: {why}.");
        Self::new(403, "InvalidParam.Amount", text)
    }

    pub(crate) fn eni_not_found(eni: impl Display) -> Self {
        let text = format!("The specified NetworkInterfaceId {eni} does not exist.");
        Self::new(404, "InvalidEniId.NotFound", text)
    }

    pub(crate) fn instance_not_found(instance: impl Display) -> Self {
        let text = format!("The specified InstanceId {instance} does not exist.");
        Self::new(404, "InvalidEcsId.NotFound", text)
    }

    pub(crate) fn vswitch_not_found(vswitch: impl Display) -> Self {
        let text = format!("The specified VSwitchId {vswitch} does not exist.");
        Self::new(404, "InvalidVSwitchId.NotFound", text)
    }

    pub(crate) fn group_not_found(group: impl Display) -> Self {
        let text = format!("The specified SecurityGroupId {group} does not exist.");
        Self::new(404, "InvalidSecurityGroupId.NotFound", text)
    }

    pub(crate) fn eni_state(eni: impl Display, state: impl Display, asked: &str) -> Self {
        let text = format!("The ENI {eni} is {state}, which does not support {asked}.");
        Self::new(400, "InvalidOperation.InvalidEniState", text)
    }

    pub(crate) fn instance_state(instance: impl Display, state: impl Display) -> Self {
        let text = format!("The instance {instance} is {state}, which does not support this.");
        Self::new(400, "InvalidOperation.InvalidEcsState", text)
    }

    pub(crate) fn eni_type(why: impl Display) -> Self {
        let text = format!("The type of the ENI does not support this operation: {why}.");
        Self::new(403, "InvalidOperation.InvalidEniType", text)
    }

    pub(crate) fn conflict(eni: impl Display) -> Self {
        let text = format!("Another operation on {eni} is in progress. Try again later.");
        Self::new(403, "Operation.Conflict", text)
    }

    pub(crate) fn addresses_used_up(vswitch: impl Display) -> Self {
        let text = format!("The specified VSwitch \"{vswitch}\" has not enough IpAddress.");
        Self::new(403, "InvalidVSwitchId.IpNotEnough", text)
    }

    pub(crate) fn zone_mismatch(eni: impl Display, instance: impl Display) -> Self {
        let text = format!("The ENI {eni} and the instance {instance} are not in the same zone.");
        Self::new(403, "InvalidOperation.AvailabilityZoneMismatch", text)
    }

    pub(crate) fn vpc_mismatch(one: impl Display, other: impl Display) -> Self {
        let text = format!("{one} and {other} are not in the same VPC.");
        Self::new(403, "InvalidOperation.VpcMismatch", text)
    }

    pub(crate) fn internal(why: impl Display) -> Self {
        let text = format!("The request processing has failed due to some unknown error: {why}.");
        Self::new(500, "InternalError", text)
    }
}
