//! Reading what was retained.

use crate::{
    on_every_transport,
    peer::{Peer, channel, connect, connect_to, from_the_beginning, id},
    world::{Way, World, json, refused, token},
};
use skywave::rights::Right;
use skywave_client::{HistoryRange, Position, SubscribeOptions};
use skywave_protocol::{
    ClientFrame, ErrorCode, Point, ServerFrame,
    frame::{self, Connect},
};
use skywave_testing::soon;

on_every_transport! {
    the_last_publications_come_oldest_first,
    a_cursor_leads_back_to_the_beginning,
    publications_after_a_position_can_be_read,
    no_more_is_retained_than_configured,
    a_channel_that_nobody_used_has_an_empty_history,
    history_needs_the_right_and_no_subscription,
    a_position_needs_the_right_to_history_only_when_it_is_empty,
    the_history_of_a_user_channel_is_its_users_alone,
    a_cursor_that_the_node_did_not_give_is_refused,
    a_page_that_would_be_too_large_is_cut_and_goes_on_by_cursor,
    a_client_reads_on_where_a_page_was_cut,
}

async fn published(way: Way, count: u64) -> World {
    let world = World::new(way).await;
    let client = world.client().await;
    for number in 1..=count {
        soon(client.publish("chat:1", json(number))).await.unwrap();
    }
    world
}

async fn read(world: &World, range: HistoryRange) -> (Vec<u64>, Option<String>) {
    let history = soon(world.client().await.history("chat:1", range)).await.unwrap();
    for publication in &history.publications {
        assert_eq!(publication.data, json(publication.offset).into());
    }
    let offsets = history.publications.iter().map(|publication| publication.offset).collect();
    (offsets, history.cursor.map(|cursor| cursor.to_string()))
}

async fn the_last_publications_come_oldest_first(way: Way) {
    let world = published(way, 10).await;
    assert_eq!(read(&world, HistoryRange::last(3)).await.0, [8, 9, 10]);
    assert_eq!(read(&world, HistoryRange::last(1000)).await, ((1..=10).collect(), None));
}

async fn a_cursor_leads_back_to_the_beginning(way: Way) {
    let world = published(way, 10).await;
    let mut range = HistoryRange::last(4);
    let mut pages = Vec::new();
    loop {
        let (offsets, cursor) = read(&world, range).await;
        pages.push(offsets);
        let Some(cursor) = cursor else { break };
        range = HistoryRange { limit: 4, before: Some(cursor), after: None };
    }
    assert_eq!(pages, [vec![7, 8, 9, 10], vec![3, 4, 5, 6], vec![1, 2]]);
}

async fn publications_after_a_position_can_be_read(way: Way) {
    let world = published(way, 10).await;
    let client = world.client().await;
    let last = soon(client.publish("chat:1", json(11))).await.unwrap();
    let point = Point { epoch: last.epoch, offset: 5 };
    let after: Position = [(last.origin, point)].into_iter().collect();
    let range = HistoryRange { limit: 3, after: Some(after), before: None };
    assert_eq!(read(&world, range).await.0, [6, 7, 8]);
}

async fn no_more_is_retained_than_configured(way: Way) {
    let world = World::with(way, &[("CHANNELS__CHAT__HISTORY", "5")]).await;
    let client = world.client().await;
    for number in 1..=20 {
        soon(client.publish("chat:1", json(number))).await.unwrap();
    }
    assert_eq!(read(&world, HistoryRange::last(100)).await, ((16..=20).collect(), None));
}

async fn a_channel_that_nobody_used_has_an_empty_history(way: Way) {
    let world = World::new(way).await;
    assert_eq!(read(&world, HistoryRange::last(10)).await, (vec![], None));
}

async fn history_needs_the_right_and_no_subscription(way: Way) {
    let world = World::secured(way, &[]).await;
    let reader = world.client_with(token("reader", &[("chat:*", &[Right::History])])).await;
    let subscriber = world.client_with(token("subscriber", &[("chat:*", &[Right::Subscribe])])).await;
    soon(reader.history("chat:1", HistoryRange::last(1))).await.unwrap();
    let refusal = soon(subscriber.history("chat:1", HistoryRange::last(1))).await;
    assert_eq!(refused(refusal), ErrorCode::Forbidden);
    let latest = skywave_client::SubscribeOptions { history: Some(1), ..Default::default() };
    assert_eq!(refused(subscriber.subscribe("chat:1", latest).await), ErrorCode::Forbidden);
}

async fn a_position_needs_the_right_to_history_only_when_it_is_empty(way: Way) {
    let world = World::secured(way, &[]).await;
    let connect = |rights: &[Right], options| Connect {
        token: Some(token("alice", &[("chat:*", rights)]).into()),
        ..connect_to([("chat:1", options)])
    };
    let without: &[Right] = &[Right::Subscribe, Right::Publish];
    let (mut peer, _) = Peer::open(&world, connect(without, SubscribeOptions::default())).await;
    let reached = peer.subscribed("chat:1").await.position;
    let publish = frame::Publish { id: id(2), channel: channel("chat:1"), key: None, data: json(1).into() };
    peer.send(ClientFrame::Publish(publish)).await;
    peer.publication("chat:1").await;
    let (mut peer, _) = Peer::open(&world, connect(without, from_the_beginning())).await;
    let refused = peer
        .until(|frame| match frame {
            ServerFrame::Unsubscribed(refused) => Some(refused),
            _ => None,
        })
        .await;
    assert_eq!(refused.code, Some(ErrorCode::Forbidden.code()));
    let after = SubscribeOptions { position: Some(reached), ..SubscribeOptions::default() };
    let with: &[Right] = &[Right::Subscribe, Right::History];
    for (rights, options) in [(without, after), (with, from_the_beginning())] {
        let (mut peer, _) = Peer::open(&world, connect(rights, options)).await;
        assert_eq!(peer.publication("chat:1").await.offset, 1);
    }
}

async fn the_history_of_a_user_channel_is_its_users_alone(way: Way) {
    let world = World::secured(way, &[("CHANNELS__@__HISTORY", "10")]).await;
    let everything: &[(&str, &[Right])] = &[("**", &Right::ALL)];
    let alice = world.client_with(token("alice", &[])).await;
    let bob = world.client_with(token("bob", everything)).await;
    soon(bob.publish("@alice", json(1))).await.unwrap();
    let own = soon(alice.history("@alice", HistoryRange::last(10))).await.unwrap();
    assert_eq!(own.publications.len(), 1);
    assert_eq!(refused(soon(bob.history("@alice", HistoryRange::last(10))).await), ErrorCode::Forbidden);
}

async fn a_cursor_that_the_node_did_not_give_is_refused(way: Way) {
    let world = published(way, 1).await;
    let range = HistoryRange { limit: 1, before: Some("nonsense".to_owned()), after: None };
    let client = world.client().await;
    assert_eq!(refused(soon(client.history("chat:1", range)).await), ErrorCode::BadRequest);
}

/// 30 publications of 4 KB, where an answer may have a quarter of 64 KB.
async fn large_publications(way: Way) -> World {
    let settings = [
        ("CHANNELS__CHAT__HISTORY", "100"),
        ("LIMITS__FRAME_BYTES", "8192"),
        ("LIMITS__OUTBOX_BYTES", "65536"),
    ];
    let world = World::with(way, &settings).await;
    let client = world.client().await;
    for _ in 0..30 {
        soon(client.publish("chat:1", json("x".repeat(4000)))).await.unwrap();
    }
    world
}

async fn a_page_that_would_be_too_large_is_cut_and_goes_on_by_cursor(way: Way) {
    let world = large_publications(way).await;
    let (mut peer, _connected) = Peer::open(&world, connect()).await;
    let (mut count, mut before) = (0, None);
    loop {
        let request =
            frame::HistoryRequest { id: id(9), channel: channel("chat:1"), limit: 30, after: None, before };
        peer.send(ClientFrame::History(request)).await;
        let page = peer
            .until(|frame| match frame {
                ServerFrame::History(page) => Some(page),
                _ => None,
            })
            .await;
        assert!(!page.publications.is_empty() && page.publications.len() < 30);
        count += page.publications.len();
        before = page.cursor;
        if !page.more {
            break;
        }
    }
    assert_eq!(count, 30);
}

async fn a_client_reads_on_where_a_page_was_cut(way: Way) {
    let world = large_publications(way).await;
    let page = soon(world.client().await.history("chat:1", HistoryRange::last(30))).await.unwrap();
    assert_eq!(page.publications.len(), 30);
    assert!(page.publications.is_sorted_by_key(|publication| publication.offset));
}
