//! Publishes on their way: kept until answered, sent again with the same key.

use crate::{backoff::Backoff, error::RequestError};
use skywave_protocol::{
    Channel, ErrorCode, Payload,
    frame::{Key, Published},
};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};
use tokio::{sync::oneshot, time::Instant};

/// The longest wait before a publish that failed for the moment is sent again, unless the node names a longer one.
/// Asking again costs a node little, and whoever published waits.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// How long nodes that do not say it remember a key.
const USUAL_KEY_LIFE: Duration = Duration::from_secs(300);
/// The most that is set aside of it for the time that a publish is under way; a tenth of a short one.
const LONGEST_WAY: Duration = Duration::from_secs(10);
/// The longest life of a key that is believed.
const LONGEST_KEY_LIFE: Duration = Duration::from_secs(30 * 86_400);

fn life_of(remembered: Duration) -> Duration {
    let remembered = remembered.min(LONGEST_KEY_LIFE);
    remembered - (remembered / 10).min(LONGEST_WAY)
}

type Reply = oneshot::Sender<Result<Published, RequestError>>;

/// All publishes without an answer, in the order of their acceptance.
#[derive(Debug)]
pub(super) struct Publishes {
    waiting: BTreeMap<u64, Waiting>,
    /// After a transient error a channel's publishes wait, the newer ones behind the older.
    holds: HashMap<Channel, Hold>,
    next: u64,
    limit: usize,
    /// How long the node remembers a key, less what a publish may be under way.
    key_life: Duration,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub channel: Channel,
    pub data: Payload,
    pub key: Key,
    reply: Reply,
    /// The connection on which it was sent last.
    sent: Option<u64>,
    /// When it was sent first, and for how long after that it may be sent again.
    first_sent: Option<Moment>,
    life: Duration,
}

impl Waiting {
    fn has_expired(&self, now: Moment) -> bool {
        self.first_sent.is_some_and(|sent| sent.age(now) >= self.life)
    }
}

/// A moment by two clocks: the one may stand still while the machine sleeps, the other may be set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// How long ago it was, by the clock that says more.
    fn age(self, now: Self) -> Duration {
        let steady = now.steady.saturating_duration_since(self.steady);
        now.wall.duration_since(self.wall).unwrap_or_default().max(steady)
    }
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Instant,
    failures: u32,
}

impl Publishes {
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            holds: HashMap::new(),
            next: 0,
            limit,
            key_life: life_of(USUAL_KEY_LIFE),
        }
    }

    /// Takes one in and gives its number; a full queue answers it at once.
    pub fn push(&mut self, channel: Channel, data: Payload, key: Key, reply: Reply) -> Option<u64> {
        if self.waiting.len() >= self.limit {
            let message = format!("{} publishes wait for their answer already", self.limit);
            let error =
                RequestError { transient: true, ..RequestError::local(ErrorCode::LimitReached, message) };
            let _ = reply.send(Err(error));
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.waiting.insert(
            number,
            Waiting { channel, data, key, reply, sent: None, first_sent: None, life: Duration::MAX },
        );
        Some(number)
    }

    /// The publish `number`, if it may go out now on `connection`; it then counts as sent there.
    pub fn send(&mut self, number: u64, connection: u64, now: Moment) -> Option<&Waiting> {
        let waiting = self.waiting.get_mut(&number)?;
        let held = self.holds.get(&waiting.channel).is_some_and(|hold| now.steady < hold.until);
        if held || waiting.has_expired(now) {
            return None;
        }
        waiting.first_sent.get_or_insert(now);
        waiting.life = waiting.life.min(self.key_life);
        waiting.sent = Some(connection);
        Some(waiting)
    }

    /// Those not sent on `connection` yet, oldest first.
    pub fn unsent(&self, connection: u64) -> Vec<u64> {
        let unsent = self.waiting.iter().filter(|(_, waiting)| waiting.sent != Some(connection));
        unsent.map(|(number, _)| *number).collect()
    }

    pub fn answer(&mut self, number: u64, published: Published, now: Instant) {
        let Some(waiting) = self.waiting.remove(&number) else { return };
        self.release(&waiting.channel, now);
        // Whoever published may have gone; the publication stands all the same.
        let _ = waiting.reply.send(Ok(published));
    }

    pub fn refuse(&mut self, number: u64, error: RequestError, now: Instant) {
        if let Some(waiting) = self.waiting.remove(&number) {
            self.release(&waiting.channel, now);
            let _ = waiting.reply.send(Err(error));
        }
    }

    /// Forgets a hold that is over, unless others of the channel wait, to whom it tells when they may go out; one
    /// that is not over holds for those that were sent before it, too.
    fn release(&mut self, channel: &Channel, now: Instant) {
        if self.holds.get(channel).is_some_and(|hold| hold.until <= now)
            && !self.waiting.values().any(|waiting| waiting.channel == *channel)
        {
            self.holds.remove(channel);
        }
    }

    /// The node answered with an error on `connection`: a transient one puts the channel on hold.
    pub fn failed(
        &mut self,
        number: u64,
        connection: u64,
        error: RequestError,
        backoff: Backoff,
        now: Instant,
    ) {
        if !error.transient {
            self.refuse(number, error, now);
            return;
        }
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        if waiting.sent != Some(connection) {
            // It is on its way on a newer connection already.
            return;
        }
        waiting.sent = None;
        let hold = self.holds.entry(waiting.channel.clone()).or_insert(Hold { until: now, failures: 0 });
        if hold.until <= now {
            // Of several failures in one round the first one counts.
            let backoff = Backoff { max: backoff.max.min(LONGEST_HOLD), ..backoff };
            let wait = error.retry_after.unwrap_or(Duration::ZERO) + backoff.wait(hold.failures);
            *hold = Hold { until: now + wait, failures: hold.failures.saturating_add(1) };
        }
    }

    /// The node remembers a key for so long at least; zero: it does not say.
    pub fn remembered_for(&mut self, key_life: Duration) {
        self.key_life = life_of(if key_life.is_zero() { USUAL_KEY_LIFE } else { key_life });
    }

    /// Gives up what was sent too long ago to be sent again, since it might be published twice; what is under way on
    /// `connection` may still be answered.
    pub fn expire(&mut self, connection: Option<u64>, now: Moment) {
        let stale = |waiting: &Waiting| {
            waiting.has_expired(now) && (connection.is_none() || waiting.sent != connection)
        };
        let expired: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| stale(waiting)).map(|(number, _)| *number).collect();
        for number in expired {
            self.refuse(number, RequestError::outcome_unknown(), now.steady);
        }
    }

    /// When the next publish that is not under way on `connection` is given up.
    pub fn next_expiry(&self, connection: Option<u64>) -> Option<Instant> {
        if connection.is_some() && self.holds.is_empty() {
            // All are under way.
            return None;
        }
        let waiting = self.waiting.values();
        let idle = waiting.filter(|waiting| connection.is_none() || waiting.sent != connection);
        idle.filter_map(|waiting| Some(waiting.first_sent?.steady + waiting.life)).min()
    }

    /// Forgets all holds: the node that caused them is no longer asked.
    pub fn release_all(&mut self) {
        self.holds.clear();
    }

    /// When the next of the publishes that are not sent on `connection` may go out: perhaps a moment ago already.
    pub fn next_release(&self, connection: u64) -> Option<Instant> {
        if self.holds.is_empty() {
            return None;
        }
        let held = self.waiting.values().filter(|waiting| waiting.sent != Some(connection));
        held.filter_map(|waiting| self.holds.get(&waiting.channel)).map(|hold| hold.until).min()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Answers all of them with the same error.
    pub fn fail_all(&mut self, error: &RequestError) {
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::Json;

    #[tokio::test(start_paused = true)]
    async fn however_often_a_publish_fails_it_is_sent_again_within_a_second() {
        let mut publishes = Publishes::new(1);
        let (reply, _answer) = oneshot::channel();
        let channel = Channel::new("chat:1").unwrap();
        let data = Json::of(&1).unwrap().into();
        let number = publishes.push(channel, data, Key::new("k").unwrap(), reply).unwrap();
        for connection in 0..100 {
            let now = Instant::now();
            assert!(publishes.send(number, connection, Moment::now()).is_some());
            publishes.failed(number, connection, RequestError::not_connected(), Backoff::default(), now);
            let release = publishes.next_release(connection).unwrap();
            assert!(release - now <= LONGEST_HOLD);
            tokio::time::advance(release - now).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_publish_is_given_up_when_its_key_may_be_forgotten_and_not_while_it_is_under_way() {
        let mut publishes = Publishes::new(2);
        publishes.remembered_for(Duration::from_secs(1));
        let mut answers = Vec::new();
        for key in ["sent", "never sent"] {
            let (reply, answer) = oneshot::channel();
            let data = Json::of(&1).unwrap().into();
            publishes.push(Channel::new("chat:1").unwrap(), data, Key::new(key).unwrap(), reply).unwrap();
            answers.push(answer);
        }
        assert!(publishes.send(0, 1, Moment::now()).is_some());
        assert_eq!(publishes.next_expiry(None), Some(Instant::now() + Duration::from_millis(900)));
        tokio::time::advance(Duration::from_secs(1)).await;
        publishes.expire(Some(1), Moment::now());
        assert!(answers[0].try_recv().is_err());
        assert!(publishes.send(0, 2, Moment::now()).is_none());
        publishes.expire(Some(2), Moment::now());
        assert_eq!(answers[0].try_recv().unwrap().unwrap_err(), RequestError::outcome_unknown());
        assert!(publishes.send(1, 2, Moment::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publish_is_given_up_after_a_sleep_during_which_the_steady_clock_stood_still() {
        let mut publishes = Publishes::new(1);
        let (reply, mut answer) = oneshot::channel();
        let data = Json::of(&1).unwrap().into();
        publishes.push(Channel::new("chat:1").unwrap(), data, Key::new("k").unwrap(), reply).unwrap();
        let before = Moment::now();
        assert!(publishes.send(0, 1, before).is_some());
        let after = Moment { wall: before.wall + Duration::from_secs(3600), ..before };
        assert!(publishes.send(0, 2, after).is_none());
        publishes.expire(Some(2), after);
        assert_eq!(answer.try_recv().unwrap().unwrap_err(), RequestError::outcome_unknown());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_that_ended_unnoticed_is_still_told_until_the_publish_is_sent() {
        let mut publishes = Publishes::new(1);
        let (reply, _answer) = oneshot::channel();
        let data = Json::of(&1).unwrap().into();
        let channel = Channel::new("chat:1").unwrap();
        let number = publishes.push(channel, data, Key::new("k").unwrap(), reply).unwrap();
        assert!(publishes.send(number, 1, Moment::now()).is_some());
        let now = Instant::now();
        publishes.failed(number, 1, RequestError::not_connected(), Backoff::default(), now);
        tokio::time::advance(2 * LONGEST_HOLD).await;
        assert!(publishes.next_release(1).is_some_and(|release| release <= Instant::now()));
        assert!(publishes.send(number, 1, Moment::now()).is_some());
        assert_eq!(publishes.next_release(1), None);
    }
}
