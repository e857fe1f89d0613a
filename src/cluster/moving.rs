//! Moving sessions to other nodes: all, some, or a few at a time. A client that is told `drain` opens the new transport
//! before it leaves the old one, so nothing is lost by it.

mod carrying;
pub(super) mod destinations;
pub mod leaving;
mod pace;
pub(super) mod rebalancing;

use super::Cluster;
use crate::registry::{Attached, Registry};
use carrying::Carrying;
use destinations::Destinations;
use parking_lot::Mutex;
use skywave_protocol::{
    ServerFrame,
    frame::{Drain, SessionId},
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tokio::{sync::Notify, task::AbortHandle};

/// Within which time a client moves that is told when its turn is there.
const TURN: Duration = Duration::from_secs(1);
/// A client that was asked and did not move is not asked again for so long, unless all are to go.
const RESPITE: Duration = Duration::from_secs(600);
/// How often it is looked who has not moved, and whether destinations have changed.
const REVIEW: Duration = Duration::from_secs(1);
/// After so long a session has moved, and the record of the node to which it went shows it here.
const RECORDED: Duration = Duration::from_secs(6);
/// A session that should have moved, and is still here after this time, was refused: it is told another place. Each
/// time it is waited for twice as long, up to the longest.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// The highest rate of an order.
pub const MAX_PER_SECOND: u32 = 1_000_000;

/// What an operator wants to be moved.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// How many sessions; `None`: all, and the node takes no new ones.
    pub sessions: Option<usize>,
    /// How many a second, [`MAX_PER_SECOND`] at most; `None`: all at once, each told a moment within half of
    /// `drain.deadline`.
    pub per_second: Option<NonZeroU32>,
    /// Where to; `None`: to whichever node suits each.
    pub url: Option<Arc<str>>,
}

impl Order {
    fn is_plain(&self) -> bool {
        self.sessions.is_none() && self.per_second.is_none() && self.url.is_none()
    }
}

/// There is no other node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no other node is known that takes sessions; `url` can name one")]
pub struct Nowhere;

/// What a node was ordered to move.
#[derive(Default)]
pub struct Moving {
    state: Mutex<State>,
    /// The process is to end when all sessions have moved.
    pub exit: Notify,
}

#[derive(Default)]
struct State {
    /// Of the last order, with the numbers of their transports.
    ordered: Vec<(SessionId, u64)>,
    /// What carries out the last order.
    task: Option<AbortHandle>,
    /// That is to move all sessions, who are told at once.
    is_full: bool,
}

impl Moving {
    /// How many of those that were ordered to move have not moved yet.
    pub fn left(&self, sessions: &Registry) -> usize {
        let mut state = self.state.lock();
        state.ordered.retain(|(session, number)| sessions.has(session, *number));
        state.ordered.len()
    }

    /// Gives up what has been ordered.
    pub fn stop(&self) {
        if let Some(task) = self.state.lock().task.take() {
            task.abort();
        }
    }

    /// Whether all sessions have been told to go, and are told anew as long as they are here.
    fn is_moving_all(&self) -> bool {
        let state = self.state.lock();
        state.is_full && state.task.as_ref().is_some_and(|task| !task.is_finished())
    }
}

/// The sessions that were not asked lately.
fn fresh(cluster: &Cluster) -> Vec<(SessionId, Attached)> {
    let mut sessions = cluster.sessions.all();
    sessions.retain(|(_, attached)| !attached.was_asked_within(RESPITE));
    sessions
}

/// How many sessions that are still here were asked within `period`: they are as good as gone.
fn leaving(cluster: &Cluster, period: Duration) -> usize {
    let mut count = 0;
    cluster.sessions.each(|_, attached| count += usize::from(attached.was_asked_within(period)));
    count
}

/// Asks a session to move within `within`.
pub fn ask(
    cluster: &Cluster,
    session: &SessionId,
    attached: &Attached,
    within: Duration,
    url: Option<Arc<str>>,
) {
    cluster.sessions.asked(session, attached.claim.number);
    // Bounded by an hour's deadline.
    let drain = ServerFrame::Drain(Drain { after_ms: within.as_millis() as u64, url });
    attached.outbox.control(&drain);
}

/// Begins to move sessions as ordered; answers how many. A new order takes the place of the one before.
///
/// # Errors
/// `Nowhere` when some are to move and no other node is known. All are told to go even then: they may know more.
pub fn begin(cluster: &Arc<Cluster>, order: Order) -> Result<usize, Nowhere> {
    let sessions = match order.sessions {
        Some(count) => {
            if Destinations::new(cluster, order.url.clone()).is_empty() {
                return Err(Nowhere);
            }
            let mut sessions = fresh(cluster);
            sessions.truncate(count);
            sessions
        }
        None if order.is_plain() && cluster.moving.is_moving_all() => {
            return Ok(cluster.sessions.len());
        }
        None => {
            cluster.set_draining();
            cluster.directory.refresh();
            cluster.sessions.all()
        }
    };
    let count = sessions.len();
    tracing::info!(sessions = count, ?order, "moving sessions to other nodes");
    let mut state = cluster.moving.state.lock();
    state.ordered =
        sessions.iter().map(|(session, attached)| (session.clone(), attached.claim.number)).collect();
    if let Some(task) = state.task.take() {
        task.abort();
    }
    state.is_full = order.sessions.is_none() && order.per_second.is_none();
    let mut carrying = Carrying::new(cluster.clone(), order, cluster.options.drain.deadline);
    let time = carrying.balancers_time();
    state.task = Some(tokio::spawn(carrying.begin(time, sessions)).abort_handle());
    Ok(count)
}
