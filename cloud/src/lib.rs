//! The ECS/VPC `OpenAPI` and the instance metadata service: sign, limit, retry, and types.
//!
//! [`Ecs`] is the seam that the pool and its simulator share. A call takes a deadline and ends by
//! it, with an answer or with a [`CloudError`] that says whether the cloud may have acted. What
//! travels on the wire is private to this crate.

mod action;
mod credentials;
mod ecs;
mod eni;
mod error;
mod metadata;
mod token;

pub use action::{Action, Effect, Product, UnknownAction};
pub use credentials::CredentialsError;
pub use ecs::{
    AddressRequest, AssignAddresses, AttachEni, CreateEni, DetachEni, Ecs, EniFilter, NewEni,
};
pub use eni::{Eni, EniKind, EniStatus};
pub use error::{ApiError, CloudError, Meaning, Outcome, Thing, Transport, TransportKind};
pub use metadata::MetadataError;
pub use token::ClientToken;
