//! Makes the members that are held here in a region's name those that its nodes hold.
//!
//! That may be much, and the path carry little: it is read on connections of its own, in steps.

use super::{Away, Mirror, here, there};
use crate::{
    keys::RegionKeys as _,
    presence::{
        answers,
        held::Held,
        holding::{CLAIMS, Place, step_through},
        requests::Announce,
        unreadable,
    },
};
use redis::Value;
use skywave_protocol::Channel;
use skywave_redis::{
    ConnectError, Request,
    layout::Layout,
    patient::{AskError, Patient},
};
use std::{
    collections::HashSet,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::OnceCell, time::Instant};

/// What the connections are called in metrics, logs and `CLIENT LIST`.
const NAME: &str = "presence-mirror";
/// About how many members a step asks for. Each takes a round trip, and Redis a few milliseconds for the most.
const STEP: RangeInclusive<usize> = 64..=2_000;
/// How many it asks for at first.
const FIRST_STEP: usize = 256;
/// A step is to take so long: then what else is on the path waits no longer.
const WANTED: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(1);

/// How much a step asks for, by how long those before it took.
struct Stride(AtomicUsize);

impl Stride {
    fn took(&self, asked: usize, time: Duration) {
        let next = match time {
            time if time < *WANTED.start() => asked * 2,
            time if time > *WANTED.end() => asked / 2,
            _ => asked,
        };
        self.0.store(next.clamp(*STEP.start(), *STEP.end()), Ordering::Relaxed);
    }
}

/// A server of the other region, to which it is connected when it is first needed.
struct Way {
    connection: OnceCell<Patient>,
    stride: Stride,
    /// It cannot be reached, or nothing comes.
    is_lost: AtomicBool,
}

/// Comparisons of several partitions.
pub(crate) struct Comparing<'a> {
    mirror: &'a Mirror,
    layout: Layout,
    /// In the order of the layout's servers.
    ways: Vec<Way>,
}

impl<'a> Comparing<'a> {
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn begin(mirror: &'a Mirror) -> Result<Self, ConnectError> {
        let layout = mirror.remote.redis.endpoint.layout().await?;
        let way = |_| Way {
            connection: OnceCell::new(),
            stride: Stride(AtomicUsize::new(FIRST_STEP)),
            is_lost: AtomicBool::new(false),
        };
        let ways = layout.servers.iter().map(way).collect();
        Ok(Self { mirror, layout, ways })
    }

    /// Compares a partition, of which these hold members there.
    ///
    /// # Errors
    /// Which side could not be asked; what was looked at by then is done.
    pub(crate) async fn compare(&self, number: u16, holders: &[String]) -> Result<(), Away> {
        let mut held = HashSet::new();
        for holder in holders {
            let mut cursor = Some("0".to_owned());
            while let Some(at) = cursor {
                let holdings = self.step(number, holder, &at).await?;
                cursor = holdings.next;
                self.claim(number, holdings.held, &mut held).await?;
            }
        }
        let Mirror { here: requests, local, .. } = self.mirror;
        let mut cursor = Some("0".to_owned());
        while let Some(at) = cursor {
            let scanned = step_through(local, requests, number, &at).await.map_err(here)?;
            cursor = scanned.next;
            let others: Vec<_> = scanned.held.into_iter().filter(|place| !held.contains(place)).collect();
            for some in others.chunks(CLAIMS) {
                self.release(number, some).await?;
            }
        }
        Ok(())
    }

    /// A step through what a holder holds there.
    async fn step(&self, number: u16, holder: &str, cursor: &str) -> Result<answers::Holdings, Away> {
        let stride = &self.way(number).stride;
        let (asked, begun) = (stride.0.load(Ordering::Relaxed), Instant::now());
        let value = self.ask(number, &self.mirror.there.holdings(number, holder, cursor, asked)).await?;
        stride.took(asked, begun.elapsed());
        answers::holdings(value).map_err(|error| there(unreadable(error)))
    }

    /// Takes back those whom no node holds there. A session that went from one node to another meanwhile may have been
    /// missed on both.
    async fn release(&self, number: u16, places: &[Place]) -> Result<(), Away> {
        let Mirror { here: requests, there: questions, local, patience, .. } = self.mirror;
        let value = self.ask(number, &questions.standing(number, *patience, places)).await?;
        let stand = answers::standing(value).map_err(|error| there(unreadable(error)))?;
        let gone = places.iter().zip(stand).filter(|(_, stands)| !stands).map(|(place, _)| place);
        if let Some(request) = requests.take_back(number, gone) {
            local.commands.call(request).await.map_err(here)?;
        }
        Ok(())
    }

    fn way(&self, number: u16) -> &Way {
        &self.ways[self.server(number)]
    }

    /// Which of the servers there has a partition, in their order.
    fn server(&self, number: u16) -> usize {
        self.layout.slots.server_of(self.mirror.there.keys.holders(number).as_bytes())
    }

    async fn connection(&self, number: u16) -> Result<&Patient, ConnectError> {
        let server = &self.layout.servers[self.server(number)];
        let durations = &self.mirror.remote.redis.metrics.command_duration;
        let name = Arc::from(NAME);
        let connect = || Patient::connect(server, &name, durations);
        self.way(number).connection.get_or_try_init(connect).await
    }

    /// Asks the server there that has a partition.
    async fn ask(&self, number: u16, request: &Request) -> Result<Value, Away> {
        let way = self.way(number);
        if way.is_lost.load(Ordering::Relaxed) {
            return Err(Away::There);
        }
        let answer = async { self.connection(number).await?.ask(request).await };
        answer.await.map_err(|error| {
            tracing::debug!(%error, region = &*self.mirror.remote.name, number, "members cannot be read");
            if !matches!(error, AskError::Refused(_)) {
                way.is_lost.store(true, Ordering::Relaxed);
            }
            Away::There
        })
    }

    async fn claim(
        &self,
        number: u16,
        found: Vec<(Channel, Held)>,
        held: &mut HashSet<Place>,
    ) -> Result<(), Away> {
        let Mirror { here: requests, local, .. } = self.mirror;
        let mut holds = Vec::new();
        for (channel, one) in found {
            if requests.keys.partition(&channel) == number {
                held.insert((channel.clone(), one.member.session.clone()));
                holds.push(super::hold(&channel, one));
            }
        }
        while !holds.is_empty() {
            let rest = holds.split_off(holds.len().min(CLAIMS));
            let some = std::mem::replace(&mut holds, rest);
            local.commands.call(requests.arrive(number, Announce::Back, some)).await.map_err(here)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_asks_for_what_comes_in_about_a_second() {
        let stride = Stride(AtomicUsize::new(FIRST_STEP));
        // In so many milliseconds each comes.
        for (each, expected) in [(0.1, 2_000), (10.0, 64), (4.0, 128), (0.5, 1_024), (100.0, 64)] {
            for _ in 0..8 {
                let asked = stride.0.load(Ordering::Relaxed);
                stride.took(asked, Duration::from_secs_f64(asked as f64 * each / 1_000.0));
            }
            assert_eq!(stride.0.load(Ordering::Relaxed), expected, "{each} ms each");
        }
    }
}
