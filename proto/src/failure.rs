//! How a failure crosses the wire: a [`Failure`] inside a `google.rpc.Status` in the status's
//! details, so that generic gRPC tools can read it too.

use prost::Message as _;
use tonic::{Code, Status};

use crate::agent::{Failure, Reason};

/// `google.rpc.Status`.
#[allow(missing_debug_implementations, clippy::all, clippy::pedantic, reason = "generated")]
mod rpc {
    tonic::include_proto!("google.rpc");
}

const TYPE_URL: &str = "type.googleapis.com/terway.agent.v1.Failure";

/// The gRPC status of a failure.
pub fn to_status(failure: &Failure) -> Status {
    let code = grpc_code(failure.reason());
    let detail = prost_types::Any { type_url: TYPE_URL.to_owned(), value: failure.encode_to_vec() };
    let status = rpc::Status {
        code: i32::from(code),
        message: failure.message.clone(),
        details: vec![detail],
    };
    Status::with_details(code, failure.message.clone(), status.encode_to_vec().into())
}

/// The failure in a status, if there is one.
pub fn from_status(status: &Status) -> Option<Failure> {
    let status = rpc::Status::decode(status.details()).ok()?;
    let detail = status.details.into_iter().find(|any| any.type_url == TYPE_URL)?;
    Failure::decode(detail.value.as_slice()).ok()
}

/// The CNI error code of a reason (CNI spec 1.1.0, "Error"; from 100 on our own).
pub const fn cni_code(reason: Reason) -> u32 {
    match reason {
        Reason::UnsupportedField => 2,
        Reason::UnknownContainer => 3,
        Reason::BadEnvironment => 4,
        Reason::Io => 5,
        Reason::InvalidConfig => 7,
        Reason::OwnNamespace => 8,
        Reason::TryAgainLater => 11,
        Reason::NotAvailable => 50,
        Reason::NotAvailableAndLimited => 51,
        Reason::VswitchExhausted => 100,
        Reason::QuotaReached => 101,
        Reason::Throttled => 102,
        Reason::PodEniNotBound => 103,
        Reason::KernelFeatureMissing => 105,
        Reason::CheckFailed | Reason::Unspecified => 999,
    }
}

const fn grpc_code(reason: Reason) -> Code {
    match reason {
        Reason::UnsupportedField
        | Reason::BadEnvironment
        | Reason::InvalidConfig
        | Reason::OwnNamespace => Code::InvalidArgument,
        Reason::UnknownContainer => Code::NotFound,
        Reason::TryAgainLater | Reason::NotAvailable | Reason::NotAvailableAndLimited => {
            Code::Unavailable
        }
        Reason::VswitchExhausted | Reason::QuotaReached | Reason::Throttled => {
            Code::ResourceExhausted
        }
        Reason::PodEniNotBound | Reason::KernelFeatureMissing | Reason::CheckFailed => {
            Code::FailedPrecondition
        }
        Reason::Io | Reason::Unspecified => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        let failure = Failure {
            reason: Reason::VswitchExhausted.into(),
            message: "vSwitch vsw-1 has no free address".to_owned(),
            details: "0 of 252 free".to_owned(),
        };
        let status = to_status(&failure);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(from_status(&status), Some(failure));
    }
}
