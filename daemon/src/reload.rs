//! Live reload: looks at the directory of `--standalone`, takes up what can be taken up while the
//! daemon runs, and says what cannot. A bad file changes nothing.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::failure::chain;
use crate::config::{Change, Changes, Config, ConfigError, Remark};
use crate::metrics::{Metrics, ReloadResult};
use crate::standalone::{self, Fingerprint, Manifests, PodNetworkings, Sources};

/// Between two looks. What differs is taken up when two looks in a row see the same, so that a file
/// that is being written is not read by halves.
const PERIOD: Duration = Duration::from_secs(2);

/// Whoever works by the configuration.
pub trait TakeUp: Debug + Send + Sync {
    /// What a file alone does not tell: an error is a refusal. `config` is what would be in force.
    fn check<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, Result<(), ConfigError>>;

    /// From now on. Keys that need a restart have the values that they had.
    fn take_up(&self, config: &Config, pod_networkings: &PodNetworkings, changes: &Changes);
}

/// How the files stand to what the daemon runs with.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The files are bad, and what was there before is in force.
    pub refused: Option<Refused>,
    /// Keys that wait for a restart.
    pub restart: Vec<&'static str>,
}

/// Bad files.
#[derive(Debug, Clone)]
pub struct Refused {
    /// When they were seen first.
    pub since: Instant,
    /// File, key, value and rule.
    pub why: String,
}

/// Looks, and takes up.
#[derive(Debug)]
pub struct Reloader {
    directory: PathBuf,
    /// What the daemon runs with.
    config: Config,
    pod_networkings: PodNetworkings,
    remarks: Vec<Remark>,
    restart: Vec<Change>,
    /// What was judged last.
    judged: Fingerprint,
    takes: Arc<dyn TakeUp>,
    metrics: Metrics,
    standing: watch::Sender<Standing>,
}

impl Reloader {
    /// The daemon was started with `manifests`, which are `directory`'s.
    pub fn new(
        directory: PathBuf,
        manifests: Manifests,
        takes: Arc<dyn TakeUp>,
        metrics: Metrics,
    ) -> Self {
        let Manifests { config, remarks, pod_networkings, fingerprint } = manifests;
        Self {
            directory,
            config,
            pod_networkings,
            remarks,
            restart: Vec::new(),
            judged: fingerprint,
            takes,
            metrics,
            standing: watch::Sender::new(Standing::default()),
        }
    }

    /// How the files stand, as of the last look.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut seen = self.judged;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
            let directory = self.directory.clone();
            let look = tokio::task::spawn_blocking(move || Sources::read(&directory)).await;
            // A look that panicked or was cut off by the stop saw nothing.
            let Ok(look) = look else { continue };
            let found = Fingerprint::of(&look);
            if found != self.judged && found == seen {
                self.judged = found;
                tokio::select! {
                    // What is not judged is judged by the next start. May be dropped.
                    () = stop.cancelled() => return Ok(()),
                    () = self.judge(look) => {}
                }
            }
            seen = found;
        }
    }

    async fn judge(&mut self, sources: Result<Sources, ConfigError>) {
        match self.checked(sources).await {
            Ok(manifests) => self.take(manifests),
            Err(error) => self.refuse(&error),
        }
    }

    async fn checked(
        &self,
        sources: Result<Sources, ConfigError>,
    ) -> Result<Manifests, ConfigError> {
        let manifests = sources?.parse()?;
        self.takes.check(&self.config.taking_up(manifests.config.clone())).await?;
        Ok(manifests)
    }

    fn refuse(&self, error: &ConfigError) {
        let why = chain(error);
        self.metrics.reload(ReloadResult::Refused);
        tracing::error!(error = why, "the new configuration is refused; the one before stays");
        self.standing.send_modify(|standing| {
            let since = standing.refused.take().map_or_else(Instant::now, |refused| refused.since);
            standing.refused = Some(Refused { since, why });
        });
    }

    fn take(&mut self, new: Manifests) {
        let Manifests { config, remarks, pod_networkings, fingerprint: _ } = new;
        let changes = self.config.changes(&config);
        let named = self.pod_networkings.differences(&pod_networkings);
        if remarks != self.remarks {
            standalone::say(&remarks);
        }
        self.config = self.config.taking_up(config);
        self.pod_networkings = pod_networkings;
        self.remarks = remarks;
        // Also when nothing differs: who corrects a bad file wants to hear that it is read.
        let (live, pods) = (phrases(&changes.live), list(&named));
        tracing::info!(changes = live, pod_networkings = pods, "the configuration is taken up");
        if !changes.live.is_empty() || !named.is_empty() {
            self.takes.take_up(&self.config, &self.pod_networkings, &changes);
        }
        self.metrics.reload(ReloadResult::Taken);
        self.wait_for_restart(changes.restart);
    }

    /// What waits is said when it changes.
    fn wait_for_restart(&mut self, changes: Vec<Change>) {
        if changes != self.restart {
            if changes.is_empty() {
                tracing::info!("no change waits for a restart any more");
            } else {
                let changes = phrases(&changes);
                tracing::warn!(changes, "these keys are taken up by the daemon's next start only");
            }
        }
        let restart = changes.iter().map(|change| change.key).collect();
        self.restart = changes;
        self.standing.send_replace(Standing { refused: None, restart });
    }
}

fn phrases(changes: &[Change]) -> String {
    let phrases: Vec<_> = changes.iter().map(ToString::to_string).collect();
    or_none(phrases.join("; "))
}

fn list(names: &BTreeSet<String>) -> String {
    or_none(names.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}
