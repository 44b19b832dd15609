//! Who we are to the cloud.

/// Why there is no key to sign with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The instance's RAM role could not be read.
    #[error("RAM role from the metadata service")]
    RamRole(#[source] crate::MetadataError),
}
