//! Readers of histories that lived through restarts, rewinds and trimming.

use super::*;
use crate::broadcast::Broadcast;
use proptest::prelude::*;
use skywave_protocol::{Admission, Channel, Json, Text, frame};
use std::collections::HashSet;

const LIMIT: ChunkLimit = ChunkLimit { publications: 3, bytes: 1000 };

pub type Name = (String, String, u64);

/// A channel's history and its head, as the scripts keep them.
#[derive(Debug, Clone)]
pub struct History {
    pub entries: Vec<Entry>,
    pub head: Head,
    next_id: u64,
    lives: u32,
}

impl History {
    pub fn new() -> Self {
        let mut history = Self {
            entries: Vec::new(),
            head: Head {
                own: Text::new("eu").unwrap(),
                position: Position::new(),
                filled: Position::new(),
                coming: Vec::new(),
            },
            next_id: 1,
            lives: 0,
        };
        history.begin_life();
        history
    }

    /// Redis restarted: offsets of the own origin begin anew.
    fn begin_life(&mut self) {
        self.lives += 1;
        let epoch = Text::new(format!("life{}", self.lives)).unwrap();
        self.head.position.set(self.head.own.clone(), Point { epoch, offset: 0 });
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
            if frame.origin != self.head.own {
                self.append(&frame.origin, &frame.epoch, frame.offset);
            }
        }
    }

    fn trim(&mut self, count: usize) {
        self.entries.drain(..count.min(self.entries.len()));
    }

    pub fn read(&self, position: &Position, limit: ChunkLimit) -> Chunk {
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

pub fn name(publication: &Publication) -> Name {
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
pub enum Step {
    Publish(&'static str),
    Restart,
    Rewind(usize),
    Trim(usize),
}

pub fn step() -> impl Strategy<Value = Step> {
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

pub fn run(history: &mut History, step: &Step) {
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
    let us = || Text::new("us").unwrap();
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
