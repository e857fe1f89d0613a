//! Publishes on their way: kept until answered, sent again with the same key, in their order.

use crate::{Backoff, ConnectionId, RequestError, Ticket, Time, pacer::Pacer};
use skywave_protocol::{Channel, Payload, frame::Key};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// The longest wait before a publish that failed for the moment is sent again, unless the node names a longer one.
/// Asking again costs a node little, and whoever published waits.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// How long nodes that do not say it remember a key.
const USUAL_KEY_LIFE: Duration = Duration::from_secs(300);
/// The most that is set aside of it for the time that a publish is under way; a tenth of a short one.
const LONGEST_WAY: Duration = Duration::from_secs(10);

/// What is to be published, and who waits for it.
#[derive(Debug, Clone)]
pub struct Publish {
    pub ticket: Ticket,
    pub channel: Channel,
    pub data: Payload,
    pub key: Key,
}

/// All publishes without an answer, by their numbers: in the order of their acceptance.
#[derive(Debug)]
pub(crate) struct Publishes {
    waiting: BTreeMap<u64, Waiting>,
    /// Those of them that are not under way on the connection that there is.
    idle: BTreeSet<u64>,
    /// When each of those that were ever sent is given up.
    expiries: BTreeSet<(Time, u64)>,
    /// After a transient error a channel's publishes wait, the newer ones behind the older.
    holds: HashMap<Channel, Hold>,
    pub(crate) pacer: Pacer,
    backoff: Backoff,
    next: u64,
    limit: usize,
    /// How long the node remembers a key, less what a publish may be under way.
    key_life: Duration,
}

#[derive(Debug)]
struct Waiting {
    publish: Publish,
    /// The connection on which it was sent last, unless it is to be sent there again.
    sent_on: Option<ConnectionId>,
    first_sent: Option<Time>,
    /// When it is given up: once its key is forgotten it would take effect again.
    expires_at: Option<Time>,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Time,
    failures: u32,
    /// The one that is tried first; the others go out once it is answered.
    tried: Option<u64>,
}

impl Publishes {
    /// `limit`: how many may wait for their answer.
    pub(crate) fn new(limit: usize, backoff: Backoff) -> Self {
        Self {
            waiting: BTreeMap::new(),
            idle: BTreeSet::new(),
            expiries: BTreeSet::new(),
            holds: HashMap::new(),
            pacer: Pacer::default(),
            backoff: Backoff { max: backoff.max.min(LONGEST_HOLD), ..backoff },
            next: 0,
            limit,
            key_life: life_of(USUAL_KEY_LIFE),
        }
    }

    /// Takes one in, unless as many wait as may.
    pub(crate) fn push(&mut self, publish: Publish) -> Result<(), RequestError> {
        if self.waiting.len() >= self.limit {
            let message = format!("{} publishes wait for their answer already", self.limit);
            return Err(RequestError::too_many(message));
        }
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Waiting { publish, sent_on: None, first_sent: None, expires_at: None });
        self.idle.insert(number);
        Ok(())
    }

    /// Those that go out now on `connection`, with their numbers, oldest first; they count as sent there.
    pub(crate) fn take(&mut self, connection: ConnectionId, now: Time) -> Vec<(u64, Publish)> {
        let mut taken = Vec::new();
        for number in &self.idle {
            let Some(waiting) = self.waiting.get_mut(number) else { continue };
            let hold = self.holds.get_mut(&waiting.publish.channel);
            if hold.as_ref().is_some_and(|hold| hold.tried.is_some() || now < hold.until) {
                continue;
            }
            // Nobody goes ahead of one that waits for its turn.
            if !self.pacer.take(now) {
                break;
            }
            if let Some(hold) = hold {
                hold.tried = Some(*number);
            }
            waiting.sent_on = Some(connection);
            let first_sent = *waiting.first_sent.get_or_insert(now);
            let expires_at = first_sent + self.key_life;
            // Of several nodes, the one that forgets first counts.
            if waiting.expires_at.is_none_or(|before| expires_at < before) {
                if let Some(before) = waiting.expires_at.replace(expires_at) {
                    self.expiries.remove(&(before, *number));
                }
                self.expiries.insert((expires_at, *number));
            }
            taken.push((*number, waiting.publish.clone()));
        }
        for (number, _) in &taken {
            self.idle.remove(number);
        }
        taken
    }

    /// The connection on which they were under way carries them no more.
    pub(crate) fn recall(&mut self) {
        self.idle.extend(self.waiting.keys());
        for hold in self.holds.values_mut() {
            hold.tried = None;
        }
    }

    /// It is answered: tells who waited for it.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Ticket> {
        let Waiting { publish, expires_at, .. } = self.waiting.remove(&number)?;
        self.idle.remove(&number);
        if let Some(at) = expires_at {
            self.expiries.remove(&(at, number));
        }
        let is_last = || !self.waiting.values().any(|other| other.publish.channel == publish.channel);
        if self.holds.get(&publish.channel).is_some_and(|hold| hold.tried == Some(number) || is_last()) {
            self.holds.remove(&publish.channel);
        }
        Some(publish.ticket)
    }

    /// The node answered with an error on `connection`: a transient one puts the channel on hold, and any other is who
    /// waited for it told. What is on its way on a newer connection, or to be sent again, is answered there.
    pub(crate) fn failed(
        &mut self,
        number: u64,
        connection: ConnectionId,
        error: &RequestError,
        random: f64,
        now: Time,
    ) -> Option<Ticket> {
        let waiting = self.waiting.get(&number).filter(|waiting| waiting.sent_on == Some(connection))?;
        if !error.transient {
            return self.remove(number);
        }
        let channel = waiting.publish.channel.clone();
        // Those that were sent behind it are sent again behind it, but for those that the node takes all the same.
        for (number, other) in &mut self.waiting {
            if other.publish.channel == channel {
                other.sent_on = None;
                self.idle.insert(*number);
            }
        }
        let failures = self.holds.get(&channel).map_or(0, |hold| hold.failures);
        let wait = error.retry_after.unwrap_or_default() + self.backoff.full_jitter(failures, random);
        self.holds
            .insert(channel, Hold { until: now + wait, failures: failures.saturating_add(1), tried: None });
        None
    }

    /// The node remembers a key for so long at least; zero: it does not say.
    pub(crate) fn remembered_for(&mut self, key_life: Duration) {
        self.key_life = life_of(if key_life.is_zero() { USUAL_KEY_LIFE } else { key_life });
    }

    /// Gives up what must not be sent again, though its answer may be on its way: no node takes that long.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<Ticket> {
        let expired: Vec<u64> =
            self.expiries.iter().take_while(|(at, _)| *at <= now).map(|(_, number)| *number).collect();
        expired.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Forgets all holds: the node that caused them is no longer asked.
    pub(crate) fn release_all(&mut self) {
        self.holds.clear();
    }

    /// When the next one is given up, or may go out where there is a connection: perhaps a moment ago already.
    pub(crate) fn next_at(&self, is_connected: bool) -> Option<Time> {
        let expiry = self.expiries.first().map(|(at, _)| *at);
        let ready = self.ready_at().filter(|_| is_connected).map(|at| at.max(self.pacer.next_at()));
        expiry.into_iter().chain(ready).min()
    }

    /// When the next of those that are not under way may go out, as far as its channel is concerned.
    fn ready_at(&self) -> Option<Time> {
        let mut soonest: Option<Time> = None;
        for number in &self.idle {
            let Some(waiting) = self.waiting.get(number) else { continue };
            match self.holds.get(&waiting.publish.channel) {
                // None can be sooner.
                None => return Some(Time::BEGIN),
                Some(hold) if hold.tried.is_none() => {
                    soonest = Some(soonest.map_or(hold.until, |at| at.min(hold.until)));
                }
                Some(_) => {}
            }
        }
        soonest
    }

    /// Takes all of them out: tells who waits for them.
    pub(crate) fn drain(&mut self) -> Vec<Ticket> {
        self.idle.clear();
        self.expiries.clear();
        self.holds.clear();
        std::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.publish.ticket).collect()
    }
}

fn life_of(remembered: Duration) -> Duration {
    remembered - (remembered / 10).min(LONGEST_WAY)
}
