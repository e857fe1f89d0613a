//! Watches a link: how far it is behind, and whether anything was not heard.

use super::{
    course::{Link, Progress},
    pull::{self, Head, Part},
};
use crate::link::MeasuredLag;
use futures_util::{StreamExt, stream};
use skywave_redis::{Redis, StreamId};
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// How often partitions are asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many partitions are asked each time.
const PARTITIONS_PER_ROUND: usize = 64;

/// What is known of a partition from the last look.
#[derive(Debug, Clone, Default)]
struct Look {
    backlog: u64,
    /// Of the newest publication that was applied, while others wait.
    lag: Duration,
    at: Option<Instant>,
    /// What the other region had accepted then and was not applied.
    behind: Option<StreamId>,
    /// The other region's time when nothing waited, in milliseconds since 1970.
    clear_ms: u64,
}

/// Looks at the partitions in turn, for ever. Over the connection for commands, whose answers come within seconds
/// whatever the backlog.
pub(crate) async fn watch(link: &Link, remote: &Redis, measured: &MeasuredLag) -> Infallible {
    let mut looks = vec![Look::default(); link.desks.len()];
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = 0;
    loop {
        interval.tick().await;
        let round = PARTITIONS_PER_ROUND.min(looks.len());
        let partitions: Vec<_> = (first..first + round).map(|number| number % looks.len()).collect();
        first = (first + round) % looks.len();
        let answers: Vec<_> = stream::iter(partitions)
            .map(async |partition| (partition, head(link, remote, partition).await))
            .buffered(PARTITIONS_PER_ROUND)
            .collect()
            .await;
        for (partition, head) in answers {
            let Some(head) = head else { continue };
            let desk = &link.desks[partition];
            let progress = desk.progress.lock().clone();
            let now = look(&head, &progress, looks[partition].clear_ms);
            let before = std::mem::replace(&mut looks[partition], now);
            if progress.live && before.behind.is_some_and(|id| is_behind(&progress, id)) {
                tracing::warn!(
                    region = link.region(),
                    partition,
                    "a publication was not heard; the log is read"
                );
                desk.mailbox.give_up();
            }
        }
        let backlog: u64 = looks.iter().map(|look| look.backlog).sum();
        link.metrics.backlog.set(i64::try_from(backlog).unwrap_or(i64::MAX));
        measured.set(looks.iter().map(lag).max().unwrap_or_default());
    }
}

/// Where the partition stands; `None` when that cannot be told now.
async fn head(link: &Link, remote: &Redis, partition: usize) -> Option<Head> {
    let partition = u16::try_from(partition).ok()?;
    let part = Part { after: StreamId::MIN, until: None, count: 0 };
    let value = remote.commands.call(pull::request(&remote.keys, &link.log.region, partition, part)).await;
    pull::pulled(value.ok()?, &remote.endpoint.ownership.lives).ok().map(|pulled| pulled.head)
}

fn look(head: &Head, progress: &Progress, clear_ms: u64) -> Look {
    let at = Some(Instant::now());
    let Some(cursor) = progress.cursor.as_ref().filter(|cursor| waits(head, progress, cursor.id)) else {
        return Look { at, clear_ms: head.now_ms, ..Look::default() };
    };
    Look {
        backlog: head.count.saturating_sub(cursor.count).max(1),
        // The newest that was applied may be old because nothing came since.
        lag: Duration::from_millis(head.now_ms.saturating_sub(cursor.id.ms.max(clear_ms))),
        at,
        behind: head.last_own,
        clear_ms,
    }
}

/// Whether the other region accepted something behind the cursor. A region that accepted nothing yet does not say where
/// its last publication is. Its log grows all the same, by what others accepted: all of that was read before what is
/// heard was followed.
fn waits(head: &Head, progress: &Progress, cursor: StreamId) -> bool {
    let has_accepted = head.last_own.is_some() || !progress.live;
    has_accepted && !head.is_reached_by(cursor)
}

/// Nothing is known since the last look: what came then may wait since.
fn lag(look: &Look) -> Duration {
    let silent = look.at.map_or(Duration::ZERO, |at| at.elapsed());
    if silent > 3 * INTERVAL { look.lag + silent } else { look.lag }
}

fn is_behind(progress: &Progress, id: StreamId) -> bool {
    progress.cursor.as_ref().is_some_and(|cursor| cursor.id < id)
}

#[cfg(test)]
mod tests {
    use super::{super::cursor::Cursor, *};

    const NOW_MS: u64 = 100_000;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, sequence: 0 }
    }

    fn head(newest_ms: u64, last_own_ms: Option<u64>, count: u64) -> Head {
        Head {
            life: "life".to_owned(),
            born: StreamId::MIN,
            count,
            last_own: last_own_ms.map(id),
            now_ms: NOW_MS,
            newest: id(newest_ms),
            oldest: None,
            trimmed: false,
        }
    }

    fn progress(cursor_ms: u64, live: bool) -> Progress {
        let cursor = Cursor { life: "life".to_owned(), id: id(cursor_ms), count: 7, born: None };
        Progress { cursor: Some(cursor), live }
    }

    #[test]
    fn what_waits_waits_since_the_newest_that_was_applied_or_since_nothing_waited() {
        let look_after = |clear_ms| look(&head(99_000, Some(99_000), 9), &progress(96_000, true), clear_ms);
        assert_eq!((look_after(0).lag, look_after(0).backlog), (Duration::from_secs(4), 2));
        assert_eq!(look_after(99_500).lag, Duration::from_millis(500));
    }

    #[test]
    fn a_region_that_accepts_nothing_itself_does_not_lag() {
        let only_others = head(99_000, None, 0);
        let now = look(&only_others, &progress(0, true), 0);
        assert_eq!((now.lag, now.backlog, now.clear_ms), (Duration::ZERO, 0, NOW_MS));
        assert_eq!(look(&only_others, &progress(0, false), 0).backlog, 1, "its log has not been read yet");
    }
}
