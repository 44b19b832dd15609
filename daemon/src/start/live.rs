//! What a running daemon does with another configuration.

use std::sync::Arc;

use cloud::{AccessKey, Client, Credentials, Metadata, RateLimits};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::config::{Changes, Config, ConfigError};
use crate::ipam::Ipam;
use crate::metrics::Measured;
use crate::reload::TakeUp;
use crate::standalone::PodNetworkings;

use super::rules::Rules;

/// Who works by the configuration.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ipam: Ipam,
    pub(super) cloud: Arc<Client>,
    pub(super) measured: Arc<Measured<Client>>,
    pub(super) rules: Rules,
    pub(super) metadata: Arc<Metadata>,
    pub(super) pod_networkings: watch::Sender<PodNetworkings>,
}

impl TakeUp for Running {
    fn check<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, Result<(), ConfigError>> {
        self.rules.check(config, &*self.measured).boxed()
    }

    fn take_up(&self, config: &Config, pod_networkings: &PodNetworkings, changes: &Changes) {
        self.cloud.set_rate_limits(&rate_limits(config));
        // Not without need: a role's keys would be asked for again.
        if changes.live.iter().any(|change| CREDENTIALS.contains(&change.key)) {
            self.cloud.set_credentials(credentials(config, Arc::clone(&self.metadata)));
        }
        // The pool knows a PodNetworking before a pod can choose it.
        self.ipam.reconfigure(config.clone(), pod_networkings.clone());
        self.pod_networkings.send_replace(pod_networkings.clone());
    }
}

/// Keys of [`credentials`].
const CREDENTIALS: [&str; 3] = ["access_key", "access_secret", "credential_path"];

/// The first usable wins: key of a user, token file, RAM role.
pub(super) fn credentials(config: &Config, metadata: Arc<Metadata>) -> Credentials {
    let key = config.access_key.as_ref().map(|key| {
        Credentials::AccessKey(AccessKey { id: key.id.clone(), secret: key.secret.clone() })
    });
    let file = config.credential_path.as_ref().map(Credentials::token_file);
    let role = Credentials::ram_role(metadata);
    match (key, file) {
        // It has always keys: nothing is asked of the others.
        (Some(key), _) => key,
        (None, Some(file)) => Credentials::first_of(vec![file, role]),
        (None, None) => role,
    }
}

pub(super) fn rate_limits(config: &Config) -> RateLimits {
    config.rate_limit.iter().map(|(action, limit)| (*action, *limit)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_first_credentials_that_are_configured_sign() {
        let metadata = Arc::new(Metadata::new("http://127.0.0.1:9").unwrap());
        let signs = |keys: &str| {
            let conf = format!(r#"{{"security_group": "sg-1" {keys}}}"#);
            let (config, _) = Config::parse(&conf, Path::new("eni_conf")).unwrap();
            credentials(&config, Arc::clone(&metadata))
        };
        let (key, file) =
            (r#", "access_key": "AK", "access_secret": "s""#, r#", "credential_path": "/t""#);
        let found = signs(&format!("{key}{file}"));
        assert!(matches!(&found, Credentials::AccessKey(key) if key.id == "AK"), "{found:?}");
        let found = signs(file);
        assert!(matches!(found, Credentials::FirstOf(_)), "{found:?}");
        let found = signs("");
        assert!(matches!(found, Credentials::RamRole(_)), "{found:?}");
    }
}
