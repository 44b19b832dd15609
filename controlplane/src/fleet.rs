//! Many ENIs and their lives: takes answers in, gives records and calls out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use cloud::{ClientToken, Meaning, Outcome};
use model::{EniId, InstanceId};

use crate::call::{Answer, Call, CallError, Change, Verb};
use crate::eni::{Eni, Goal, Stage};
use crate::life::{Action, Creation, Failure, Seen, Timing, View, is_final, next};
use crate::pace::Pace;
use crate::random::Random;

/// What a fleet needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetSettings {
    /// The instance that ENIs are attached to.
    pub instance: InstanceId,
    /// How patient it is.
    pub timing: Timing,
    /// What is left undone for now.
    pub degradation: Degradation,
    /// An ENI with one of these tags is somebody else's: it is not changed.
    pub blocked: Vec<(String, String)>,
}

/// An ENI that is somebody else's by its tags is looked at again after this.
const HELD: Duration = Duration::from_mins(20);

/// What is left undone, so that a cloud in trouble is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Degradation {
    /// Nothing.
    #[default]
    Off,
    /// `l1`: nothing is given back, detached or deleted, and the truth is not read again.
    NoReleases,
    /// `l0`: the cloud is not called at all.
    NoCalls,
}

impl Degradation {
    /// Whether the cloud is called.
    pub const fn calls(self) -> bool {
        !matches!(self, Self::NoCalls)
    }

    /// Whether anything is given back, detached or deleted.
    pub const fn releases(self) -> bool {
        matches!(self, Self::Off)
    }
}

impl FleetSettings {
    /// What to do next for one ENI, and nothing that changes it while it has a blocked tag.
    fn next<T>(&self, record: &Eni<T>, view: &View, now: Duration) -> Action {
        let action = next(record, view, &self.instance, &self.timing, now);
        let (Action::Change(_, id), Some(Seen { at, eni: Some(eni) })) = (&action, &view.seen)
        else {
            return action;
        };
        if !self.blocked.iter().any(|(key, value)| eni.tags.get(key) == Some(value)) {
            return action;
        }
        let again = at.saturating_add(HELD);
        if now < again { Action::Wait(Some(again)) } else { Action::Describe(id.clone()) }
    }

    const fn leads_on(&self, goal: Goal) -> bool {
        match goal {
            Goal::Bound => self.degradation.calls(),
            Goal::Gone => self.degradation.releases(),
        }
    }
}

/// ENIs of one owner, by token.
#[derive(Debug, Clone)]
pub struct Fleet<T> {
    settings: FleetSettings,
    lives: BTreeMap<ClientToken, Life<T>>,
    random: Random,
    unsaved: Vec<ClientToken>,
    forgotten: Vec<ClientToken>,
}

#[derive(Debug, Clone)]
struct Life<T> {
    record: Eni<T>,
    view: View,
}

/// What follows from what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps<T> {
    /// Records that must be durable before any of the calls is made.
    pub puts: Vec<Eni<T>>,
    /// Records whose loss a restart mends by itself.
    pub notes: Vec<Eni<T>>,
    /// Records to remove; their loss, too, a restart mends.
    pub removes: Vec<ClientToken>,
    /// Calls to make, now and side by side.
    pub calls: Vec<Call>,
    /// What the owner should know.
    pub notices: Vec<Notice>,
}

/// What the owner should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It is attached; this is how the cloud describes it, and when it was asked.
    Bound(ClientToken, Box<cloud::Eni>, Duration),
    /// It will not be: it goes, and the owner has to think of something else.
    Failed(ClientToken, Failure),
    /// It is gone, and its record with it.
    Gone(ClientToken),
}

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Self {
            puts: Vec::new(),
            notes: Vec::new(),
            removes: Vec::new(),
            calls: Vec::new(),
            notices: Vec::new(),
        }
    }
}

impl<T: Clone> Fleet<T> {
    /// A fleet with the ENIs of these records, as read after a restart.
    pub fn new(settings: FleetSettings, records: Vec<Eni<T>>, seed: u64, now: Duration) -> Self {
        let life = |record| Life { record, view: View::recovered(now) };
        let lives = records.into_iter().map(|r| (r.token.clone(), life(r))).collect();
        Self {
            settings,
            lives,
            random: Random::new(seed),
            unsaved: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// From now on.
    pub fn reconfigure(&mut self, settings: FleetSettings) {
        self.settings = settings;
    }

    /// All records, by token.
    pub fn iter(&self) -> impl Iterator<Item = &Eni<T>> {
        self.lives.values().map(|life| &life.record)
    }

    /// One record.
    pub fn get(&self, token: &ClientToken) -> Option<&Eni<T>> {
        self.lives.get(token).map(|life| &life.record)
    }

    /// What was observed of one.
    pub fn view(&self, token: &ClientToken) -> Option<&View> {
        self.lives.get(token).map(|life| &life.view)
    }

    /// Takes a record in: an intent to make an ENI, or one that was found attached. It is written
    /// down by the next [`advance`](Self::advance), before anything is asked for it.
    pub fn add(&mut self, record: Eni<T>) {
        self.unsaved.push(record.token.clone());
        let life = Life { record, view: View::fresh() };
        self.lives.insert(life.record.token.clone(), life);
    }

    /// Lets an ENI go: it is detached and deleted, whatever has become of it. Again is fine.
    pub fn release(&mut self, token: &ClientToken) {
        let Some(life) = self.lives.get_mut(token) else { return };
        if life.record.goal != Goal::Gone {
            life.record.goal = Goal::Gone;
            // What was seen on the way up may be old by now, but a pause is over.
            if life.view.create != Creation::Doubt {
                life.view.not_before = Duration::ZERO;
            }
            life.view.tries = 0;
            if matches!(life.record.stage, Stage::Bound(_)) {
                // What it was like when it came says nothing of its tags now.
                life.view.seen = None;
            }
            self.unsaved.push(token.clone());
        }
    }

    /// Forgets an ENI that is not ours any more: nothing is done to it.
    pub fn forget(&mut self, token: &ClientToken) {
        if self.lives.remove(token).is_some() {
            self.forgotten.push(token.clone());
        }
    }

    /// When [`advance`](Self::advance) has something to do without any event.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let settings = &self.settings;
        let lives = self.lives.values().filter(|life| settings.leads_on(life.record.goal));
        lives
            .filter_map(|life| match settings.next(&life.record, &life.view, now) {
                Action::Wait(until) => until,
                _ => Some(now),
            })
            .min()
    }

    /// Everything that is to be done now.
    pub fn advance(&mut self, now: Duration) -> Steps<T> {
        let mut steps = Steps::default();
        let mut looks = Vec::new();
        let tokens: Vec<_> = self.lives.keys().cloned().collect();
        for token in tokens {
            // A life takes a few silent steps at most (fail, forget) before a call or a pause.
            while self.turn(&token, now, &mut steps, &mut looks) {}
        }
        for ids in looks.chunks(Call::DESCRIBE_AT_MOST) {
            steps.calls.push(Call::Describe(ids.to_vec()));
        }
        for token in std::mem::take(&mut self.forgotten) {
            steps.removes.push(token.clone());
            steps.notices.push(Notice::Gone(token));
        }
        let unsaved = std::mem::take(&mut self.unsaved);
        let saved = self.lives.iter().filter(|(token, _)| unsaved.contains(token));
        steps.puts.extend(saved.map(|(_, life)| life.record.clone()));
        steps
    }

    /// Whether there is more to do for this life at once.
    fn turn(
        &mut self,
        token: &ClientToken,
        now: Duration,
        steps: &mut Steps<T>,
        looks: &mut Vec<EniId>,
    ) -> bool {
        let Entry::Occupied(mut entry) = self.lives.entry(token.clone()) else { return false };
        let Life { record, view } = entry.get_mut();
        if !self.settings.leads_on(record.goal) {
            return false;
        }
        let instance = &self.settings.instance;
        let call = match self.settings.next(record, view, now) {
            Action::Wait(_) => return false,
            Action::Find => Call::Find(token.clone()),
            Action::Create => Call::Create(Box::new(record.create())),
            Action::Describe(id) => {
                view.busy = true;
                looks.push(id);
                return false;
            }
            Action::Change(verb, id) => Call::Change(
                token.clone(),
                match verb {
                    Verb::Attach => Change::Attach(record.attach(id, instance)),
                    Verb::Detach => Change::Detach(record.detach(id, instance)),
                    Verb::Delete => Change::Delete(id),
                },
            ),
            Action::Bind(binding) => {
                record.stage = Stage::Bound(binding);
                steps.notes.push(record.clone());
                if let Some(Seen { at, eni: Some(eni) }) = &view.seen {
                    let eni = Box::new(eni.clone());
                    steps.notices.push(Notice::Bound(token.clone(), eni, *at));
                }
                return true;
            }
            Action::Fail(failure) => {
                record.goal = Goal::Gone;
                self.unsaved.push(token.clone());
                steps.notices.push(Notice::Failed(token.clone(), failure));
                return true;
            }
            Action::Forget => {
                entry.remove();
                steps.removes.push(token.clone());
                steps.notices.push(Notice::Gone(token.clone()));
                return false;
            }
        };
        view.busy = true;
        steps.calls.push(call);
        false
    }

    /// Takes an answer in; `begun` is when its call was handed out. [`advance`](Self::advance)
    /// says what follows, after the notices given here.
    pub fn answer(&mut self, answer: Answer, begun: Duration, now: Duration) -> Vec<Notice> {
        match answer {
            Answer::Found(token, found) => self.found(&token, found, begun, now),
            Answer::Created(token, made) => self.created(&token, made, begun, now),
            Answer::Changed(token, verb, done) => self.changed(&token, verb, done, now),
            Answer::Described(ids, seen) => {
                self.described(&ids, &seen, begun, now);
                Vec::new()
            }
        }
    }

    fn found(
        &mut self,
        token: &ClientToken,
        found: Result<Vec<cloud::Eni>, CallError>,
        begun: Duration,
        now: Duration,
    ) -> Vec<Notice> {
        let Some(life) = self.lives.get_mut(token) else { return Vec::new() };
        life.view.busy = false;
        match found {
            Err(error) => {
                let timing = &self.settings.timing;
                let pace = (&timing.read, timing.least(&error));
                life.view.pause(error, pace, &mut self.random, now);
            }
            Ok(found) => {
                let tag = |eni: &cloud::Eni| {
                    eni.tags.get(crate::TOKEN_TAG).is_some_and(|tag| tag == token.as_str())
                };
                match found.into_iter().find(tag) {
                    Some(eni) => life.made(eni, begun),
                    None => match life.view.create {
                        Creation::Mismatch | Creation::Doubt => {
                            life.view.create = Creation::Refused;
                            return life.refused(&mut self.unsaved);
                        }
                        _ => life.view.create = Creation::Repeat,
                    },
                }
            }
        }
        Vec::new()
    }

    fn created(
        &mut self,
        token: &ClientToken,
        made: Result<Box<cloud::Eni>, CallError>,
        begun: Duration,
        now: Duration,
    ) -> Vec<Notice> {
        let Some(life) = self.lives.get_mut(token) else { return Vec::new() };
        let view = &mut life.view;
        view.busy = false;
        let error = match made {
            Ok(eni) => {
                life.made(*eni, begun);
                return Vec::new();
            }
            Err(error) => error,
        };
        let mismatch = matches!(&error, CallError::Cloud(error)
            if error.meaning() == Some(&Meaning::TokenMismatch));
        let refused = matches!(&error, CallError::Cloud(error) if is_final(error));
        let unknown = matches!(&error, CallError::Cloud(error)
            if error.outcome() == Outcome::Unknown);
        let timing = &self.settings.timing;
        let pace = (&timing.create, timing.least(&error));
        view.pause(error, pace, &mut self.random, now);
        if unknown {
            view.create = Creation::Repeat;
            view.unanswered = Some(now);
        } else if mismatch {
            view.create = Creation::Mismatch;
        } else if refused {
            view.create = match view.unanswered {
                None => Creation::Refused,
                Some(at) => {
                    view.not_before = at.saturating_add(self.settings.timing.lag);
                    Creation::Doubt
                }
            };
            return life.refused(&mut self.unsaved);
        }
        Vec::new()
    }

    fn changed(
        &mut self,
        token: &ClientToken,
        verb: Verb,
        done: Result<(), CallError>,
        now: Duration,
    ) -> Vec<Notice> {
        let Some(life) = self.lives.get_mut(token) else { return Vec::new() };
        let timing = &self.settings.timing;
        let view = &mut life.view;
        view.busy = false;
        let error = match done {
            Ok(()) => {
                view.changed = Some((verb, now));
                view.looks = 0;
                view.tries = 0;
                view.trouble = None;
                view.not_before = now.saturating_add(timing.look.initial);
                return Vec::new();
            }
            Err(error) => error,
        };
        // Whatever was seen did not allow it, or is not so any more.
        view.seen = None;
        let mut refused = None;
        if let CallError::Cloud(cloud) = &error
            && is_final(cloud)
            && verb == Verb::Attach
            && life.record.goal == Goal::Bound
        {
            refused = Some(Failure::Cloud(cloud.clone()));
        }
        let pace = (timing.of(verb), timing.least(&error));
        view.pause(error, pace, &mut self.random, now);
        let Some(failure) = refused else { return Vec::new() };
        life.record.goal = Goal::Gone;
        self.unsaved.push(token.clone());
        vec![Notice::Failed(token.clone(), failure)]
    }

    fn described(
        &mut self,
        ids: &[EniId],
        seen: &Result<Vec<cloud::Eni>, CallError>,
        begun: Duration,
        now: Duration,
    ) {
        let timing = &self.settings.timing;
        let asked = |life: &&mut Life<T>| {
            life.view.busy && life.record.id().is_some_and(|id| ids.contains(id))
        };
        for life in self.lives.values_mut().filter(asked) {
            life.view.busy = false;
            match seen {
                Err(error) => {
                    let pace = (&timing.read, timing.least(error));
                    life.view.pause(error.clone(), pace, &mut self.random, now);
                }
                Ok(enis) => {
                    let eni = enis.iter().find(|eni| life.record.id() == Some(&eni.id));
                    life.view.see(eni.cloned(), begun);
                    let wait = timing.look.pause(life.view.looks, Duration::ZERO, &mut self.random);
                    life.view.looks = life.view.looks.saturating_add(1);
                    life.view.not_before = now.saturating_add(wait);
                }
            }
        }
    }
}

impl<T: Clone> Life<T> {
    fn made(&mut self, eni: cloud::Eni, begun: Duration) {
        self.record.stage = Stage::Made(eni.id.clone());
        self.view = View { create: Creation::Repeat, ..View::fresh() };
        self.view.see(Some(eni), begun);
    }

    /// Create was refused for good: nothing is there, and nothing will be.
    fn refused(&mut self, unsaved: &mut Vec<ClientToken>) -> Vec<Notice> {
        let wanted = self.record.goal == Goal::Bound;
        self.record.goal = Goal::Gone;
        let token = self.record.token.clone();
        unsaved.push(token.clone());
        match &self.view.trouble {
            Some(CallError::Cloud(error)) if wanted => {
                vec![Notice::Failed(token, Failure::Cloud(error.clone()))]
            }
            _ => Vec::new(),
        }
    }
}

impl View {
    fn see(&mut self, eni: Option<cloud::Eni>, at: Duration) {
        self.absent_since = match &eni {
            Some(_) => None,
            None => Some(self.absent_since.unwrap_or(at)),
        };
        self.seen = Some(Seen { at, eni });
        self.tries = 0;
        self.trouble = None;
    }

    fn pause(
        &mut self,
        error: CallError,
        (pace, least): (&Pace, Duration),
        random: &mut Random,
        now: Duration,
    ) {
        let wait = pace.pause(self.tries, least, random);
        self.tries = self.tries.saturating_add(1);
        self.not_before = now.saturating_add(wait);
        self.trouble = Some(error);
    }
}
