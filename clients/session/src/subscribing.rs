//! The channels: what the application wants of each, and what the connection that carries the session has of it.

use crate::{
    Connection, Output, Reader, RequestError, Ticket, Time, Traffic, Waiter,
    heartbeat::Heartbeat,
    phase::{Arrival, Asked, Phase},
    subscription::{Obstacle, Subscription, SubscriptionId},
};
use skywave_protocol::{
    Channel, ClientFrame, ErrorCode, RequestId, ServerFrame,
    frame::{self, Subscribe, SubscribeOptions, Unsubscribe},
};
use std::{
    collections::{BTreeMap, HashMap},
    mem,
    time::Duration,
};

/// The least wait before a channel is asked for again that the node refused for the moment.
const RESUBSCRIBE_WAIT: Duration = Duration::from_millis(500);
/// The least wait before the node is asked again to let a channel go.
const LEAVE_WAIT: Duration = Duration::from_millis(100);
/// What a `connect` may take apart from its subscriptions: token, resume secret and the rest.
const CONNECT_BYTES: usize = 16 * 1024;

/// What is said of a channel cannot be trusted, and so nothing further that comes on that connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Fault(pub &'static str);

/// What a `connect` asks for, and on whose behalf.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) subscriptions: BTreeMap<Channel, SubscribeOptions>,
    on_behalf: Vec<(Channel, SubscriptionId, bool)>,
}

/// The connection that carries the session, and how far it is with each channel.
pub(crate) struct Live {
    pub(crate) connection: Connection,
    phases: HashMap<Channel, Phase>,
    /// The largest number of a subscription that it has heard of.
    newest: Option<u64>,
    /// Channels that the node would not let go for the moment, and when it is asked again.
    leave_again: BTreeMap<Channel, Time>,
    /// What its `connect` has asked for, and on whose behalf; whether from a position.
    asked: Vec<(Channel, SubscriptionId, bool)>,
    pub(crate) heartbeat: Heartbeat,
    /// When another connection is opened beside it, unless something comes.
    pub(crate) seek_at: Option<Time>,
    /// Whether that was said since something came.
    pub(crate) is_doubted: bool,
    /// Whether it is not doubted any more.
    pub(crate) is_spared: bool,
}

impl Live {
    pub(crate) fn new(connection: Connection, wanted: Wanted, heartbeat: Heartbeat) -> Self {
        let mut phases = HashMap::new();
        for (channel, ..) in &wanted.on_behalf {
            let mut phase = Phase::default();
            phase.ask(Asked::ByConnect, None);
            phases.insert(channel.clone(), phase);
        }
        Self {
            connection,
            phases,
            newest: None,
            leave_again: BTreeMap::new(),
            asked: wanted.on_behalf,
            heartbeat,
            seek_at: None,
            is_doubted: false,
            is_spared: false,
        }
    }

    /// When the node is asked again to let a channel go.
    pub(crate) fn next_leave(&self) -> Option<Time> {
        self.leave_again.values().min().copied()
    }
}

impl<R: Reader> Traffic<R> {
    // ---- from the application

    /// Subscribes to a channel; `waiter` is told when the node has answered.
    pub fn subscribe(
        &mut self,
        channel: Channel,
        id: SubscriptionId,
        options: SubscribeOptions,
        reader: R,
        waiter: Ticket,
        now: Time,
    ) {
        let subscription = Subscription::new(id, options, reader, waiter);
        if self.subscriptions.contains_key(&channel) {
            let message = "this client has a subscription to the channel";
            let error = RequestError::local(ErrorCode::AlreadySubscribed, message);
            self.end(subscription, Some(error.code), error);
            return;
        }
        self.subscriptions.insert(channel.clone(), subscription);
        self.join(&channel, now);
    }

    /// The application has dropped its subscription.
    pub fn unsubscribe(&mut self, channel: &Channel, id: SubscriptionId, now: Time) {
        if self.subscriptions.get(channel).is_none_or(|one| one.id != id) {
            return;
        }
        if let Some(waiter) = self.subscriptions.remove(channel).and_then(|dropped| dropped.waiter) {
            let error = RequestError::local(ErrorCode::NotSubscribed, "the subscription was dropped");
            self.answer(waiter, Err(error));
        }
        self.leave(channel, now);
    }

    /// The reader has room again, which [`Output::AwaitRoom`] asked for.
    pub fn resume(&mut self, channel: &Channel, id: SubscriptionId, now: Time) {
        let subscription = self.subscriptions.get_mut(channel);
        let waits = |one: &&mut Subscription<R>| one.id == id && one.is_paused && one.resume_at.is_none();
        if let Some(subscription) = subscription.filter(waits) {
            subscription.is_paused = false;
            self.join(channel, now);
        }
    }

    pub fn reader(&self, channel: &Channel, id: SubscriptionId) -> Option<&R> {
        self.subscriptions.get(channel).filter(|one| one.id == id).map(|one| &one.reader)
    }

    /// The client has ended: so has each subscription.
    pub(crate) fn end_all(&mut self, code: Option<u16>, error: &RequestError) {
        for subscription in mem::take(&mut self.subscriptions).into_values() {
            self.end(subscription, code, error.clone());
        }
        self.fail_all(error);
    }

    fn end(&mut self, subscription: Subscription<R>, code: Option<u16>, error: RequestError) {
        subscription.reader.end(code, &error);
        if let Some(waiter) = subscription.waiter {
            self.answer(waiter, Err(error));
        }
    }

    // ---- connections

    /// All subscriptions, as far as they fit into one `connect`; the others are asked for after it.
    pub(crate) fn wanted(&self, frame_limit: u64) -> Wanted {
        let mut left = match frame_limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(CONNECT_BYTES),
        };
        let mut wanted = Wanted::default();
        for (channel, subscription) in self.subscriptions.iter().filter(|(_, one)| !one.is_paused) {
            let options = subscription.request();
            let Some(rest) = left.checked_sub(subscription_size(channel, &options)) else { break };
            left = rest;
            wanted.on_behalf.push((channel.clone(), subscription.id, options.position.is_some()));
            wanted.subscriptions.insert(channel.clone(), options);
        }
        wanted
    }

    /// Brings the new connection to what the application has asked for meanwhile.
    pub(crate) fn catch_up_channels(&mut self, now: Time) {
        let Some(live) = &mut self.live else { return };
        for (channel, id, had_position) in mem::take(&mut live.asked) {
            // Dropped meanwhile, even if somebody else has subscribed since; or confirmed by the old one, and then it
            // begins there.
            let stands = |one: &Subscription<R>| {
                one.id == id && !one.is_paused && (had_position || one.position.is_none())
            };
            if !self.subscriptions.get(&channel).is_some_and(stands) {
                self.leave(&channel, now);
            }
        }
        let channels: Vec<Channel> = self.subscriptions.keys().cloned().collect();
        for channel in channels {
            if self.phase(&channel).is_none_or(|phase| phase.asked.is_none()) {
                self.join(&channel, now);
            }
        }
    }

    fn phase(&mut self, channel: &Channel) -> Option<&mut Phase> {
        self.live.as_mut()?.phases.get_mut(channel)
    }

    fn forget_phase(&mut self, channel: &Channel) {
        if let Some(live) = &mut self.live {
            live.phases.remove(channel);
        }
    }

    // ---- from the node

    /// A frame of a channel on the connection that carries the session. What another connection says of channels counts
    /// for nothing.
    ///
    /// # Errors
    /// `Fault` where the connection is to be given up for it.
    pub(crate) fn channel_frame(
        &mut self,
        frame: ServerFrame,
        arrival: Arrival,
        now: Time,
    ) -> Result<(), Fault> {
        match frame {
            ServerFrame::Subscribed(subscribed) => self.subscribed(subscribed, now),
            ServerFrame::Unsubscribed(unsubscribed) => {
                self.unsubscribed(unsubscribed, now);
                Ok(())
            }
            ServerFrame::Stream(stream) => {
                if let (Some(id), Some(phase)) = (arrival.stream, self.phase(&stream.channel)) {
                    phase.began(stream.subscription, id);
                }
                Ok(())
            }
            frame => match channel_of(&frame).cloned() {
                Some(channel) => self.sort(&channel, frame, arrival, now),
                None => Ok(()),
            },
        }
    }

    fn sort(
        &mut self,
        channel: &Channel,
        frame: ServerFrame,
        arrival: Arrival,
        now: Time,
    ) -> Result<(), Fault> {
        let Some(phase) = self.phase(channel).filter(|phase| phase.is_own(arrival.stream)) else {
            return Ok(());
        };
        if phase.is_joined() {
            self.deliver(channel, frame, now);
            Ok(())
        } else if phase.held.hold(frame, arrival) {
            Ok(())
        } else {
            Err(Fault("too much before `subscribed`"))
        }
    }

    fn deliver(&mut self, channel: &Channel, frame: ServerFrame, now: Time) {
        let delivered = self.subscriptions.get_mut(channel).map(|subscription| subscription.deliver(frame));
        if let Some(Err(obstacle)) = delivered {
            self.hindered(channel, obstacle, now);
        }
    }

    fn hindered(&mut self, channel: &Channel, obstacle: Obstacle, now: Time) {
        match obstacle {
            Obstacle::Full => self.pause(channel, None, now),
            Obstacle::OutOfOrder => {
                let message = "a publication is missing";
                self.refused(channel, RequestError::local(ErrorCode::Unavailable, message), true, now);
            }
        }
    }

    fn subscribed(&mut self, subscribed: frame::Subscribed, now: Time) -> Result<(), Fault> {
        let channel = subscribed.channel.clone();
        let Some(live) = &mut self.live else { return Ok(()) };
        live.newest = live.newest.max(subscribed.subscription);
        let Some(phase) = live.phases.get_mut(&channel) else { return Ok(()) };
        if !phase.confirm(Asked::from(subscribed.id), subscribed.subscription) {
            return Ok(());
        }
        let held = phase.held.take();
        if let Some(subscription) = self.subscriptions.get_mut(&channel) {
            let waiter = subscription.waiter.take();
            let answer = ServerFrame::Subscribed(frame::Subscribed { presence: None, ..subscribed.clone() });
            let told = subscription.subscribed(subscribed);
            if let Some(waiter) = waiter {
                self.answer(waiter, Ok(answer));
            }
            if let Err(obstacle) = told {
                self.hindered(&channel, obstacle, now);
            }
        }
        for (frame, arrival) in held {
            self.sort(&channel, frame, arrival, now)?;
        }
        Ok(())
    }

    fn unsubscribed(&mut self, unsubscribed: frame::Unsubscribed, now: Time) {
        let frame::Unsubscribed { id, channel, code, reason } = unsubscribed;
        if let Some(request) = id {
            return self.left(&channel, request, now);
        }
        // The node's own doing; of a subscription that is being left it says nothing about the next.
        if self.phase(&channel).is_none_or(|phase| phase.leaving.is_some() || phase.asked.is_none()) {
            return;
        }
        self.forget_phase(&channel);
        let code = code.unwrap_or(ErrorCode::Internal.code());
        let transient = ErrorCode::from_code(code).is_some_and(ErrorCode::is_transient);
        let reason = reason.unwrap_or("unsubscribed".into());
        let message = "the node ended the subscription".into();
        let error = RequestError { code, reason, message, transient, retry_after: None };
        self.refused(&channel, error, transient, now);
    }

    /// The node has let the channel go.
    fn left(&mut self, channel: &Channel, request: RequestId, now: Time) {
        let Some(phase) = self.phase(channel).filter(|phase| phase.leaving == Some(request)) else { return };
        phase.leaving = None;
        if phase.asked.is_none() {
            self.forget_phase(channel);
            self.join(channel, now);
        }
    }

    /// The node did not take a `subscribe`.
    pub(crate) fn not_subscribed(
        &mut self,
        channel: &Channel,
        request: RequestId,
        error: RequestError,
        now: Time,
    ) {
        let is_unknown = error.code == ErrorCode::AlreadySubscribed.code();
        let asked = Some(Asked::By(request));
        let Some(phase) = self.phase(channel).filter(|phase| phase.asked == asked) else { return };
        if phase.leaving.is_some() {
            phase.end(None);
        } else if is_unknown {
            // From where it stands nobody knows: it is left first.
            self.leave(channel, now);
        } else {
            self.forget_phase(channel);
        }
        if is_unknown {
            return;
        }
        // There is room once those that are being left are gone.
        let others = self.live.iter().flat_map(|live| &live.phases).filter(|(other, _)| *other != channel);
        let is_leaving = others.into_iter().any(|(_, phase)| phase.leaving.is_some());
        let for_now = error.transient || (error.code == ErrorCode::LimitReached.code() && is_leaving);
        self.refused(channel, error, for_now, now);
    }

    /// The node did not take an `unsubscribe`. A channel that stays subscribed keeps its place and its presence, so it is
    /// left a little later.
    pub(crate) fn not_unsubscribed(
        &mut self,
        channel: &Channel,
        request: RequestId,
        error: &RequestError,
        now: Time,
    ) {
        if self.phase(channel).is_none_or(|phase| phase.leaving != Some(request)) {
            return;
        }
        if !error.transient {
            return self.left(channel, request, now);
        }
        let wait = error.retry_after.unwrap_or_default() + LEAVE_WAIT.mul_f64(1.0 + (self.chance)());
        if let Some(live) = &mut self.live {
            live.leave_again.insert(channel.clone(), now + wait);
        }
    }

    /// The node will not have this subscription, for now or for good. Whoever waits for a new one is told at once what is
    /// the matter.
    fn refused(&mut self, channel: &Channel, error: RequestError, for_now: bool, now: Time) {
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        let is_new = subscription.waiter.is_some() && error.code != ErrorCode::LimitReached.code();
        if for_now && !is_new {
            let failures = subscription.failed(now);
            let jitter = self.backoff.full_jitter(failures, (self.chance)());
            let wait = error.retry_after.unwrap_or_default() + RESUBSCRIBE_WAIT + jitter;
            self.pause(channel, Some(now + wait), now);
        } else if let Some(subscription) = self.subscriptions.remove(channel) {
            self.end(subscription, Some(error.code), error);
        }
    }

    // ---- to the node

    /// Asks for a channel.
    fn join(&mut self, channel: &Channel, now: Time) {
        let wanted = self.subscriptions.get(channel).filter(|subscription| !subscription.is_paused);
        let (Some(subscription), Some(live)) = (wanted, &self.live) else { return };
        let (past, name) = (live.newest, channel.clone());
        let options = subscription.request();
        let make = |id| ClientFrame::Subscribe(Subscribe::new(id, name, options));
        match self.request(Waiter::Subscribe(channel.clone()), make, now) {
            // Where it is being left, its `unsubscribed` is still to come.
            Ok(request) => {
                if let Some(live) = &mut self.live {
                    live.phases.entry(channel.clone()).or_default().ask(Asked::By(request), past);
                }
            }
            Err(error) => self.refused(channel, error, false, now),
        }
    }

    fn leave(&mut self, channel: &Channel, now: Time) {
        if self.phase(channel).is_some_and(|phase| phase.asked.is_some()) {
            self.send_unsubscribe(channel, now);
        }
    }

    /// Asks the node to let a channel go, again and again where it cannot be bothered just now.
    fn send_unsubscribe(&mut self, channel: &Channel, now: Time) {
        let name = channel.clone();
        let make = |id| ClientFrame::Unsubscribe(Unsubscribe { id, channel: name });
        if let Ok(request) = self.request(Waiter::Unsubscribe(channel.clone()), make, now)
            && let Some(phase) = self.phase(channel)
        {
            phase.leave(request);
        }
    }

    /// Leaves a channel on the wire until `until`, or until its reader has room.
    fn pause(&mut self, channel: &Channel, until: Option<Time>, now: Time) {
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        subscription.pause(until);
        let id = subscription.id;
        match until {
            Some(at) => {
                self.resumes.insert((at, channel.clone()));
            }
            None => self.outputs.push_back(Output::AwaitRoom { channel: channel.clone(), id }),
        }
        self.leave(channel, now);
    }

    // ---- time

    /// Does what is due for channels, where there is a connection.
    pub(crate) fn tick_channels(&mut self, now: Time) {
        let Some(live) = &mut self.live else { return };
        let due: Vec<Channel> =
            live.leave_again.extract_if(.., |_, at| *at <= now).map(|(channel, _)| channel).collect();
        for channel in due {
            let Some(phase) = self.phase(&channel).filter(|phase| phase.leaving.is_some()) else { continue };
            let is_wanted = phase.asked.is_some();
            self.send_unsubscribe(&channel, now);
            if is_wanted {
                self.join(&channel, now);
            }
        }
        while let Some((at, channel)) = self.resumes.pop_first() {
            if at > now {
                self.resumes.insert((at, channel));
                break;
            }
            let subscription = self.subscriptions.get_mut(&channel);
            if let Some(subscription) = subscription.filter(|one| one.resume_at == Some(at)) {
                subscription.is_paused = false;
                subscription.resume_at = None;
                self.join(&channel, now);
            }
        }
    }
}

/// The channel of a frame that its subscribers get.
fn channel_of(frame: &ServerFrame) -> Option<&Channel> {
    match frame {
        ServerFrame::Publication(frame::Publication { channel, .. })
        | ServerFrame::Event(frame::Event { channel, .. })
        | ServerFrame::Gap(frame::Gap { channel, .. })
        | ServerFrame::PresenceChanged(frame::PresenceChanged { channel, .. }) => Some(channel),
        _ => None,
    }
}

/// The bytes that a subscription takes in `connect`, at most, in either encoding.
fn subscription_size(channel: &Channel, options: &SubscribeOptions) -> usize {
    // JSON may escape `"` and `\` in a name, two bytes for one; the rest is field names and numbers.
    let points = options.position.iter().flat_map(|position| position.iter());
    let position: usize = points.map(|(origin, point)| 2 * (origin.len() + point.epoch.len()) + 64).sum();
    2 * channel.len() + 80 + position
}
