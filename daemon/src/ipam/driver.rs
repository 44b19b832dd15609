//! The task that owns the state: events in, effects out, side by side and bounded in number; what
//! comes of them are events again.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cloud::{CallOptions, Ecs, EniFilter, Outcome as Effected, Priority};
use controlplane::{Answer, CallError, Eni, Goal, Stage, Verb};
use model::{EniId, InstanceId, SandboxKey};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses;
use super::clock::Clock;
use super::disagreement::Disagreement;
use super::event::{Ask, Effect, Event, Outcome, Ticket, Told, Whose};
use super::links::Links;
use super::snapshot::{Snapshot, Standing};
use super::state::State;
use super::{AllocError, Allocation, Request};
use crate::checkpoint::{Change, Checkpoint};
use crate::datapath::DatapathError;
use crate::failpoints::{Point, reach};
use crate::metrics::Metrics;

/// How long one call may take, its repetitions included.
const CALL: Duration = Duration::from_secs(8);
/// How long an attached NIC may take to show up.
const LINK: Duration = Duration::from_secs(30);
/// Between two looks whether all is done at the stop.
const STOPPING: Duration = Duration::from_millis(10);
/// Calls in flight that bring something.
const IN_FLIGHT: usize = 16;
/// Calls in flight that give back or clean up: they never keep the others from beginning.
const COLLECTING: usize = 4;

/// What a handle says to the task.
#[derive(Debug)]
pub(super) enum Message {
    /// Somebody wants an address.
    Allocate {
        ticket: Ticket,
        request: Request,
        wait: Duration,
        reply: oneshot::Sender<Result<Allocation, AllocError>>,
    },
    /// And does not want it any more.
    Cancel { ticket: Ticket, key: SandboxKey },
    /// A sandbox is gone.
    Release { ticket: Ticket, key: SandboxKey, reply: Confirmed },
    /// A sandbox that has an address wants to know whether that is still so.
    Confirm { key: SandboxKey, ticket: Ticket, wait: Duration, reply: Confirmed },
    /// An effect was carried out, or a link is gone.
    Event(Event),
    /// The record of a released sandbox is gone from the disk, or not.
    Released(Ticket, Result<(), String>),
    /// Somebody looks.
    Look(oneshot::Sender<Snapshot>),
}

/// Takes an answer without a value.
pub(super) type Confirmed = oneshot::Sender<Result<(), AllocError>>;

/// The task.
pub(super) struct Driver<E> {
    pub(super) state: State,
    pub(super) clock: Clock,
    pub(super) instance: InstanceId,
    pub(super) metrics: Metrics,
    pub(super) hands: Hands<E>,
    pub(super) checkpoint: Checkpoint,
    pub(super) messages: mpsc::UnboundedReceiver<Message>,
    pub(super) standing: watch::Sender<Arc<Standing>>,
    /// Told once, when the links that the checkpoint knows were set.
    pub(super) restored: Option<oneshot::Sender<()>>,
    pub(super) allocating:
        HashMap<Ticket, (SandboxKey, oneshot::Sender<Result<Allocation, AllocError>>)>,
    pub(super) releasing: HashMap<Ticket, Confirmed>,
    pub(super) confirming: HashMap<Ticket, Confirmed>,
}

/// What carries effects out.
pub(super) struct Hands<E> {
    cloud: Arc<E>,
    links: Arc<dyn Links>,
    permits: Arc<Semaphore>,
    collecting: Arc<Semaphore>,
    /// One clone for every effect and transaction that is not done.
    in_flight: Arc<()>,
    /// Weak, for the task ends with the last handle, and not with itself.
    messages: mpsc::WeakUnboundedSender<Message>,
}

/// For what effects are carried out.
#[derive(Debug, Clone)]
struct Errand {
    instance: InstanceId,
    /// When they were handed out.
    begun: Duration,
    /// Whether a pod waits.
    waiting: bool,
}

impl<E> Clone for Hands<E> {
    fn clone(&self) -> Self {
        Self {
            cloud: Arc::clone(&self.cloud),
            links: Arc::clone(&self.links),
            permits: Arc::clone(&self.permits),
            collecting: Arc::clone(&self.collecting),
            in_flight: Arc::clone(&self.in_flight),
            messages: self.messages.clone(),
        }
    }
}

impl<E> Hands<E> {
    pub(super) fn new(
        cloud: Arc<E>,
        links: Arc<dyn Links>,
        messages: mpsc::WeakUnboundedSender<Message>,
    ) -> Self {
        let [permits, collecting] =
            [IN_FLIGHT, COLLECTING].map(|most| Arc::new(Semaphore::new(most)));
        Self { cloud, links, permits, collecting, in_flight: Arc::new(()), messages }
    }

    /// Every effect has a clone of the hands until its outcome is sent.
    fn in_flight(&self) -> usize {
        Arc::strong_count(&self.in_flight).saturating_sub(1)
    }

    fn send(&self, message: Message) {
        if let Some(messages) = self.messages.upgrade() {
            // The receiver ends with the last sender, and this is one.
            let _sent = messages.send(message);
        }
    }
}

impl<E: Ecs> Driver<E> {
    /// Until it is told to stop and nothing is in flight, or until the last handle is gone.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut stopped = false;
        self.step(Event::Tick);
        let pause = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(pause);
        // When the pause ends: never put off, so that a flood of messages cannot do that for ever.
        let mut planned: Option<Duration> = None;
        while !stopped || self.hands.in_flight() > 0 {
            let now = (self.clock)();
            let longest = now + if stopped { STOPPING } else { Duration::from_hours(1) };
            let wake = self.state.wake(now).map_or(longest, |at| at.clamp(now, longest));
            if planned.is_none_or(|planned| wake < planned) {
                planned = Some(wake);
                pause.as_mut().reset(Instant::now() + wake.saturating_sub(now));
            }
            // All of these may be dropped at any time: nothing is lost with them.
            tokio::select! {
                message = self.messages.recv() => match message {
                    Some(message) => self.message(message),
                    None => return,
                },
                () = stop.cancelled(), if !stopped => {
                    stopped = true;
                    self.step(Event::Stop);
                }
                () = &mut pause => {
                    planned = None;
                    self.step(Event::Tick);
                }
            }
        }
    }

    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Allocate { ticket, request, wait, reply } => {
                let deadline = (self.clock)().saturating_add(wait);
                self.allocating.insert(ticket, (request.key.clone(), reply));
                self.step(Event::Allocate { ticket, request, deadline });
            }
            Message::Cancel { ticket, key } => {
                self.allocating.remove(&ticket);
                self.step(Event::Cancel { ticket, key });
            }
            Message::Release { ticket, key, reply } => {
                self.releasing.insert(ticket, reply);
                self.step(Event::Release { ticket, key });
            }
            Message::Confirm { ticket, key, wait, reply } => {
                let deadline = (self.clock)().saturating_add(wait);
                self.confirming.insert(ticket, reply);
                self.step(Event::Confirm { ticket, key, deadline });
            }
            Message::Event(event) => self.step(event),
            Message::Released(ticket, written) => {
                let Some(reply) = self.releasing.remove(&ticket) else { return };
                // A caller that went away knows from the record.
                let _gone = reply.send(written.map_err(AllocError::Checkpoint));
            }
            Message::Look(reply) => {
                // Who went away does not look.
                let _gone = reply.send(Snapshot::of(&self.state));
            }
        }
    }

    fn step(&mut self, event: Event) {
        let now = (self.clock)();
        note_errors(&event);
        let mut out = self.state.step(event, now);
        // What a caller gets may name an ENI that was linked by this very event.
        self.publish();
        for (ticket, answer) in std::mem::take(&mut out.answers) {
            self.answer(ticket, answer);
        }
        for (ticket, answer) in std::mem::take(&mut out.confirmations) {
            let Some(reply) = self.confirming.remove(&ticket) else { continue };
            // Nothing was given that a caller that went away would have to give back.
            let _gone = reply.send(answer);
        }
        self.carry_out(out, now);
        if !self.state.pool.is_restoring()
            && let Some(restored) = self.restored.take()
        {
            // Who started us may not wait for it.
            let _gone = restored.send(());
        }
    }

    fn publish(&self) {
        let standing = Standing::of(&self.state);
        self.standing.send_if_modified(|told| {
            let news = **told != standing;
            if news {
                *told = Arc::new(standing);
            }
            news
        });
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<Allocation, AllocError>) {
        let Some((key, reply)) = self.allocating.remove(&ticket) else { return };
        if reply.send(answer).is_err() {
            // Its guard is about to say so too; twice is once.
            self.hands.send(Message::Cancel { ticket, key });
        }
    }

    fn carry_out(&self, out: Outcome, begun: Duration) {
        let Outcome { answers: _, confirmations: _, writes, notes, effects, disagreements } = out;
        for Disagreement { kind, subject, ours, theirs } in disagreements {
            self.metrics.disagreement(kind);
            tracing::error!(%kind, subject, ours, theirs, "two witnesses of the truth differ");
        }
        if !notes.is_empty() {
            let point = bound_point(&notes);
            self.checkpoint.note(notes);
            pass(point);
        }
        let hands = self.hands.clone();
        let waiting = self.state.has_waiters();
        let errand = Errand { instance: self.instance.clone(), begun, waiting };
        if writes.is_empty() {
            hands.begin(effects, &errand);
            return;
        }
        let point = written_point(&writes);
        // Queued here and not in the task: two steps reach the journal in the order of their events.
        let written = self.checkpoint.write(writes);
        tokio::spawn(async move {
            match written.await {
                Ok(()) => {
                    pass(point);
                    hands.begin(effects, &errand);
                }
                Err(error) => hands.not_written(effects, &error, begun),
            }
        });
    }
}

impl<E: Ecs> Hands<E> {
    /// What had to be durable is: the effects begin, each by itself.
    fn begin(&self, effects: Vec<Effect>, errand: &Errand) {
        for effect in effects {
            if let Effect::Released(ticket, _) = effect {
                self.send(Message::Released(ticket, Ok(())));
                continue;
            }
            let (hands, errand) = (self.clone(), errand.clone());
            tokio::spawn(async move {
                if let Some(told) = hands.perform(effect, &errand).await {
                    hands.send(Message::Event(Event::Told { begun: errand.begun, told }));
                }
            });
        }
    }

    fn not_written(
        &self,
        effects: Vec<Effect>,
        error: &crate::checkpoint::CheckpointError,
        begun: Duration,
    ) {
        let error = text(error);
        for effect in &effects {
            if let Effect::Released(ticket, _) = effect {
                self.send(Message::Released(*ticket, Err(error.clone())));
            }
        }
        self.send(Message::Event(Event::Unwritten { begun, effects, error }));
    }

    async fn perform(&self, effect: Effect, errand: &Errand) -> Option<Told> {
        match effect {
            Effect::Ask(ask) => {
                let priority = ask.priority(errand.waiting);
                let permits =
                    if priority == Priority::Collection { &self.collecting } else { &self.permits };
                // Closed never: the semaphore lives as long as we do.
                let _permit = permits.acquire().await.ok()?;
                let options = CallOptions::new(priority, Instant::now() + CALL);
                let told = self.ask(ask, &errand.instance, options).await;
                pass(asked_point(&told));
                Some(told)
            }
            Effect::SetLink(port, spec) => {
                let link = self.links.set_eni(spec, LINK).await;
                if link.is_ok() {
                    reach(Point::EniLinked);
                }
                Some(Told::LinkSet(port, link.map_err(|e| text(&e))))
            }
            Effect::RemoveLink(eni) => {
                let removed = self.links.remove_eni(eni.clone()).await;
                Some(Told::LinkRemoved(eni, removed.map_err(|e| text(&e))))
            }
            Effect::Witness { port, eni, addresses } => {
                let users = self.users(eni, addresses).await;
                Some(Told::Witnessed { port, result: users.map_err(|e| text(&e)) })
            }
            Effect::WitnessOrphan { eni, addresses } => {
                let users = self.users(Some(eni.clone()), addresses).await;
                Some(Told::OrphanWitnessed { eni, result: users.map_err(|e| text(&e)) })
            }
            Effect::Audit(addresses) => {
                let users = self.links.users(addresses).await;
                Some(Told::Audited(users.map_err(|e| text(&e))))
            }
            Effect::Bury(addresses) => {
                let buried = self.links.bury(addresses.clone()).await;
                Some(Told::Buried(addresses, buried.map_err(|e| text(&e))))
            }
            Effect::Rewritten(tried) => Some(Told::Rewritten(tried)),
            Effect::Released(..) => None,
        }
    }

    async fn users(
        &self,
        eni: Option<EniId>,
        addresses: Vec<IpAddr>,
    ) -> Result<BTreeSet<IpAddr>, DatapathError> {
        let mut users = self.links.users(addresses).await?;
        if let Some(eni) = eni {
            users.extend(self.links.eni_users(eni).await?);
        }
        Ok(users)
    }

    async fn ask(&self, ask: Ask, instance: &InstanceId, options: CallOptions) -> Told {
        let cloud = &*self.cloud;
        match ask {
            Ask::Eni(whose, call) => {
                Told::Eni(whose, controlplane::perform(cloud, call, options).await)
            }
            Ask::Instance => {
                let filter = EniFilter::instance(instance.clone());
                let enis = cloud.describe_enis(&filter, options).await;
                Told::Instance(enis.map_err(CallError::from))
            }
            Ask::Tagged(tags) => {
                let filter = EniFilter { tags, ..EniFilter::default() };
                let enis = cloud.describe_enis(&filter, options).await;
                Told::Tagged(enis.map_err(CallError::from))
            }
            Ask::VSwitch(id) => {
                let vswitch = cloud.vswitch(&id, options).await;
                Told::VSwitch(id, vswitch.map_err(CallError::from))
            }
            Ask::Assign { port, eni, lot, count, token } => {
                let result = addresses::assign(cloud, token, eni, (lot, count), options).await;
                Told::Assigned { port, lot, result: result.map_err(CallError::from) }
            }
            Ask::Unassign { port, eni, blocks } => {
                let result = addresses::unassign(cloud, &eni, &blocks, options).await;
                Told::Unassigned { port, blocks, result }
            }
        }
    }
}

/// An operator wants to know of every failure of the cloud, once: of which ENI, and what follows.
fn note_errors(event: &Event) {
    let Event::Told { told, .. } = event else { return };
    let Some(error) = told.error() else { return };
    let lost = matches!(error, CallError::Cloud(error) if error.outcome() == Effected::Unknown);
    let error = text(error);
    match told {
        Told::Eni(_, Answer::Created(token, _)) if lost => {
            tracing::warn!(%token, error, "CreateNetworkInterface was sent and not answered; it is sent again with the same token, which makes no second ENI");
        }
        Told::Eni(_, Answer::Created(token, _)) => {
            tracing::warn!(%token, error, "an ENI could not be made");
        }
        Told::Eni(_, Answer::Found(token, _)) => {
            tracing::warn!(%token, error, "the cloud did not say whether an ENI with this token is there; it is asked again before anything is made");
        }
        Told::Eni(_, Answer::Changed(token, verb, _)) if lost => {
            tracing::warn!(%token, ?verb, error, "a change of an ENI was sent and not answered; the ENI is read before anything else is done to it");
        }
        Told::Eni(_, Answer::Changed(token, verb, _)) => {
            tracing::warn!(%token, ?verb, error, "an ENI could not be changed");
        }
        Told::Eni(_, Answer::Described(ids, _)) => {
            tracing::warn!(?ids, error, "ENIs on their way could not be read; it is tried again");
        }
        Told::Instance(_) => {
            tracing::warn!(error, "the node's ENIs could not be read; it is tried again");
        }
        _ => tracing::warn!(error, "a call to the cloud failed"),
    }
}

fn pass(point: Option<Point>) {
    if let Some(point) = point {
        reach(point);
    }
}

fn written_point(writes: &[Change]) -> Option<Point> {
    writes.iter().find_map(|change| match change {
        Change::PutEni(eni) if is_intent(eni) => Some(Point::EniIntent),
        Change::PutMember(eni) if is_intent(eni) => Some(Point::MemberIntent),
        Change::PutMember(eni) if eni.goal == Goal::Gone => Some(Point::MemberLeaving),
        _ => None,
    })
}

fn is_intent<T>(eni: &Eni<T>) -> bool {
    eni.goal == Goal::Bound && eni.stage == Stage::Intended
}

fn bound_point(notes: &[Change]) -> Option<Point> {
    notes.iter().find_map(|change| match change {
        Change::PutEni(eni) if eni.binding().is_some() => Some(Point::EniBound),
        Change::PutMember(eni) if eni.binding().is_some() => Some(Point::MemberBound),
        _ => None,
    })
}

fn asked_point(told: &Told) -> Option<Point> {
    match told {
        Told::Eni(Whose::Pool, Answer::Created(_, Ok(_))) => Some(Point::EniMade),
        Told::Eni(Whose::Pool, Answer::Changed(_, Verb::Attach, Ok(()))) => {
            Some(Point::EniAttached)
        }
        Told::Eni(Whose::Members, Answer::Created(_, Ok(_))) => Some(Point::MemberMade),
        Told::Eni(Whose::Members, Answer::Changed(_, verb, Ok(()))) => Some(match verb {
            Verb::Attach => Point::MemberAttached,
            Verb::Detach => Point::MemberDetached,
            Verb::Delete => Point::MemberDeleted,
        }),
        Told::Assigned { result: Ok(_), .. } => Some(Point::EniAssigned),
        Told::Unassigned { result: Ok(()), .. } => Some(Point::EniUnassigned),
        _ => None,
    }
}

/// An error and what lies below it, in one line.
fn text(error: &(dyn Error + 'static)) -> String {
    let first: Option<&(dyn Error + 'static)> = Some(error);
    let causes = std::iter::successors(first, |error| (**error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
