//! CHECK and repair: what the kernel has against what is desired.

use std::collections::{BTreeMap, BTreeSet};

use model::SandboxKey;

use super::actor::{Actor, primary};
use super::desired::{self, PodNetwork};
use super::diff::diff;
use super::foreign::ahead;
use super::kernel::survey::{Scope, Survey};
use super::kernel::{KernelError, OnError};
use super::types::{Change, Dev, Object, Op, Slot, State};
use super::{DatapathError, EniLink, Pod, PodLink, Primary, Repairs, names};
use crate::failpoints::Point;

/// What a look at the survey came to.
pub(super) enum Mended {
    /// Something changed while it was taken: take another.
    Stale,
    /// `again` says that ops were run, which may have had effects of their own.
    Done { repairs: Repairs, again: bool },
}

impl Actor {
    /// Our links, to look at.
    pub(super) fn devs(&self) -> Vec<Dev> {
        let enis = self.found_enis().into_iter().map(|eni| eni.dev());
        let pods = self.pods.values().map(|known| {
            let PodLink { host, host_index, .. } = &known.pod.link;
            Dev { index: *host_index, name: host.clone() }
        });
        enis.chain(pods).collect()
    }

    /// What to read for a repair, and when that was said.
    pub(super) fn scope(&self) -> (Scope, u64) {
        let netns = |known: &PodNetwork| known.pod.spec.netns.clone();
        let pods = self.pods.iter().map(|(key, known)| (key.clone(), netns(known)));
        (Scope { pods: pods.collect(), ..self.node_scope() }, self.generation)
    }

    /// What to read for a CHECK.
    pub(super) fn pod_scope(&self, key: &SandboxKey) -> Result<Scope, DatapathError> {
        let known = self.pods.get(key).ok_or_else(|| DatapathError::UnknownPod(key.clone()))?;
        let pods = [(key.clone(), known.pod.spec.netns.clone())].into();
        Ok(Scope { pods, ..self.node_scope() })
    }

    fn node_scope(&self) -> Scope {
        let switches =
            |object: &&Object| matches!(object, Object::Sysctl(..) | Object::LinkSysctl(..));
        Scope {
            enis: self.enis.values().map(|(spec, _)| spec.mac).collect(),
            pods: BTreeMap::new(),
            sysctls: self.watched().desired.node.values().filter(switches).cloned().collect(),
        }
    }

    fn actual(&self, survey: &Survey) -> Result<State, DatapathError> {
        let enis = self.found_enis().iter().map(|eni| eni.link.index).collect();
        survey.state(&enis, &self.node.programs, &self.kernel.bpf)
    }

    /// How the kernel differs from what the pod and its ENI should have.
    pub(super) fn check(
        &self,
        key: &SandboxKey,
        survey: &Survey,
    ) -> Result<Vec<String>, DatapathError> {
        let known = self.pods.get(key).ok_or_else(|| DatapathError::UnknownPod(key.clone()))?;
        if let Some(why) = survey.closed.get(key) {
            return Ok(vec![why.clone()]);
        }
        let enis = self.found_enis();
        let mut wanted = desired::pod_state(&self.node, &enis, known);
        wanted.node.extend(desired::node_objects(&self.node));
        match enis.iter().find(|eni| eni.spec.id == known.pod.spec.eni) {
            Some(eni) => wanted.node.extend(desired::eni_objects(&self.node, eni)),
            None => return Ok(vec![format!("the link of {} is gone", known.pod.spec.eni)]),
        }
        let actual = self.actual(survey)?.within(&wanted);
        Ok(diff(&actual, &wanted).iter().map(Op::finding).collect())
    }

    /// Looks at a survey taken at `generation`, and runs the difference.
    pub(super) fn mend(
        &mut self,
        survey: &Survey,
        generation: Option<u64>,
    ) -> Result<Mended, DatapathError> {
        if generation.is_some_and(|generation| generation != self.generation) {
            return Ok(Mended::Stale);
        }
        let mut repairs = Repairs::default();
        self.observe(survey, &mut repairs);
        self.rewrite();
        let mut actual = self.actual(survey)?;
        let wanted = self.wanted(survey, &mut actual, &mut repairs);
        let ops = diff(&actual, &wanted);
        let failures = self.kernel.run(&ops, OnError::Continue, Point::RepairStep);
        let failed: Vec<&Op> = failures.iter().map(|failure| &failure.op).collect();
        let done: Vec<String> =
            ops.iter().filter(|op| !failed.contains(op)).map(Op::finding).collect();
        let again = !done.is_empty();
        for op in &ops {
            if let Change::Add(Object::Pair(pair)) = &op.change {
                self.settle(pair.host.index);
            }
        }
        repairs.mended.extend(done);
        let mut moved = Vec::new();
        for failure in failures {
            match (&failure.error, failure.op.object()) {
                (KernelError::Taken, Object::Pair(pair)) => moved.push(pair.alias.clone()),
                // Neither done nor the cause: the op that failed before it says that.
                (KernelError::NotRun, _) => {}
                _ => repairs.left.push(failure.to_string()),
            }
        }
        for alias in moved {
            self.move_pod(&alias, &mut repairs)?;
        }
        for eni in self.found_enis() {
            self.precede(&eni)?;
        }
        Ok(Mended::Done { repairs, again })
    }

    /// Takes from the survey what what is desired depends on.
    fn observe(&mut self, survey: &Survey, repairs: &mut Repairs) {
        for (id, (spec, link)) in &mut self.enis {
            let found = survey.nic(spec.mac).map(|found| EniLink::seen(link.as_ref(), found));
            match (&found, &link) {
                (None, _) => {
                    repairs.left.push(format!("the link of {id} is gone"));
                    repairs.unplugged.push(id.clone());
                }
                (Some(found), Some(link)) if found == link => {}
                (Some(found), _) => {
                    let EniLink { index, name, .. } = found;
                    repairs.mended.push(format!("the link of {id} is {name}, index {index}"));
                }
            }
            *link = found;
        }
        // Who filters one pod filters all of them, and each from its first packet on.
        if !self.pods.is_empty() {
            let foreign = survey.foreign_filters();
            let mut links = self.pods.values().map(|known| known.pod.link.host_index);
            self.foreign_filters = links.any(|link| foreign.contains(&link));
        }
        for known in self.pods.values_mut() {
            known.foreign_filter = self.foreign_filters;
        }
        self.tell_ahead(survey);
        let own: BTreeSet<_> = self.found_enis().into_iter().map(|eni| eni.link.name).collect();
        let advertised = survey.advertised.iter().filter(|name| !own.contains(name)).cloned();
        self.node.advertised.extend(advertised);
        match primary(survey, self.primary_mac) {
            Ok(primary) if primary != self.node.primary => {
                let Primary { name, v4, v6, .. } = &primary;
                repairs.mended.push(format!("the node is {v4:?} {v6:?} on {name} now"));
                self.node.primary = primary;
            }
            Ok(_) => {}
            Err(error) => repairs.left.push(error.to_string()),
        }
    }

    /// Once for each as long as it is there.
    fn tell_ahead(&mut self, survey: &Survey) {
        let enis: BTreeSet<_> = self.found_enis().iter().map(|eni| eni.link.index).collect();
        let seen = ahead(&survey.filters, |index| enis.contains(&index));
        for ahead in seen.keys().filter(|ahead| !self.ahead.contains_key(ahead)) {
            tracing::warn!(
                filter = %ahead,
                or_else = ahead.if_it_ends_the_chain(),
                "a foreign filter runs before ours; it must let the chain go on (TC_ACT_UNSPEC)"
            );
        }
        self.ahead = seen;
    }

    /// What is desired, without what cannot be looked at: a pod whose namespace is closed to us is
    /// left as it is if its link stands, and nothing is kept for it if not.
    fn wanted(&self, survey: &Survey, actual: &mut State, repairs: &mut Repairs) -> State {
        let mut pods: Vec<PodNetwork> = Vec::new();
        let mut closed = Vec::new();
        for (key, known) in &self.pods {
            let Some(why) = survey.closed.get(key) else {
                pods.push(known.clone());
                continue;
            };
            repairs.left.push(format!("sandbox {key}: {why}"));
            let slot = Slot::Pair(known.pod.link.host_index);
            if let Some(Object::Pair(pair)) = actual.node.get_mut(&slot) {
                desired::assume_peer(pair, &known.pod);
                pods.push(known.clone());
                closed.push(key);
            }
        }
        let mut wanted = desired::desired(&self.node, &self.found_enis(), &pods, &self.tombstones);
        for key in closed {
            wanted.pods.remove(key);
        }
        wanted
    }

    /// Somebody has the numbers of a pod's links: others are taken.
    fn move_pod(&mut self, alias: &str, repairs: &mut Repairs) -> Result<(), DatapathError> {
        let known = self.pods.iter().find(|(key, _)| names::alias(key) == alias);
        let Some(pod) = known.map(|(_, known)| known.pod.clone()) else { return Ok(()) };
        let key = pod.spec.key.clone();
        self.roll_back(&key);
        let link = self.plan_pod(&pod.spec)?;
        let link = self.add_pod(Pod { link, spec: pod.spec })?;
        repairs.mended.push(format!("the links of {key} were made anew as {}", link.host));
        repairs.moved.push((key, link));
        Ok(())
    }
}
