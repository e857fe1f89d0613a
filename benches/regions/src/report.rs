//! What a fault did: counts and times, as a row of a table and as JSON.

use crate::{
    traffic::{Outcome, Service},
    user::Kind,
    wan::Carriage,
};
use serde::{Serialize, Serializer};
use std::{fmt, time::Duration};

/// One fault, in one round or in several.
#[derive(Debug, Serialize)]
pub struct Report {
    pub fault: String,
    /// One for each round.
    pub seeds: Vec<u64>,
    pub seconds: f64,
    pub wan: Carriage,
    pub clients: usize,
    pub acknowledged: usize,
    pub unanswered: usize,
    pub deliveries: u64,
    /// Acknowledged publications that a subscriber neither received nor was told of, over all subscribers.
    pub lost: usize,
    pub repeated: usize,
    pub reordered: usize,
    /// Not received, and told by a `gap`.
    pub told: u64,
    /// Those of `told` that the Redis of their origin still has.
    pub told_though_kept: u64,
    pub gaps: u64,
    /// Those of `gaps` that told of nothing new.
    pub retold: u64,
    pub faults: Vec<String>,
    pub served: Vec<Served>,
}

/// The clients of one kind and transport that the fault affected.
#[derive(Debug, Serialize)]
pub struct Served {
    pub client: &'static str,
    pub transport: &'static str,
    pub affected: usize,
    pub never_served: usize,
    /// From the fault to the client's first acknowledgement and first publication after it, whichever is later.
    pub served_after_ms: Times,
    pub slowest_publish_ms: u64,
}

/// Those of all clients; JSON has their quantiles.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<u64>);

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Quantiles::of(self.0.clone()).serialize(serializer)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Quantiles {
    /// Of milliseconds, by the nearest rank; of nothing all are 0.
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let rank = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self { p50: rank(0.5), p99: rank(0.99), max: rank(1.0) }
    }
}

/// Everybody is to be served again by then, whatever happened.
const LONGEST: Duration = Duration::from_secs(30);

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    pub fn new(
        (fault, may_lose): (String, bool),
        seed: u64,
        (kinds, clients): (&[Kind], usize),
        services: &[Service],
        outcome: Outcome,
        wan: Carriage,
        took: Duration,
    ) -> Self {
        let served = kinds.iter().map(|kind| {
            let of_kind: Vec<&Service> = services.iter().filter(|service| service.kind == *kind).collect();
            let served: Vec<u64> =
                of_kind.iter().filter_map(|service| service.served_after).map(milliseconds).collect();
            Served {
                client: kind.runtime.name(),
                transport: kind.transport.name(),
                affected: of_kind.len(),
                never_served: of_kind.len() - served.len(),
                served_after_ms: Times(served),
                slowest_publish_ms: of_kind
                    .iter()
                    .map(|service| milliseconds(service.slowest_publish))
                    .max()
                    .unwrap_or(0),
            }
        });
        let all_served: Vec<Served> = served.collect();
        let verdict = outcome.verdict;
        let mut faults = outcome.faults;
        let named =
            [("lost", &verdict.lost), ("repeated", &verdict.repeated), ("reordered", &verdict.reordered)];
        for (what, identities) in named.into_iter().filter(|(_, identities)| !identities.is_empty()) {
            let some: Vec<String> = identities
                .iter()
                .take(10)
                .map(|identity| format!("{}/{}", identity.publisher, identity.number))
                .collect();
            faults.push(format!("{what}, by publisher/number: {}", some.join(" ")));
        }
        if outcome.unanswered > 0 {
            faults.push(format!("publishes without an answer: {}", outcome.unanswered));
        }
        for Served { client, transport, never_served, .. } in &all_served {
            if *never_served > 0 {
                faults.push(format!("never served, {client} over {transport}: {never_served}"));
            }
        }
        if verdict.told > 0 && !may_lose {
            faults.push(format!("told as lost, though Redis lost nothing: {}", verdict.told));
        } else if verdict.told_of_going_epoch > 0 {
            let kept = verdict.told_of_going_epoch;
            faults.push(format!("told as lost, though the Redis of their origin has them: {kept}"));
        }
        if verdict.retold > 0 {
            faults.push(format!("gaps up to where the subscriber was already: {}", verdict.retold));
        }
        let late =
            services.iter().filter_map(|service| service.served_after).filter(|after| *after > LONGEST);
        faults.extend(late.map(|after| format!("served again only after {after:?}")));
        Self {
            fault,
            seeds: vec![seed],
            seconds: took.as_secs_f64(),
            wan,
            clients,
            acknowledged: outcome.acknowledged,
            unanswered: outcome.unanswered,
            deliveries: verdict.deliveries,
            lost: verdict.lost.len(),
            repeated: verdict.repeated.len(),
            reordered: verdict.reordered.len(),
            told: verdict.told,
            told_though_kept: verdict.told_of_going_epoch,
            gaps: verdict.gaps,
            retold: verdict.retold,
            faults,
            served: all_served,
        }
    }

    /// Takes another round of the same fault into account.
    pub fn add(&mut self, other: Self) {
        self.seeds.extend(other.seeds);
        self.seconds += other.seconds;
        self.wan.carried += other.wan.carried;
        self.wan.lost += other.wan.lost;
        self.wan.retransmitted += other.wan.retransmitted;
        self.acknowledged += other.acknowledged;
        self.unanswered += other.unanswered;
        self.deliveries += other.deliveries;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.told += other.told;
        self.told_though_kept += other.told_though_kept;
        self.gaps += other.gaps;
        self.retold += other.retold;
        self.faults.extend(other.faults);
        for (own, other) in self.served.iter_mut().zip(other.served) {
            own.affected += other.affected;
            own.never_served += other.never_served;
            own.served_after_ms.0.extend(other.served_after_ms.0);
            own.slowest_publish_ms = own.slowest_publish_ms.max(other.slowest_publish_ms);
        }
    }

    /// Whether every guarantee was kept and everybody was served again.
    pub fn is_kept(&self) -> bool {
        self.faults.is_empty()
    }

    pub const HEADER: &str = "\
| fault | acknowledged | delivered | lost | repeated | out of order | told | of these, still in their Redis | client | transport | affected | served again after p50 | p99 | max | slowest publish |
|---|--:|--:|--:|--:|--:|--:|--:|---|---|--:|--:|--:|--:|--:|";
}

/// The rows of the table, one for each kind of client and transport.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, served) in self.served.iter().enumerate() {
            if number == 0 {
                write!(
                    formatter,
                    "| {} | {} | {} | {} | {} | {} | {} | {} ",
                    self.fault,
                    self.acknowledged,
                    self.deliveries,
                    self.lost,
                    self.repeated,
                    self.reordered,
                    self.told,
                    self.told_though_kept
                )?;
            } else {
                write!(formatter, "\n| | | | | | | | ")?;
            }
            let Quantiles { p50, p99, max } = Quantiles::of(served.served_after_ms.0.clone());
            let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1000.0);
            let never = match served.never_served {
                0 => String::new(),
                count => format!(" ({count} never served)"),
            };
            write!(
                formatter,
                "| {} | {} | {}{never} | {} | {} | {} | {} |",
                served.client,
                served.transport,
                served.affected,
                seconds(p50),
                seconds(p99),
                seconds(max),
                seconds(served.slowest_publish_ms)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        assert_eq!(Quantiles::of((1..=100).rev().collect()), Quantiles { p50: 50, p99: 99, max: 100 });
        assert_eq!(Quantiles::of(vec![7]), Quantiles { p50: 7, p99: 7, max: 7 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles { p50: 0, p99: 0, max: 0 });
    }
}
