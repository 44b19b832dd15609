//! The ECS/VPC `OpenAPI` and the instance metadata service: sign, limit, retry, and types.
//!
//! [`Ecs`] is the seam that the pool and its simulator share. A call has a deadline and ends by
//! it, with an answer or with a [`CloudError`] that says whether the cloud may have acted. What
//! travels on the wire is private to this crate.

mod action;
mod answer;
mod bounds;
mod call;
mod client;
mod clock;
mod code;
mod credentials;
mod ecs;
mod endpoint;
mod eni;
mod error;
#[cfg(test)]
mod fixture;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod limit;
mod metadata;
mod options;
mod patience;
mod request;
mod sign;
mod token;

pub use action::{Action, Effect, Product, UnknownAction};
pub use call::{Client, ClientOptions, LastError};
pub use credentials::{
    AccessKey, Credentials, CredentialsError, FirstOf, RamRole, TokenFile, TokenFileFault,
    TokenFileField,
};
pub use ecs::{
    AddressRequest, AssignAddresses, AssignPrefixes, AttachEni, CreateEni, DetachEni, Ecs,
    EniFilter, NewEni,
};
pub use endpoint::{EndpointError, EndpointOptions, Endpoints};
pub use eni::{Eni, EniKind, EniStatus};
pub use error::{ApiError, CloudError, Meaning, Outcome, Thing, Transport, TransportKind};
pub use http::SetupError;
pub use limit::RateLimits;
pub use metadata::{EniFacts, InstanceFacts, Metadata, MetadataError, MetadataSetupError};
pub use options::{CallOptions, Priority};
pub use token::ClientToken;
