//! What the daemon counts and measures, as `OpenMetrics` text for the debug socket. Names and labels
//! are closed sets, and stand in one snapshot test.

mod calls;
mod labels;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use proto::debug::Pool;

use crate::ipam::DisagreementKind;

pub use calls::{BudgetWaits, Measured};
use labels::{Action, Disagreement};
pub use labels::{AddressState, CallResult, ReloadResult};

/// Seconds that a call to the cloud takes: from an answer at hand to the longest deadline.
const CALL_SECONDS: [f64; 10] = [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

/// A handle to all of them; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    registry: Mutex<Registry>,
    enis: Gauge,
    enis_limit: Gauge,
    addresses: Family<State, Gauge>,
    capacity: Gauge,
    members: Gauge,
    members_limit: Gauge,
    waiting: Gauge,
    calls: Family<Call, Counter>,
    durations: Family<Of, Histogram, fn() -> Histogram>,
    disagreements: Family<Kind, Counter>,
    reloads: Family<Reload, Counter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: AddressState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    action: Action,
    result: CallResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: Disagreement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    result: ReloadResult,
}

impl Default for Metrics {
    fn default() -> Self {
        let families = Families {
            registry: Mutex::default(),
            enis: Gauge::default(),
            enis_limit: Gauge::default(),
            addresses: Family::default(),
            capacity: Gauge::default(),
            members: Gauge::default(),
            members_limit: Gauge::default(),
            waiting: Gauge::default(),
            calls: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            disagreements: Family::default(),
            reloads: Family::default(),
        };
        // A counter that is there from the start shows its first step.
        for kind in DisagreementKind::ALL {
            drop(families.disagreements.get_or_create(&Kind { kind: Disagreement(kind) }));
        }
        for result in ReloadResult::ALL {
            drop(families.reloads.get_or_create(&Reload { result }));
        }
        let metrics = Self(Arc::new(families));
        metrics.register(|registry| metrics.0.register(registry));
        metrics
    }
}

impl Metrics {
    /// For families that live elsewhere.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.0.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Two witnesses differ.
    pub fn disagreement(&self, kind: DisagreementKind) {
        self.0.disagreements.get_or_create(&Kind { kind: Disagreement(kind) }).inc();
    }

    /// The files of the configuration were judged.
    pub fn reload(&self, result: ReloadResult) {
        self.0.reloads.get_or_create(&Reload { result }).inc();
    }

    /// A call to the cloud ended, after that long, waiting for our own budget included.
    pub fn cloud_call(&self, action: cloud::Action, result: CallResult, took: Duration) {
        let action = Action(action);
        self.0.calls.get_or_create(&Call { action, result }).inc();
        self.0.durations.get_or_create(&Of { action }).observe(took.as_secs_f64());
    }

    /// How the pool stands.
    pub fn pool(&self, pool: &Pool) {
        let Families { enis, enis_limit, addresses, capacity, members, .. } = &*self.0;
        let Families { members_limit, waiting, .. } = &*self.0;
        for (state, number) in [
            (AddressState::Idle, pool.idle),
            (AddressState::Used, pool.used),
            (AddressState::Resting, pool.resting),
            (AddressState::Leaving, pool.leaving),
        ] {
            addresses.get_or_create(&State { state }).set(number.into());
        }
        enis.set(pool.enis.into());
        enis_limit.set(pool.max_enis.into());
        capacity.set(pool.capacity.into());
        members.set(pool.members.into());
        members_limit.set(pool.max_members.into());
        waiting.set(pool.waiting.into());
    }

    /// All of them as `OpenMetrics` text.
    pub fn text(&self) -> String {
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a text takes all that is written to it");
        text
    }
}

impl Families {
    fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("terway_pool_enis", "ENIs of this node that the daemon manages", &self.enis),
            ("terway_pool_enis_limit", "ENIs that there may be", &self.enis_limit),
            (
                "terway_pool_capacity_addresses",
                "Addresses that the instance type has room for on shared ENIs",
                &self.capacity,
            ),
            ("terway_pool_members", "Member ENIs of the trunk", &self.members),
            ("terway_pool_members_limit", "Member ENIs that there may be", &self.members_limit),
            ("terway_pool_waiting", "ADDs that wait for an address", &self.waiting),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let help = "Addresses of shared ENIs, by what they are for now";
        registry.register("terway_pool_addresses", help, self.addresses.clone());
        let help = "Calls to the cloud that ended, by what the answer means";
        registry.register("terway_cloud_calls", help, self.calls.clone());
        let (name, help) = (
            "terway_cloud_call_duration",
            "How long calls to the cloud took, with repetitions and waiting for our own budget",
        );
        registry.register_with_unit(name, help, Unit::Seconds, self.durations.clone());
        let help = "Times that two of checkpoint, memory, kernel and cloud said different things";
        registry.register("terway_disagreements", help, self.disagreements.clone());
        let help = "Changes of the configuration's files that were judged while the daemon ran";
        registry.register("terway_config_reloads", help, self.reloads.clone());
    }
}
