//! What the cache answers, and what it leaves to Redis.

use super::*;
use skywave_channels::broadcast::Broadcast;
use skywave_protocol::{
    Json, Text,
    frame::{self, GapReason},
};

fn own() -> Origin {
    Text::new("eu").unwrap()
}

fn channel() -> Channel {
    Channel::new("chat:1").unwrap()
}

fn point(epoch: &str, offset: u64) -> Point {
    Point { epoch: Text::new(epoch).unwrap(), offset }
}

fn at(offset: u64) -> Position {
    [(own(), point("e", offset))].into_iter().collect()
}

fn publication_of(origin: &str, epoch: &str, offset: u64) -> Arc<Publication> {
    Broadcast::new(frame::Publication {
        channel: channel(),
        origin: Text::new(origin).unwrap(),
        epoch: Text::new(epoch).unwrap(),
        offset,
        time_ms: 0,
        key: None,
        user: None,
        data: Json::parse("1").unwrap().into(),
    })
}

fn publication(offset: u64) -> Arc<Publication> {
    publication_of("eu", "e", offset)
}

fn head(position: Position) -> Head {
    Head { position, ..Head::of(own()) }
}

/// All that follows `start`, up to `head`.
fn chunk(start: u64, head: u64) -> Chunk {
    let publications = (start + 1..=head).map(publication).collect();
    Chunk { start: at(start), publications, complete: true, ..Chunk::default() }
}

/// A cache whose window of the channel covers what follows `start` up to `head`.
fn cache(start: u64, last: u64) -> Cache {
    let cache = Cache::new(own(), CacheLimit::default());
    cache.expect(&channel());
    cache.fill(&channel(), &chunk(start, last), &head(at(last)), None);
    cache
}

fn served(cache: &Cache, position: &Position) -> Option<Vec<u64>> {
    let chunk = cache.serve(&channel(), position)?;
    assert!(chunk.complete && chunk.lost.is_empty());
    Some(chunk.publications.iter().map(|publication| publication.frame().offset).collect())
}

#[test]
fn positions_within_the_window_are_served() {
    let cache = cache(3, 6);
    assert_eq!(served(&cache, &at(3)), Some(vec![4, 5, 6]));
    assert_eq!(served(&cache, &at(5)), Some(vec![6]));
    assert_eq!(served(&cache, &at(6)), Some(vec![]));
}

#[test]
fn positions_that_the_window_does_not_cover_are_left_to_redis() {
    let cache = cache(3, 6);
    let other_epoch = [(own(), point("x", 5))].into_iter().collect();
    for position in [at(2), at(7), Position::new(), other_epoch] {
        assert_eq!(served(&cache, &position), None, "{position:?}");
    }
    assert_eq!(served(&Cache::new(own(), CacheLimit::default()), &at(3)), None);
}

#[test]
fn the_window_grows_with_the_tail() {
    let cache = cache(3, 4);
    for offset in [4, 5, 6] {
        cache.publication(&publication(offset));
    }
    assert_eq!(served(&cache, &at(3)), Some(vec![4, 5, 6]));
}

#[test]
fn what_came_while_history_was_being_read_is_not_missed() {
    let cache = Cache::new(own(), CacheLimit::default());
    cache.expect(&channel());
    cache.publication(&publication(4));
    cache.publication(&publication(5));
    assert_eq!(served(&cache, &at(3)), None);
    cache.fill(&channel(), &chunk(3, 4), &head(at(4)), None);
    assert_eq!(served(&cache, &at(3)), Some(vec![4, 5]));
}

#[test]
fn a_hole_or_a_new_epoch_ends_the_window() {
    for next in [publication(8), publication_of("eu", "x", 1)] {
        let cache = cache(3, 6);
        cache.publication(&next);
        assert_eq!(served(&cache, &at(6)), None);
    }
}

#[test]
fn a_hole_behind_what_was_read_leaves_no_window() {
    let cache = Cache::new(own(), CacheLimit::default());
    cache.expect(&channel());
    cache.publication(&publication(9));
    cache.fill(&channel(), &chunk(3, 4), &head(at(4)), None);
    assert_eq!(served(&cache, &at(3)), None);
}

#[test]
fn another_origin_must_be_covered_as_well() {
    let cache = cache(3, 4);
    cache.publication(&publication_of("us", "there", 1));
    let mut knows_both = at(4);
    knows_both.set(Text::new("us").unwrap(), point("there", 0));
    assert_eq!(served(&cache, &at(4)), Some(vec![1]));
    assert_eq!(served(&cache, &knows_both), Some(vec![1]));
    knows_both.set(Text::new("us").unwrap(), point("there", 2));
    assert_eq!(served(&cache, &knows_both), None);
}

#[test]
fn who_saw_another_life_of_an_origin_that_published_nothing_since_is_left_to_redis() {
    let cache = Cache::new(own(), CacheLimit::default());
    cache.expect(&channel());
    let mut head = head(at(4));
    head.beginnings.set(Text::new("us").unwrap(), point("there.e1", 0));
    cache.fill(&channel(), &chunk(3, 4), &head, None);
    let standing_at = |origin: &str, epoch, offset| {
        let mut position = at(3);
        position.set(Text::new(origin).unwrap(), point(epoch, offset));
        position
    };
    assert_eq!(served(&cache, &at(3)), Some(vec![4]));
    assert_eq!(served(&cache, &standing_at("us", "there.e1", 0)), Some(vec![4]));
    // A region that is not there any more.
    assert_eq!(served(&cache, &standing_at("ap", "before.e1", 2)), Some(vec![4]));
    for (epoch, offset) in [("before.e1", 2), ("there.e1", 2)] {
        assert_eq!(served(&cache, &standing_at("us", epoch, offset)), None);
    }
    cache.publication(&publication_of("us", "there.e1", 1));
    assert_eq!(served(&cache, &standing_at("us", "there.e1", 0)), Some(vec![4, 1]));
    assert_eq!(served(&cache, &standing_at("us", "before.e1", 2)), None);
}

#[test]
fn nothing_is_served_behind_what_a_publisher_was_told() {
    let cache = cache(3, 6);
    cache.promise(&channel(), point("e", 7));
    assert_eq!(served(&cache, &at(6)), None);
    cache.publication(&publication(7));
    assert_eq!(served(&cache, &at(6)), Some(vec![7]));
    cache.promise(&channel(), point("x", 1));
    assert_eq!(served(&cache, &at(6)), None);
}

#[test]
fn nothing_is_served_behind_what_a_publisher_was_told_who_heard_it_before_one_that_came_first() {
    let cache = cache(3, 6);
    cache.promise(&channel(), point("e", 8));
    cache.promise(&channel(), point("e", 7));
    cache.publication(&publication(7));
    assert_eq!(served(&cache, &at(6)), None);
    cache.publication(&publication(8));
    assert_eq!(served(&cache, &at(6)), Some(vec![7, 8]));
    let in_epoch = |number| point(&format!("019ac0f00d1aaaaa.e{number}"), 1);
    for number in [2, 1] {
        cache.promise(&channel(), in_epoch(number));
    }
    assert_eq!(cache.windows.lock().by_channel[&channel()].promised, Some(in_epoch(2)));
}

#[test]
fn an_abandoned_reading_leaves_nothing_but_spares_a_window_that_stands() {
    let cache = cache(3, 4);
    cache.expect(&channel());
    cache.abandon(&channel());
    assert_eq!(served(&cache, &at(3)), Some(vec![4]));
    cache.clear();
    cache.expect(&channel());
    cache.abandon(&channel());
    assert!(cache.windows.lock().by_channel.is_empty());
}

#[test]
fn the_oldest_publications_give_way() {
    let cache = cache(0, 1);
    for offset in 2..=MAX_CHUNK as u64 + 10 {
        cache.publication(&publication(offset));
    }
    assert_eq!(served(&cache, &at(9)), None);
    assert_eq!(served(&cache, &at(10)).map(|offsets| offsets.len()), Some(MAX_CHUNK));
}

#[test]
fn channels_and_bytes_are_bounded() {
    let limit = CacheLimit { channels: 2, channel_bytes: 100, bytes: 3 };
    let cache = Cache::new(own(), limit);
    let name = |number: u32| Channel::new(&format!("chat:{number}")).unwrap();
    for number in 0..3 {
        cache.expect(&name(number));
        cache.fill(&name(number), &chunk(0, 1), &head(at(1)), None);
    }
    assert!(cache.serve(&name(0), &at(0)).is_none());
    assert!(cache.serve(&name(1), &at(0)).is_some());
    cache.fill(&name(1), &chunk(0, 3), &head(at(3)), None);
    assert!(cache.serve(&name(2), &at(0)).is_none(), "the least recently used goes first");
    assert_eq!(cache.windows.lock().bytes, 3);
}

#[test]
fn all_who_stood_where_an_epoch_ended_are_told_without_redis() {
    let cache = Cache::new(own(), CacheLimit::default());
    let new = |offset| -> Position { [(own(), point("x", offset))].into_iter().collect() };
    let lost = vec![Lost { origin: own(), reason: GapReason::EpochChanged, point: point("x", 0) }];
    cache.expect(&channel());
    let read = Chunk { start: at(6), lost: lost.clone(), complete: true, ..Chunk::default() };
    cache.fill(&channel(), &read, &head(new(0)), None);
    cache.publication(&publication_of("eu", "x", 1));
    let chunk = cache.serve(&channel(), &at(6)).unwrap();
    assert_eq!((chunk.start, chunk.lost, chunk.publications.len()), (at(6), lost, 1));
    assert_eq!(served(&cache, &new(0)), Some(vec![1]));
    // Who had seen less may still get what is left of the old epoch.
    assert_eq!(served(&cache, &at(5)), None);
}

#[test]
fn a_window_does_not_outlive_the_age_of_the_history_that_was_read() {
    let cache = cache(0, 4);
    for (age, is_served) in [(Duration::from_secs(600), true), (Duration::ZERO, false)] {
        cache.expect(&channel());
        cache.fill(&channel(), &chunk(3, 4), &head(at(4)), Some(age));
        assert_eq!(cache.serve(&channel(), &at(3)).is_some(), is_served);
    }
}
