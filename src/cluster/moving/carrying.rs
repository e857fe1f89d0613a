//! Carrying out an order to move sessions, until all have moved.

use super::{
    LONGEST_PATIENCE, Order, PATIENCE, RECORDED, REVIEW, TURN, ask, destinations::Destinations, pace::Pace,
};
use crate::{cluster::Cluster, registry::Attached};
use skywave_protocol::frame::SessionId;
use std::{collections::VecDeque, num::NonZeroU32, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// A balancer that checks nodes every other second has noticed after so long that one takes no sessions.
const NOTICED: Duration = Duration::from_secs(8);

/// A session that was told to move, and has not yet.
struct Told {
    session: SessionId,
    attached: Attached,
    url: Option<Arc<str>>,
    /// It should have moved by then.
    due: Instant,
    /// For how much longer it is waited for before it is told another place.
    patience: Duration,
}

impl Told {
    fn is_overdue(&self) -> bool {
        Instant::now() > self.due + self.patience
    }
}

/// Carries out an order until all have moved. It tells those whose turn it is. It tells another place to those whose
/// destination is gone, who were refused there, or who were told none.
pub(crate) struct Carrying {
    cluster: Arc<Cluster>,
    order: Order,
    begun: Instant,
    /// All are to have moved within this time, unless step by step.
    time: Duration,
    /// Who has nowhere else to go is left in peace.
    pub(crate) may_stay: bool,
    told: Vec<Told>,
    /// Where those went who have moved of late: the records of those nodes may not show them yet.
    moved: VecDeque<(Instant, Arc<str>)>,
}

impl Carrying {
    pub(crate) fn new(cluster: Arc<Cluster>, order: Order, time: Duration) -> Self {
        let (told, moved) = (Vec::new(), VecDeque::new());
        Self { cluster, order, begun: Instant::now(), time, may_stay: false, told, moved }
    }

    /// Where sessions can go now, with those counted who are on their way.
    fn destinations(&mut self) -> Destinations {
        let mut destinations = Destinations::new(&self.cluster, self.order.url.clone());
        while self.moved.pop_front_if(|(at, _)| at.elapsed() >= RECORDED).is_some() {}
        for (_, url) in &self.moved {
            destinations.expects(url);
        }
        destinations
    }

    fn tell(&mut self, session: SessionId, attached: Attached, within: Duration, url: Option<Arc<str>>) {
        ask(&self.cluster, &session, &attached, within, url.clone());
        self.told.push(Told { session, attached, url, due: Instant::now() + within, patience: PATIENCE });
    }

    /// Tells all of them at once, each a moment within half of the time, unless the order has a pace.
    fn tell_unpaced(&mut self, sessions: &mut Vec<(SessionId, Attached)>) {
        if self.order.per_second.is_some() {
            return;
        }
        let spread = self.time / 2;
        let mut destinations = self.destinations();
        for (session, attached) in sessions.drain(..) {
            let url = destinations.next(&session, &attached);
            let within = spread.mul_f64(self.cluster.host.chance.any());
            self.tell(session, attached, within, url);
        }
    }

    /// How long to wait before sessions are told to come back to the address at which they are. By then a balancer
    /// knows, by its checks, that this node takes none any more.
    pub(crate) fn balancers_time(&mut self) -> Duration {
        if self.destinations().is_own_address() { NOTICED.min(self.time / 3) } else { Duration::ZERO }
    }

    /// Begins to move these sessions, after that time. Who is to be told at once has been told when this returns: the
    /// node may end before the future gets its turn.
    pub(crate) fn begin(
        mut self,
        after: Duration,
        mut sessions: Vec<(SessionId, Attached)>,
    ) -> impl Future<Output = ()> + Send + 'static {
        if after.is_zero() {
            self.tell_unpaced(&mut sessions);
        }
        async move {
            tokio::time::sleep(after).await;
            self.tell_unpaced(&mut sessions);
            self.run(sessions).await;
        }
    }

    async fn run(mut self, sessions: Vec<(SessionId, Attached)>) {
        let mut untold = VecDeque::from(sessions);
        let mut pace = Pace::new(self.order.per_second.unwrap_or(NonZeroU32::MIN));
        let mut review = tokio::time::interval(REVIEW);
        review.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(untold.is_empty() && self.told.is_empty()) {
            tokio::select! {
                biased;
                due = pace.step(), if !untold.is_empty() => self.tell_next(&mut untold, due),
                _ = review.tick() => self.review(),
            }
        }
    }

    /// Tells so many of them. Those that have gone meanwhile do not count.
    fn tell_next(&mut self, untold: &mut VecDeque<(SessionId, Attached)>, due: u64) {
        if due == 0 {
            return;
        }
        let mut destinations = self.destinations();
        for told in &self.told {
            if let Some(url) = &told.url {
                destinations.expects(url);
            }
        }
        for _ in 0..due {
            let sessions = &self.cluster.sessions;
            let next = std::iter::from_fn(|| untold.pop_front());
            let Some((session, attached)) =
                next.into_iter().find(|(id, it)| sessions.has(id, it.claim.number))
            else {
                return;
            };
            let url = destinations.next(&session, &attached);
            self.tell(session, attached, TURN, url);
        }
    }

    fn review(&mut self) {
        let (here, moved): (Vec<_>, Vec<_>) = std::mem::take(&mut self.told)
            .into_iter()
            .partition(|told| self.cluster.sessions.has(&told.session, told.attached.claim.number));
        let now = Instant::now();
        self.moved.extend(moved.into_iter().filter_map(|told| Some((now, told.url?))));
        let mut destinations = self.destinations();
        let (on_their_way, others): (Vec<_>, Vec<_>) = here.into_iter().partition(|told| {
            let is_expected = told.url.as_ref().is_some_and(|url| destinations.expects(url));
            is_expected && !told.is_overdue()
        });
        self.told = on_their_way;
        let most = self.order.per_second.map_or(usize::MAX, |rate| rate.get() as usize);
        for (number, told) in others.into_iter().enumerate() {
            let is_worth = told.is_overdue() || !destinations.is_full();
            let told = if number < most && is_worth { self.tell_anew(told, &mut destinations) } else { told };
            self.told.push(told);
        }
    }

    /// Tells a session another place than before, if there is one.
    fn tell_anew(&self, before: Told, destinations: &mut Destinations) -> Told {
        let Told { session, attached, url, patience, due } = before;
        let next = destinations.next_but(url.as_deref(), &session, &attached);
        let longer = (patience * 2).min(LONGEST_PATIENCE);
        if next.is_none() && url.is_none() {
            return Told { session, attached, url, patience, due };
        }
        if self.may_stay && (next.is_none() || next == url) {
            return Told { session, attached, url, patience: longer, due: Instant::now() };
        }
        let left = self.time.saturating_sub(self.begun.elapsed());
        let within = TURN.max(left / 4).mul_f64(self.cluster.host.chance.any());
        ask(&self.cluster, &session, &attached, within, next.clone());
        Told { session, attached, url: next, due: Instant::now() + within, patience: longer }
    }
}
