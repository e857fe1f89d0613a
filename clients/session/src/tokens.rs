//! When a new token is fetched: ahead of the old one's expiry. Time is an argument.

use crate::Time;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use std::time::Duration;

/// The least time before a token is fetched again, however short tokens live.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);
/// The least time before it is tried again after a failure.
const LEAST_RETRY: Duration = Duration::from_secs(1);
/// A token is fetched when so much of its life from now is over.
const SHARE_OF_LIFE: f64 = 0.75;
/// Whoever makes tokens makes none that live shorter: where one seems to, the clock may be wrong.
const SHORTEST_LIFE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct TokenSchedule {
    refresh_at: Option<Time>,
    expires_at: Option<Time>,
    /// How many in a row seemed old already when the node took them.
    old: u32,
}

impl TokenSchedule {
    /// The node has just taken `token`, which expires at `expiry` by the node's clock, where it is `today` by the one
    /// here; both since 1970. The clock here may be wrong by more than the token's life, which the token itself tells.
    pub(crate) fn taken(&mut self, token: Option<&str>, expiry: Duration, today: Duration, now: Time) {
        self.lives(expiry, token.and_then(life_of), today, now);
    }

    fn lives(&mut self, expiry: Duration, life: Option<Duration>, today: Duration, now: Time) {
        self.stop();
        let told = expiry.checked_sub(today).filter(|told| !told.is_zero());
        let left = match (told, life) {
            (Some(told), Some(life)) => told.min(life),
            (Some(left), None) | (None, Some(left)) => left,
            // The node says when it has expired.
            (None, None) => return,
        };
        // Either it was kept somewhere for long, or the clock is wrong: then the next one seems as old.
        let is_old = left < life.map_or(SHORTEST_LIFE, |life| life / 2);
        self.old = if is_old { self.old.saturating_add(1) } else { 0 };
        let pause = LEAST_INTERVAL.saturating_mul(1u32.checked_shl(self.old).unwrap_or(u32::MAX));
        let pause = life.map_or(pause, |life| pause.min(life.mul_f64(SHARE_OF_LIFE)));
        self.expires_at = Some(now + left);
        self.refresh_at = Some(now + left.mul_f64(SHARE_OF_LIFE).max(pause));
    }

    /// When a new one is due.
    pub(crate) fn refresh_at(&self) -> Option<Time> {
        self.refresh_at
    }

    /// Whether a new one is due, which is then on its way.
    pub(crate) fn take_due(&mut self, now: Time) -> bool {
        self.refresh_at.take_if(|at| *at <= now).is_some()
    }

    /// No new one could be had: tried again as long as the old one lives; after that, the node asks for it.
    pub(crate) fn failed(&mut self, now: Time) {
        let left = self.expires_at.map(|at| at.since(now)).filter(|left| !left.is_zero());
        self.refresh_at = left.map(|left| now + left.mul_f64(SHARE_OF_LIFE).max(LEAST_RETRY));
    }

    /// Nothing is to be fetched.
    pub(crate) fn stop(&mut self) {
        self.refresh_at = None;
        self.expires_at = None;
    }
}

/// How long a JSON Web Token lives in all; none for one that does not tell, or only the node.
fn life_of(token: &str) -> Option<Duration> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let time = |name: &str| claims.get(name)?.as_f64();
    Duration::try_from_secs_f64(time("exp")? - time("iat")?).ok().filter(|life| !life.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Time = Time::from_begin(Duration::from_secs(1_000));

    const LIFE: Duration = Duration::from_secs(600);
    const TODAY: Duration = Duration::from_secs(1_800_000_000);

    /// The waits before each fetch within an hour, for tokens that live for `LIFE`. The clock here is `ahead` of the
    /// node's by so many seconds.
    fn waits(life: Option<Duration>, ahead: i64) -> Vec<Duration> {
        let mut schedule = TokenSchedule::default();
        let (mut now, mut waits) = (BEGIN, Vec::new());
        while now.since(BEGIN) < Duration::from_secs(3_600) {
            let here = TODAY + now.since(BEGIN);
            let there = if ahead < 0 {
                here + Duration::from_secs(ahead.unsigned_abs())
            } else {
                here - Duration::from_secs(ahead.unsigned_abs())
            };
            schedule.lives(there + LIFE, life, here, now);
            let Some(at) = schedule.refresh_at else { break };
            waits.push(at.since(now));
            now = at;
        }
        waits
    }

    #[test]
    fn a_token_is_fetched_when_three_quarters_of_its_life_are_over() {
        assert!(waits(Some(LIFE), 0).iter().all(|wait| *wait == Duration::from_secs(450)));
        assert!(waits(None, 0).iter().all(|wait| *wait == Duration::from_secs(450)));
    }

    #[test]
    fn a_token_that_tells_its_life_is_fetched_within_it_whatever_the_clock_says() {
        for ahead in [-86_400, -3_600, 300, 590, 600, 3_600, 86_400] {
            let waits = waits(Some(LIFE), ahead);
            assert!(waits.iter().all(|wait| *wait < LIFE), "{ahead}: {waits:?}");
            assert!(waits.len() < 24, "{ahead}: {waits:?}");
        }
    }

    #[test]
    fn a_token_that_seems_to_end_at_once_and_tells_no_life_is_fetched_less_and_less_often() {
        let seems_to_end_at_once = waits(None, 599);
        assert!(seems_to_end_at_once.is_sorted(), "{seems_to_end_at_once:?}");
        assert!((5..20).contains(&seems_to_end_at_once.len()), "{seems_to_end_at_once:?}");
    }

    #[test]
    fn a_token_that_seems_to_have_expired_and_tells_no_life_is_left_to_the_node() {
        for ahead in [600, 86_400] {
            assert!(waits(None, ahead).is_empty(), "{ahead}");
        }
    }

    #[test]
    fn after_a_failure_it_is_tried_again_as_long_as_the_old_one_lives() {
        let (mut schedule, now) = (TokenSchedule::default(), BEGIN);
        schedule.lives(TODAY + LIFE, None, TODAY, now);
        schedule.failed(now + LIFE - Duration::from_secs(100));
        assert_eq!(schedule.refresh_at, Some(now + LIFE - Duration::from_secs(25)));
        schedule.failed(now + LIFE - Duration::from_millis(100));
        assert_eq!(schedule.refresh_at, Some(now + LIFE + Duration::from_millis(900)));
        schedule.failed(now + LIFE);
        assert_eq!(schedule.refresh_at, None);
    }

    #[test]
    fn a_token_tells_its_life_by_its_claims() {
        let token = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(life_of(&token(r#"{"iat":1000,"exp":1600,"sub":"a"}"#)), Some(LIFE));
        for no_life in [r#"{"exp":1600}"#, r#"{"iat":1600,"exp":1600}"#, r#"{"iat":2000,"exp":1}"#, "[]", "x"]
        {
            assert_eq!(life_of(&token(no_life)), None, "{no_life}");
        }
        for no_token in ["", "opaque", "a.%.c"] {
            assert_eq!(life_of(no_token), None, "{no_token}");
        }
    }
}
