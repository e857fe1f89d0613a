//! Readers of histories that lived through restarts, rewinds and trimming.

use super::*;
use proptest::prelude::*;
use skywave_channels::broadcast::Broadcast;
use skywave_protocol::{Admission, Channel, Json, Text, frame};
use std::collections::HashSet;

const LIMIT: ChunkLimit = ChunkLimit { publications: 3, bytes: 1000 };

pub(crate) type Name = (String, String, u64);

/// A channel's history and its head, as the scripts keep them.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub entries: Vec<Entry>,
    pub head: Head,
    next_id: u64,
    lives: u32,
}

impl History {
    pub(crate) fn new() -> Self {
        let mut history =
            Self { entries: Vec::new(), head: Head::of(Text::new("eu").unwrap()), next_id: 1, lives: 0 };
        history.begin_life();
        history
    }

    /// Redis restarted: offsets of the own origin begin anew.
    fn begin_life(&mut self) {
        self.lives += 1;
        let epoch = Text::new(format!("life{}", self.lives)).unwrap();
        self.head.position.set(self.head.succession.own.clone(), Point { epoch, offset: 0 });
    }

    fn publish(&mut self, origin: &str) {
        let origin = Text::new(origin).unwrap();
        let point = self.head.position.get(&origin).cloned();
        let point = point.unwrap_or(Point { epoch: Text::new("there").unwrap(), offset: 0 });
        self.append(&origin, &point.epoch, point.offset + 1);
    }

    fn append(&mut self, origin: &Origin, epoch: &Epoch, offset: u64) {
        self.head.position.advance(origin, epoch, offset);
        let publication = Broadcast::new(frame::Publication {
            channel: Channel::new("chat:1").unwrap(),
            origin: origin.clone(),
            epoch: epoch.clone(),
            offset,
            time_ms: 0,
            key: None,
            user: None,
            data: Json::parse("1").unwrap().into(),
        });
        self.entries.push(Entry { id: StreamId { ms: self.next_id, sequence: 0 }, publication });
        self.next_id += 1;
    }

    /// Redis restarted from an older state; the bridge brings the other region's publications again.
    fn rewind(&mut self, count: usize) {
        let kept = self.entries.len().saturating_sub(count);
        let dropped = self.entries.split_off(kept);
        self.begin_life();
        for entry in dropped {
            let frame = entry.publication.frame();
            if frame.origin != self.head.succession.own {
                self.append(&frame.origin, &frame.epoch, frame.offset);
            }
        }
    }

    fn trim(&mut self, count: usize) {
        self.entries.drain(..count.min(self.entries.len()));
    }

    pub(crate) fn read(&self, position: &Position, limit: ChunkLimit) -> Chunk {
        let mut search = Search::new(position, &self.head);
        for entry in self.entries.iter().rev() {
            if search.is_done() {
                break;
            }
            search.visit(entry.id, &entry.publication, position);
        }
        let (first, starts) = search.finish();
        let mut playback = Playback::new(position.clone(), starts, limit);
        let wanted = self.entries.iter().filter(|entry| first.is_some_and(|first| entry.id >= first));
        for entry in wanted {
            if !playback.offer(entry) {
                return playback.part(&self.head);
            }
        }
        playback.complete(&self.head)
    }
}

pub(crate) fn name(publication: &Publication) -> Name {
    let frame = publication.frame();
    (frame.origin.to_string(), frame.epoch.to_string(), frame.offset)
}

/// Someone who reads as a session does: chunk by chunk, refusing what does not follow.
fn read_all(history: &History, mut position: Position) -> (Vec<Name>, Vec<Lost>) {
    let (mut names, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let chunk = history.read(&position, LIMIT);
        for lost in &chunk.lost {
            position.set(lost.origin.clone(), lost.point.clone());
        }
        for publication in &chunk.publications {
            let frame = publication.frame();
            let admission = position.admit(&frame.origin, &frame.epoch, frame.offset);
            assert_eq!(admission, Admission::Next, "{:?} at {position:?}", name(publication));
            position.advance(&frame.origin, &frame.epoch, frame.offset);
            names.push(name(publication));
        }
        losses.extend(chunk.lost.iter().cloned());
        if chunk.complete {
            for (origin, point) in history.head.position.iter() {
                let seen = position.get(origin);
                let none_yet = seen.is_none() && point.offset == 0;
                assert!(none_yet || seen == Some(point), "{origin}: {seen:?} is not the head {point:?}");
            }
            return (names, losses);
        }
        assert!(!chunk.publications.is_empty() || !chunk.lost.is_empty(), "no progress at {position:?}");
    }
    panic!("reading does not end");
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Publish(&'static str),
    Restart,
    Rewind(usize),
    Trim(usize),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Publish("eu")),
        3 => Just(Step::Publish("us")),
        1 => Just(Step::Restart),
        1 => (0usize..4).prop_map(Step::Rewind),
        1 => (0usize..4).prop_map(Step::Trim),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 0..40)
}

pub(crate) fn run(history: &mut History, step: &Step) {
    match step {
        Step::Publish(origin) => history.publish(origin),
        Step::Restart => history.begin_life(),
        Step::Rewind(count) => history.rewind(*count),
        Step::Trim(count) => history.trim(*count),
    }
}

proptest! {
    /// Whatever happened to Redis meanwhile: nothing twice, in order, losses told before what follows them, and
    /// all that survived of the reader's own epoch and of the present one.
    #[test]
    fn a_reader_gets_what_survived_once_and_is_told_of_the_rest(
        before in steps(),
        after in steps(),
    ) {
        let mut history = History::new();
        let mut published = HashSet::new();
        for step in &before {
            run(&mut history, step);
            published.extend(history.entries.iter().map(|entry| name(&entry.publication)));
        }
        let position = history.head.position.clone();
        for step in &after {
            run(&mut history, step);
        }
        let (names, losses) = read_all(&history, position.clone());
        let unique: HashSet<_> = names.iter().collect();
        prop_assert_eq!(unique.len(), names.len());
        prop_assert!(names.iter().all(|name| !published.contains(name)));

        let known_epochs: HashSet<_> = position
            .iter()
            .chain(history.head.position.iter())
            .map(|(_, point)| point.epoch.to_string())
            .collect();
        let due: Vec<_> = history
            .entries
            .iter()
            .map(|entry| name(&entry.publication))
            .filter(|name| !published.contains(name) && known_epochs.contains(&name.1))
            .collect();
        let got: Vec<_> = names.iter().filter(|name| known_epochs.contains(&name.1)).cloned().collect();
        prop_assert_eq!(got, due);
        let own_before = position.get("eu").unwrap();
        let own_now = history.head.position.get("eu").unwrap();
        let told = losses.iter().any(|lost| lost.reason == GapReason::EpochChanged);
        prop_assert_eq!(told, own_before.epoch != own_now.epoch);
    }
}

fn at(epoch: &str, offset: u64) -> Position {
    let point = Point { epoch: Text::new(epoch).unwrap(), offset };
    [(Text::new("eu").unwrap(), point)].into_iter().collect()
}

fn offsets(chunk: &Chunk) -> Vec<u64> {
    chunk.publications.iter().map(|publication| publication.frame().offset).collect()
}

#[test]
fn what_survived_of_the_old_life_comes_before_the_new_one_is_told() {
    let mut history = History::new();
    for _ in 0..3 {
        history.publish("eu");
    }
    history.begin_life();
    history.publish("eu");
    let first = history.read(&at("life1", 1), LIMIT);
    assert_eq!((offsets(&first), first.lost.len(), first.complete), (vec![2, 3], 0, false));
    assert_eq!(first.loss_ahead, Some(GapReason::EpochChanged));
    let second = history.read(&at("life1", 3), LIMIT);
    assert_eq!((offsets(&second), second.complete), (vec![1], true));
    assert_eq!(second.lost[0].point, *at("life2", 0).get("eu").unwrap());
}

#[test]
fn a_new_life_is_told_even_before_its_first_publication() {
    let mut history = History::new();
    history.publish("eu");
    history.begin_life();
    let chunk = history.read(&at("life1", 1), LIMIT);
    assert!(chunk.publications.is_empty() && chunk.complete);
    assert_eq!(chunk.lost[0].point, *at("life2", 0).get("eu").unwrap());
}

#[test]
fn publications_of_a_life_that_may_be_older_are_not_delivered_again() {
    let mut history = History::new();
    history.publish("eu");
    history.begin_life();
    history.publish("eu");
    let unknown = history.read(&at("unknown", 4), LIMIT);
    assert_eq!((offsets(&unknown), unknown.lost.len()), (vec![1], 1));
    assert_eq!(&*unknown.publications[0].frame().epoch, "life2");
}

#[test]
fn a_position_ahead_of_this_region_waits_for_the_other_one() {
    let mut history = History::new();
    history.publish("us");
    let mut position = at("life1", 0);
    let there = Point { epoch: Text::new("there").unwrap(), offset: 5 };
    position.set(Text::new("us").unwrap(), there);
    let chunk = history.read(&position, LIMIT);
    assert!(chunk.lost.is_empty() && chunk.publications.is_empty() && chunk.complete);
}

/// The other region, how far its publications have come here, and a reader who goes from one region to the other.
struct Regions {
    here: History,
    there: History,
    crossed: usize,
    lives: u32,
    position: Position,
    got: Vec<Name>,
}

#[derive(Debug, Clone)]
enum Event {
    Published,
    RestartedThere,
    Crossed(usize),
    /// This region's Redis lost as many, and they are brought again.
    SetBackHere(usize),
    ReadHere,
    ReadThere,
    HeardHere,
}

impl Regions {
    fn new() -> Self {
        let mut there = History::new();
        there.head = Head::of(us());
        let position = Position::new();
        let mut regions =
            Self { here: History::new(), there, crossed: 0, lives: 0, position, got: Vec::new() };
        regions.begin_life_there(1);
        regions.position = regions.there.head.position.clone();
        regions
    }

    fn begin_life_there(&mut self, step: u32) {
        self.lives += step;
        let epoch = Text::new(format!("{:011x}aaaaa.e1", self.lives)).unwrap();
        self.there.head.position.set(us(), Point { epoch, offset: 0 });
    }

    fn cross(&mut self, count: usize) {
        self.here.head.beginnings = Position::new();
        for entry in self.there.entries.iter().skip(self.crossed).take(count) {
            let frame = entry.publication.frame();
            self.here.append(&frame.origin, &frame.epoch, frame.offset);
            self.crossed += 1;
        }
        if self.crossed == self.there.entries.len() {
            // Nothing of an earlier life is to come.
            let epoch = self.there.head.position.get("us").unwrap().epoch.clone();
            self.here.head.begin([(us(), Point { epoch, offset: 0 })].into_iter().collect());
        }
    }

    fn set_back(&mut self, count: usize) {
        let kept = self.here.entries.len().saturating_sub(count);
        self.here.entries.truncate(kept);
        self.crossed = kept;
        self.here.head.beginnings = Position::new();
        self.here.begin_life();
        let own = self.here.head.position.get("eu").cloned().unwrap();
        self.here.head.position = [(self.here.head.succession.own.clone(), own)].into_iter().collect();
        if let Some(last) = self.here.entries.last() {
            let frame = last.publication.frame();
            self.here.head.position.advance(&frame.origin, &frame.epoch, frame.offset);
        }
    }

    fn read(&mut self, here: bool) {
        for round in 0.. {
            assert!(round < 100, "reading does not end");
            let history = if here { &self.here } else { &self.there };
            let chunk = history.read(&self.position, LIMIT);
            chunk.lost.iter().for_each(|lost| self.position.set(lost.origin.clone(), lost.point.clone()));
            for publication in &chunk.publications {
                let frame = publication.frame();
                let admission = self.position.admit(&frame.origin, &frame.epoch, frame.offset);
                assert_eq!(admission, Admission::Next, "{:?} at {:?}", name(publication), self.position);
                self.position.advance(&frame.origin, &frame.epoch, frame.offset);
                self.got.push(name(publication));
            }
            if chunk.complete {
                return;
            }
        }
    }

    /// The newest comes live: it is taken, or the history is read.
    fn hear(&mut self) {
        let Some(newest) = self.here.entries.last().map(|entry| entry.publication.clone()) else { return };
        let frame = newest.frame();
        match self.position.admit(&frame.origin, &frame.epoch, frame.offset) {
            Admission::Next => {
                self.position.advance(&frame.origin, &frame.epoch, frame.offset);
                self.got.push(name(&newest));
            }
            Admission::Duplicate => {}
            Admission::Gap | Admission::NewEpoch => self.read(true),
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Published => self.there.publish("us"),
            Event::RestartedThere => self.begin_life_there(1),
            Event::Crossed(count) => self.cross(*count),
            Event::SetBackHere(count) => self.set_back(*count),
            Event::ReadHere => self.read(true),
            Event::ReadThere => self.read(false),
            Event::HeardHere => self.hear(),
        }
    }
}

fn us() -> Origin {
    Text::new("us").unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Published),
        1 => Just(Event::RestartedThere),
        4 => (1usize..4).prop_map(Event::Crossed),
        1 => (0usize..4).prop_map(Event::SetBackHere),
        2 => Just(Event::ReadHere),
        2 => Just(Event::ReadThere),
        2 => Just(Event::HeardHere),
    ]
}

proptest! {
    /// Where the other region's Redis restarts with its data, and this one's is set back in time.
    #[test]
    fn a_reader_who_goes_from_region_to_region_gets_each_once(events in proptest::collection::vec(event(), 0..60)) {
        let mut regions = Regions::new();
        events.iter().for_each(|event| regions.happen(event));
        regions.cross(usize::MAX);
        regions.read(true);
        let published: Vec<_> =
            regions.there.entries.iter().map(|entry| name(&entry.publication)).collect();
        prop_assert_eq!(regions.got, published);
    }
}

#[test]
fn a_reader_who_saw_a_later_epoch_elsewhere_waits_for_it() {
    let mut regions = Regions::new();
    let events =
        [Event::Published, Event::Crossed(1), Event::RestartedThere, Event::Published, Event::ReadThere];
    events.iter().for_each(|event| regions.happen(event));
    let chunk = regions.here.read(&regions.position, LIMIT);
    assert!(chunk.loss().is_none() && chunk.publications.is_empty() && chunk.complete, "{chunk:?}");
    assert_eq!((chunk.follows, &chunk.start), (Some(0), &regions.position));
}

#[test]
fn an_epoch_that_this_region_has_left_is_not_waited_for_whatever_its_name() {
    let mut regions = Regions::new();
    let events = [Event::RestartedThere, Event::Published, Event::Crossed(1), Event::ReadHere];
    events.iter().for_each(|event| regions.happen(event));
    let left = regions.position.get("us").cloned().unwrap();
    // It lost all, and its clock stands behind.
    regions.lives = 0;
    regions.begin_life_there(1);
    regions.there.publish("us");
    regions.cross(1);
    regions.here.head.succession.latest.set(us(), left);
    let chunk = regions.here.read(&regions.position, LIMIT);
    assert_eq!((offsets(&chunk), chunk.loss()), (vec![1], Some(GapReason::EpochChanged)));
}

#[test]
fn one_publication_fits_into_every_chunk() {
    let mut history = History::new();
    history.publish("eu");
    history.publish("eu");
    let chunk = history.read(&at("life1", 0), ChunkLimit { publications: 9, bytes: 0 });
    assert_eq!((offsets(&chunk), chunk.complete), (vec![1], false));
}

#[test]
fn the_position_before_some_entries_is_that_of_each_origins_first() {
    let mut history = History::new();
    for origin in ["us", "eu", "eu", "us"] {
        history.publish(origin);
    }
    let mut before = history.head.position.clone();
    history.entries[2..].iter().rev().for_each(|entry| step_before(&mut before, entry));
    assert_eq!(before.get("eu").unwrap().offset, 1);
    assert_eq!(before.get("us").unwrap().offset, 1);
}

#[test]
fn of_a_region_of_which_more_is_to_come_nothing_is_missing_yet() {
    let mut history = History::new();
    history.publish("us");
    let seen = history.head.position.clone();
    for head in [("there", 9), (UNKNOWN, 0), ("elsewhere", 9)] {
        let point = Point { epoch: Text::new(head.0).unwrap(), offset: head.1 };
        history.head.position.set(us(), point);
        history.head.coming = Vec::new();
        assert_eq!(history.read(&seen, LIMIT).lost.len(), 1, "{head:?}");
        history.head.coming = vec![us()];
        let chunk = history.read(&seen, LIMIT);
        assert!(chunk.complete && chunk.loss().is_none(), "{head:?}: {chunk:?}");
    }
}
