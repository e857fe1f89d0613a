//! What was acknowledged against what each subscriber received: nothing lost in silence, repeated or out of order.

use serde::Deserialize;
use skywave_client::{
    Channel, Published,
    protocol::position::{Epoch, Origin},
};
use std::collections::{HashMap, HashSet};

/// A message, wherever and however often it was published: its publisher, and which one of that publisher's, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub publisher: u32,
    pub number: u64,
}

/// Where a publication stands on its channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Place {
    pub origin: Origin,
    pub epoch: Epoch,
    pub offset: u64,
}

impl From<&Published> for Place {
    fn from(published: &Published) -> Self {
        Self { origin: published.origin.clone(), epoch: published.epoch.clone(), offset: published.offset }
    }
}

/// Everything that nodes acknowledged, by channel.
#[derive(Debug, Default)]
pub struct Ledger(HashMap<Channel, HashMap<Identity, Place>>);

impl Ledger {
    pub fn acknowledge(&mut self, channel: &Channel, identity: Identity, place: Place) {
        self.0.entry(channel.clone()).or_default().insert(identity, place);
    }

    pub fn len(&self) -> usize {
        self.0.values().map(HashMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn on(&self, channel: &Channel) -> impl Iterator<Item = (&Identity, &Place)> {
        self.0.get(channel).into_iter().flatten()
    }
}

/// What one subscriber received on one channel, from before the first publication on.
#[derive(Debug)]
pub struct Reader {
    channel: Channel,
    received: HashSet<Identity>,
    deliveries: u64,
    repeated: Vec<Identity>,
    reordered: Vec<Identity>,
    /// Per origin, how far the subscriber is.
    points: HashMap<Origin, (Epoch, u64)>,
    /// The last number of each publisher by origin.
    numbers: HashMap<(u32, Origin), u64>,
    told: Vec<Told>,
    gaps: u64,
    retold: u64,
}

/// Publications that a `gap` said would not come: offsets after `after` up to `upto`.
#[derive(Debug)]
struct Told {
    origin: Origin,
    epoch: Epoch,
    after: u64,
    upto: u64,
    /// Whether that epoch went on.
    is_going: bool,
}

/// How a subscriber stands against the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub deliveries: u64,
    /// Acknowledged, never received, and nothing was said.
    pub lost: Vec<Identity>,
    /// Received more than once.
    pub repeated: Vec<Identity>,
    /// Received after a later one of the same origin.
    pub reordered: Vec<Identity>,
    /// Acknowledged, never received, and a `gap` said so.
    pub told: u64,
    /// Those of `told` whose epoch went on when a gap told of them: the Redis of their origin had not lost them.
    pub told_of_going_epoch: u64,
    pub gaps: u64,
    /// Gaps up to where the subscriber already was: they tell of nothing, or of the same again.
    pub retold: u64,
}

impl Verdict {
    /// Whether every guarantee was kept.
    pub fn is_kept(&self) -> bool {
        self.lost.is_empty() && self.repeated.is_empty() && self.reordered.is_empty() && self.retold == 0
    }

    pub fn add(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.lost.extend(other.lost);
        self.repeated.extend(other.repeated);
        self.reordered.extend(other.reordered);
        self.told += other.told;
        self.told_of_going_epoch += other.told_of_going_epoch;
        self.gaps += other.gaps;
        self.retold += other.retold;
    }
}

impl Reader {
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            received: HashSet::new(),
            deliveries: 0,
            repeated: Vec::new(),
            reordered: Vec::new(),
            points: HashMap::new(),
            numbers: HashMap::new(),
            told: Vec::new(),
            gaps: 0,
            retold: 0,
        }
    }

    /// A publication reached the application.
    pub fn publication(&mut self, identity: Identity, place: Place) {
        self.deliveries += 1;
        if !self.received.insert(identity) {
            self.repeated.push(identity);
        }
        let Place { origin, epoch, offset } = place;
        // Within an origin offsets grow, and so do the numbers of each publisher, who waits for each answer.
        let number = self.numbers.entry((identity.publisher, origin.clone())).or_default();
        let in_number = identity.number > *number;
        *number = identity.number.max(*number);
        let in_offset = match self.points.get(&origin) {
            Some((current, last)) if *current == epoch => offset > *last,
            // A new epoch that no gap announced.
            Some(_) => false,
            None => true,
        };
        if !in_number || !in_offset {
            self.reordered.push(identity);
        }
        self.points.insert(origin, (epoch, offset));
    }

    /// The application was told that nothing more comes up to here.
    pub fn gap(&mut self, Place { origin, epoch, offset }: Place) {
        self.gaps += 1;
        if self.points.get(&origin).is_some_and(|(current, last)| *current == epoch && *last >= offset) {
            self.retold += 1;
            return;
        }
        let mut tell = |epoch: &Epoch, after, upto, is_going| {
            self.told.push(Told { origin: origin.clone(), epoch: epoch.clone(), after, upto, is_going });
        };
        match self.points.get(&origin) {
            Some((current, last)) if *current == epoch => tell(&epoch, *last, offset, true),
            Some((former, last)) => {
                tell(former, *last, u64::MAX, false);
                tell(&epoch, 0, offset, true);
            }
            None => tell(&epoch, 0, offset, true),
        }
        self.points.insert(origin, (epoch, offset));
    }

    /// Whether gaps said that what stands at `place` would not come, and if so, whether its epoch went on then.
    fn told(&self, place: &Place) -> Option<bool> {
        let mut of_origin = self.told.iter().filter(|told| told.origin == place.origin).peekable();
        let (any, here) = (of_origin.peek().is_some(), self.points.get(&place.origin));
        let mut epochs = of_origin.clone().map(|told| &told.epoch);
        // An epoch that came and went between two gaps that this subscriber was told of.
        let passed_over = any
            && here.is_some_and(|(epoch, _)| *epoch != place.epoch)
            && !epochs.any(|epoch| *epoch == place.epoch);
        let covers = |told: &&Told| {
            told.epoch == place.epoch && told.after < place.offset && place.offset <= told.upto
        };
        if passed_over { Some(false) } else { of_origin.find(covers).map(|told| told.is_going) }
    }

    pub fn verdict(&self, ledger: &Ledger) -> Verdict {
        let mut verdict = Verdict {
            deliveries: self.deliveries,
            repeated: self.repeated.clone(),
            reordered: self.reordered.clone(),
            gaps: self.gaps,
            retold: self.retold,
            ..Verdict::default()
        };
        for (identity, place) in ledger.on(&self.channel) {
            match (self.received.contains(identity), self.told(place)) {
                (true, _) => {}
                (false, Some(is_going)) => {
                    verdict.told += 1;
                    verdict.told_of_going_epoch += u64::from(is_going);
                }
                (false, None) => verdict.lost.push(*identity),
            }
        }
        verdict.lost.sort_unstable();
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> Channel {
        Channel::new("chat:1").unwrap()
    }

    fn identity(number: u64) -> Identity {
        Identity { publisher: 1, number }
    }

    fn place(origin: &str, epoch: &str, offset: u64) -> Place {
        Place { origin: Origin::new(origin).unwrap(), epoch: Epoch::new(epoch).unwrap(), offset }
    }

    /// Numbers 1 to `count` were acknowledged at the same offsets of epoch `a`.
    fn ledger(count: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for number in 1..=count {
            ledger.acknowledge(&channel(), identity(number), place("eu", "a", number));
        }
        ledger
    }

    fn reader(numbers: &[u64]) -> Reader {
        let mut reader = Reader::new(channel());
        for number in numbers {
            reader.publication(identity(*number), place("eu", "a", *number));
        }
        reader
    }

    #[test]
    fn everything_once_and_in_order_keeps_the_guarantees() {
        let verdict = reader(&[1, 2, 3]).verdict(&ledger(3));
        assert!(verdict.is_kept());
        assert_eq!((verdict.deliveries, verdict.told), (3, 0));
    }

    #[test]
    fn what_is_missing_in_silence_is_lost() {
        assert_eq!(reader(&[1, 3]).verdict(&ledger(3)).lost, [identity(2)]);
    }

    #[test]
    fn what_comes_twice_is_repeated_wherever_it_stands() {
        let mut reader = reader(&[1, 2]);
        reader.publication(identity(2), place("us", "x", 1));
        let verdict = reader.verdict(&ledger(2));
        assert_eq!((verdict.repeated.len(), verdict.reordered.len()), (1, 0));
    }

    #[test]
    fn what_comes_late_is_out_of_order() {
        assert_eq!(reader(&[2, 1]).verdict(&ledger(2)).reordered, [identity(1)]);
    }

    #[test]
    fn the_effect_of_a_publish_that_got_two_positions_counts_once() {
        // Acknowledged in one region, received by its position in another.
        let mut reader = Reader::new(channel());
        reader.publication(identity(1), place("us", "x", 9));
        assert!(reader.verdict(&ledger(1)).is_kept());
    }

    #[test]
    fn a_gap_tells_of_what_lies_before_it_and_of_nothing_else() {
        let mut reader = reader(&[1]);
        reader.gap(place("eu", "a", 3));
        reader.publication(identity(5), place("eu", "a", 5));
        let verdict = reader.verdict(&ledger(5));
        assert_eq!((verdict.told, verdict.told_of_going_epoch), (2, 2));
        assert_eq!(verdict.lost, [identity(4)]);
    }

    #[test]
    fn a_gap_is_told_once() {
        let mut reader = reader(&[1]);
        for _ in 0..3 {
            reader.gap(place("eu", "a", 3));
        }
        reader.gap(place("eu", "a", 2));
        let verdict = reader.verdict(&ledger(3));
        assert_eq!((verdict.gaps, verdict.retold, verdict.told), (4, 3, 2));
    }

    #[test]
    fn a_new_epoch_tells_of_the_rest_of_the_old_one() {
        let mut reader = reader(&[1, 2]);
        reader.gap(place("eu", "b", 0));
        reader.publication(identity(5), place("eu", "b", 1));
        let mut ledger = ledger(4);
        ledger.acknowledge(&channel(), identity(5), place("eu", "b", 1));
        let verdict = reader.verdict(&ledger);
        assert!(verdict.is_kept());
        assert_eq!((verdict.told, verdict.told_of_going_epoch), (2, 0));
    }

    #[test]
    fn what_a_gap_tells_of_an_epoch_that_goes_on_was_there_whatever_comes_later() {
        let mut reader = reader(&[1]);
        reader.gap(place("eu", "a", 2));
        reader.gap(place("eu", "b", 0));
        let verdict = reader.verdict(&ledger(3));
        assert_eq!((verdict.told, verdict.told_of_going_epoch), (2, 1));
    }

    #[test]
    fn a_new_epoch_that_no_gap_announces_is_out_of_order() {
        let mut reader = reader(&[1]);
        reader.publication(identity(2), place("eu", "b", 1));
        assert_eq!(reader.verdict(&ledger(2)).reordered, [identity(2)]);
    }

    #[test]
    fn an_epoch_that_came_and_went_between_gaps_is_told() {
        let mut reader = reader(&[1]);
        reader.gap(place("eu", "c", 0));
        let mut ledger = ledger(1);
        ledger.acknowledge(&channel(), identity(2), place("eu", "b", 1));
        ledger.acknowledge(&channel(), identity(3), place("eu", "c", 1));
        let verdict = reader.verdict(&ledger);
        assert_eq!((verdict.told, verdict.lost), (1, vec![identity(3)]));
    }
}
