//! Publishes on their way: kept until answered, sent again with the same key.

use super::{moment::Moment, pacer::Pacer};
use crate::{backoff::Backoff, error::RequestError};
use skywave_protocol::{
    Channel, ErrorCode, Payload,
    frame::{Key, Published},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
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
    /// Those of them that are not under way on the connection that there is.
    idle: BTreeSet<u64>,
    /// After a transient error a channel's publishes wait, the newer ones behind the older.
    holds: HashMap<Channel, Hold>,
    pub pacer: Pacer,
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
    /// Whether it was sent so long ago that it may not be sent again, and is not waited for either after `more` than that.
    fn has_expired(&self, now: Moment, more: Duration) -> bool {
        self.first_sent.is_some_and(|sent| sent.age(now) >= self.life.saturating_add(more))
    }
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Instant,
    failures: u32,
    /// The one that is tried first; the others go out once it is answered.
    tried: Option<u64>,
}

impl Publishes {
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            idle: BTreeSet::new(),
            holds: HashMap::new(),
            pacer: Pacer::new(Instant::now()),
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
        self.idle.insert(number);
        Some(number)
    }

    /// The publish `number`, if it may go out now on `connection`; it then counts as sent there.
    pub fn send(&mut self, number: u64, connection: u64, now: Moment) -> Option<&Waiting> {
        let waiting = self.waiting.get_mut(&number).filter(|_| self.idle.contains(&number))?;
        let hold = self.holds.get_mut(&waiting.channel);
        let held = hold.as_ref().is_some_and(|hold| hold.tried.is_some() || now.steady < hold.until);
        if held || waiting.has_expired(now, Duration::ZERO) || !self.pacer.take(now.steady) {
            return None;
        }
        if let Some(hold) = hold {
            hold.tried = Some(number);
        }
        self.idle.remove(&number);
        waiting.first_sent.get_or_insert(now);
        waiting.life = waiting.life.min(self.key_life);
        waiting.sent = Some(connection);
        Some(waiting)
    }

    /// Those that are not under way, oldest first; none while nothing may go out.
    pub fn sendable(&self, now: Instant) -> Vec<u64> {
        if self.pacer.wait(now).is_some() { Vec::new() } else { self.idle.iter().copied().collect() }
    }

    /// The connection on which they were under way carries them no more.
    pub fn recall(&mut self) {
        self.idle.extend(self.waiting.keys());
        for hold in self.holds.values_mut() {
            hold.tried = None;
        }
    }

    pub fn answer(&mut self, number: u64, published: Published) {
        if let Some(waiting) = self.remove(number) {
            // Whoever published may have gone; the publication stands all the same.
            let _ = waiting.reply.send(Ok(published));
        }
    }

    pub fn refuse(&mut self, number: u64, error: RequestError) {
        if let Some(waiting) = self.remove(number) {
            let _ = waiting.reply.send(Err(error));
        }
    }

    /// Takes one out, and with it the hold that waited for its answer, or that nobody is left for.
    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.idle.remove(&number);
        let others = || self.waiting.values().any(|other| other.channel == waiting.channel);
        if self.holds.get(&waiting.channel).is_some_and(|hold| hold.tried == Some(number) || !others()) {
            self.holds.remove(&waiting.channel);
        }
        Some(waiting)
    }

    /// The node answered with an error on `connection`: a transient one puts the channel on hold. What is on its way on a
    /// newer connection is answered there.
    pub fn failed(
        &mut self,
        number: u64,
        connection: u64,
        error: RequestError,
        backoff: Backoff,
        now: Instant,
    ) {
        let Some(waiting) = self.waiting.get(&number).filter(|waiting| waiting.sent == Some(connection))
        else {
            return;
        };
        if !error.transient {
            self.refuse(number, error);
            return;
        }
        self.idle.insert(number);
        let hold = self.holds.entry(waiting.channel.clone()).or_insert(Hold {
            until: now,
            failures: 0,
            tried: None,
        });
        // Of several failures in one round the first one counts.
        if hold.until <= now && hold.tried.is_none_or(|tried| tried == number) {
            let backoff = Backoff { max: backoff.max.min(LONGEST_HOLD), ..backoff };
            let wait = error.retry_after.unwrap_or(Duration::ZERO) + backoff.wait(hold.failures);
            *hold = Hold { until: now + wait, failures: hold.failures.saturating_add(1), tried: None };
        }
    }

    /// The node remembers a key for so long at least; zero: it does not say.
    pub fn remembered_for(&mut self, key_life: Duration) {
        self.key_life = life_of(if key_life.is_zero() { USUAL_KEY_LIFE } else { key_life });
    }

    /// Gives up what was sent too long ago to be sent again, since it might be published twice; what is under way may
    /// still be answered, though no node takes longer than that.
    pub fn expire(&mut self, now: Moment) {
        let stale = |number: &u64| {
            self.waiting.get(number).is_some_and(|waiting| waiting.has_expired(now, Duration::ZERO))
        };
        let idle = self.idle.iter().copied().filter(stale);
        // The oldest were sent first.
        let unanswered = self.waiting.iter().take_while(|(_, waiting)| waiting.has_expired(now, LONGEST_WAY));
        let expired: BTreeSet<u64> = idle.chain(unanswered.map(|(number, _)| *number)).collect();
        for number in expired {
            self.refuse(number, RequestError::outcome_unknown());
        }
    }

    /// When the next publish that is not under way is given up.
    pub fn next_expiry(&self) -> Option<Instant> {
        let idle = self.idle.iter().filter_map(|number| self.waiting.get(number));
        idle.filter_map(|waiting| Some(waiting.first_sent?.steady + waiting.life)).min()
    }

    /// Forgets all holds: the node that caused them is no longer asked.
    pub fn release_all(&mut self) {
        self.holds.clear();
    }

    /// When the next of those that are not under way may go out: perhaps a moment ago already.
    pub fn next_release(&self, now: Instant) -> Option<Instant> {
        let idle = self.idle.iter().filter_map(|number| self.waiting.get(number));
        let released = idle.filter_map(|waiting| match self.holds.get(&waiting.channel) {
            None => Some(now),
            Some(hold) => hold.tried.is_none().then_some(hold.until),
        });
        let paced = now + self.pacer.wait(now).unwrap_or_default();
        released.min().map(|at| at.max(paced))
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Answers all of them with the same error.
    pub fn fail_all(&mut self, error: &RequestError) {
        self.idle.clear();
        self.holds.clear();
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
            let release = publishes.next_release(Instant::now()).unwrap();
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
        assert_eq!(publishes.next_expiry(), None);
        let first_sent = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        publishes.expire(Moment::now());
        assert!(answers[0].try_recv().is_err());
        publishes.recall();
        assert_eq!(publishes.next_expiry(), Some(first_sent + Duration::from_millis(900)));
        assert!(publishes.send(0, 2, Moment::now()).is_none());
        publishes.expire(Moment::now());
        assert_eq!(answers[0].try_recv().unwrap().unwrap_err(), RequestError::outcome_unknown());
        assert!(publishes.send(1, 2, Moment::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publish_that_a_living_node_never_answers_is_not_waited_for_for_ever() {
        let mut publishes = Publishes::new(2);
        publishes.remembered_for(Duration::from_secs(100));
        let mut answers = Vec::new();
        for key in ["old", "new"] {
            let (reply, answer) = oneshot::channel();
            let data = Json::of(&1).unwrap().into();
            publishes.push(Channel::new("chat:1").unwrap(), data, Key::new(key).unwrap(), reply).unwrap();
            answers.push(answer);
        }
        assert!(publishes.send(0, 1, Moment::now()).is_some());
        tokio::time::advance(Duration::from_secs(99)).await;
        assert!(publishes.send(1, 1, Moment::now()).is_some());
        publishes.expire(Moment::now());
        assert!(answers[0].try_recv().is_err(), "it may still be answered");
        tokio::time::advance(Duration::from_secs(1)).await;
        publishes.expire(Moment::now());
        assert_eq!(answers[0].try_recv().unwrap().unwrap_err(), RequestError::outcome_unknown());
        assert!(answers[1].try_recv().is_err());
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
        publishes.recall();
        assert!(publishes.send(0, 2, after).is_none());
        publishes.expire(after);
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
        assert!(publishes.next_release(Instant::now()).is_some_and(|release| release <= Instant::now()));
        assert!(publishes.send(number, 1, Moment::now()).is_some());
        assert_eq!(publishes.next_release(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_others_of_the_channel_wait_until_the_first_one_is_answered() {
        let mut publishes = Publishes::new(4);
        let (mut answers, mut numbers) = (Vec::new(), Vec::new());
        for channel in ["chat:1", "chat:1", "chat:2", "chat:1"] {
            let (reply, answer) = oneshot::channel();
            let data = Json::of(&1).unwrap().into();
            let key = Key::new("k").unwrap();
            numbers.extend(publishes.push(Channel::new(channel).unwrap(), data, key, reply));
            answers.push(answer);
        }
        let sent = |publishes: &mut Publishes| -> Vec<u64> {
            numbers.iter().copied().filter(|one| publishes.send(*one, 1, Moment::now()).is_some()).collect()
        };
        assert_eq!(sent(&mut publishes), [0, 1, 2, 3]);
        let now = Instant::now();
        for number in [0, 1, 3] {
            publishes.failed(number, 1, RequestError::not_connected(), Backoff::default(), now);
        }
        tokio::time::advance(LONGEST_HOLD).await;
        assert_eq!(sent(&mut publishes), [0]);
        assert_eq!(publishes.next_release(Instant::now()), None);
        publishes.refuse(0, RequestError::closed());
        assert_eq!(sent(&mut publishes), [1, 3]);
    }
}
