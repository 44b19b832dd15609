//! The network configuration that the daemon installs once it can serve, and that the container
//! runtime reads. The file in `deploy/` is the one source.

/// The text of `deploy/10-terway.conflist`.
pub const TEXT: &str = include_str!("../../deploy/10-terway.conflist");

/// Where the container runtime looks for it.
pub const PATH: &str = "/etc/cni/net.d/10-terway.conflist";
