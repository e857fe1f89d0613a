//! A broker that does not answer costs a session its answers, and nothing else.

use crate::{
    faulty_broker::{
        Away, Divided, Faulty, Held, Stuck, connect, dial, next_offset, node, node_with, publication,
        publication_on, publish, subscribed_epoch,
    },
    peer::{channel, connect_to, from_the_beginning, id},
    world::json,
};
use skywave::broker::{Delivery, Publish};
use skywave_client::SubscribeOptions;
use skywave_protocol::{
    ClientFrame, ServerFrame,
    frame::{self, HistoryRequest},
};
use skywave_testing::{eventually, soon};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn publications_arrive_while_many_publishes_wait_for_the_broker() {
    let (node, _, hub) = node(Stuck);
    let (mut peer, listening) = connect(node).await;
    let epoch = subscribed_epoch(&mut peer).await;
    for number in 2..1000 {
        let data = json(number).into();
        let publish = frame::Publish { id: id(number), channel: channel("chat:1"), key: None, data };
        peer.send(ClientFrame::Publish(publish)).await;
    }
    for offset in 1..=100 {
        hub.publication(&publication(&epoch, offset));
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_a_while_costs_a_subscriber_nothing() {
    let (node, away, hub) =
        node(|memory| Away { memory, is_away: AtomicBool::new(false), refused: AtomicUsize::new(0) });
    let (mut peer, listening) = connect(node).await;
    let epoch = subscribed_epoch(&mut peer).await;
    away.is_away.store(true, Ordering::Release);
    // The first ones have been missed: history has to be read.
    for number in 1..=3 {
        let (channel, data) = (channel("chat:1"), json(number).into());
        soon(away.publish(Publish { channel, data, key: None, user: None })).await.unwrap();
    }
    let begun = Instant::now();
    hub.publication(&publication(&epoch, 5));
    for offset in 1..=3 {
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    eventually("four readings", async || away.refused.load(Ordering::Acquire) >= 4).await;
    // With pauses that grow: half of 50, 100 and 200 ms at least.
    assert!(begun.elapsed() >= Duration::from_millis(175));
    let (channel, data) = (channel("chat:1"), json(4).into());
    soon(away.publish(Publish { channel, data, key: None, user: None })).await.unwrap();
    away.is_away.store(false, Ordering::Release);
    for offset in 4..=5 {
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_live_makes_up_for_a_history_that_was_overtaken_while_it_was_asked_for() {
    let settings = [("CHANNELS__CHAT__HISTORY", "1")];
    let (node, away, hub) = node_with(&settings, |memory| Away {
        memory,
        is_away: AtomicBool::new(false),
        refused: AtomicUsize::new(0),
    });
    let (mut peer, listening) = connect(node).await;
    subscribed_epoch(&mut peer).await;
    away.is_away.store(true, Ordering::Release);
    hub.uncertain(&|_| true);
    eventually("a reading", async || away.refused.load(Ordering::Acquire) > 0).await;
    let publish = async |number| {
        let (channel, data) = (channel("chat:1"), json(number).into());
        soon(away.publish(Publish { channel, data, key: None, user: None })).await.unwrap();
    };
    for number in 1..=50 {
        publish(number).await;
    }
    away.is_away.store(false, Ordering::Release);
    for offset in 1..=50 {
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    publish(51).await;
    assert_eq!(next_offset(&mut peer).await, 51);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_whose_server_does_not_answer_hold_up_no_others() {
    let (node, divided, hub) = node(|memory| Divided { memory, hangs: AtomicBool::new(false) });
    let (mut peer, listening) = dial(node).await;
    let others: Vec<_> = (0..20).map(|number| format!("chat:other{number}")).collect();
    let mut connect = connect_to([("chat:1", SubscribeOptions::default())]);
    connect.subscriptions.extend(others.iter().map(|name| (channel(name), SubscribeOptions::default())));
    peer.send(ClientFrame::Connect(connect)).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Connected(_))));
    let mut epochs = BTreeMap::new();
    for _ in 0..=others.len() {
        let Ok(ServerFrame::Subscribed(one)) = peer.next().await else { panic!("not subscribed") };
        epochs.insert(one.channel.to_string(), one.position.get("local").unwrap().epoch.to_string());
    }
    divided.hangs.store(true, Ordering::Release);
    // The first one is missing of each: all histories have to be read.
    for name in &others {
        hub.publication(&publication_on(name, &epochs[name], 2));
    }
    let (channel, data) = (channel("chat:1"), json(1).into());
    hub.publication(&publication("x", 7));
    soon(divided.publish(Publish { channel, data, key: None, user: None })).await.unwrap();
    assert_eq!(next_offset(&mut peer).await, 1);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_beyond_what_may_wait_are_refused_for_now_and_others_are_read_on() {
    let (node, held, _) = node(Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([]))).await;
    for number in 2..200 {
        let (channel, limit) = (channel("chat:1"), 1);
        let ask = HistoryRequest { id: id(number), channel, limit, after: None, before: None };
        peer.send(ClientFrame::History(ask)).await;
    }
    let refused = peer.error().await;
    assert_eq!((refused.reason.as_ref(), refused.transient), ("rate_limited", true));
    assert!(refused.retry_after_ms.is_some_and(|wait| wait > 0));
    let first = refused.id.unwrap();
    peer.send(publish(200, "chat:1")).await;
    peer.until(|frame| matches!(frame, ServerFrame::Published(_)).then_some(())).await;
    held.let_go();
    for number in 2..first.get() {
        match peer.next().await.unwrap() {
            ServerFrame::History(history) => assert_eq!(history.id, id(number)),
            other => panic!("{other:?}"),
        }
    }
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_histories_that_a_session_asks_for_are_read_in_turn() {
    let (node, held, _) = node(Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    let mut connect = connect_to([]);
    let names = (0..100).map(|number| channel(&format!("chat:{number:03}")));
    connect.subscriptions = names.map(|name| (name, from_the_beginning())).collect();
    peer.send(ClientFrame::Connect(connect)).await;
    for number in 2..12 {
        let (channel, limit) = (channel("chat:1"), 1);
        let ask = HistoryRequest { id: id(number), channel, limit, after: None, before: None };
        peer.send(ClientFrame::History(ask)).await;
    }
    peer.send(publish(20, "chat:1")).await;
    peer.until(|frame| matches!(frame, ServerFrame::Published(_)).then_some(())).await;
    // Sixteen channels and one question.
    assert_eq!(held.held.load(Ordering::Acquire), 17);
    held.let_go();
    let (mut subscribed, mut answered) = (0, 0);
    while (subscribed, answered) != (100, 10) {
        match peer.next().await.unwrap() {
            ServerFrame::Subscribed(_) => subscribed += 1,
            ServerFrame::History(_) => answered += 1,
            ServerFrame::Publication(_) => {}
            other => panic!("{other:?}"),
        }
    }
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_while_its_new_token_is_checked() {
    // The keys of tokens are with somebody who does not answer.
    let keys = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", keys.local_addr().unwrap());
    let (node, ..) = node_with(&[("AUTH__JWKS_URL", &url)], Held::but(&["chat:1"]));
    let (mut peer, listening) = connect(node).await;
    peer.subscribed("chat:1").await;
    let refresh = |number| {
        // {"alg":"ES256","kid":"1"} and no more that makes sense.
        let token = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.e30.AA".into();
        ClientFrame::Refresh(frame::Refresh { id: id(number), token })
    };
    peer.send(refresh(2)).await;
    let _asked = soon(keys.accept()).await.unwrap();
    peer.send(refresh(3)).await;
    let refused = peer.error().await;
    assert_eq!((refused.id, refused.reason.as_ref()), (Some(id(3)), "rate_limited"));
    peer.send(publish(4, "chat:1")).await;
    assert_eq!(peer.publication("chat:1").await.offset, 1);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_beyond_what_may_wait_are_refused_for_now() {
    let settings = [("LIMITS__OUTBOX_BYTES", "65536"), ("LIMITS__FRAME_BYTES", "8192")];
    let (node, ..) = node_with(&settings, Stuck);
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([]))).await;
    for number in 2..20 {
        let (channel, data) = (channel("chat:1"), json("x".repeat(8000)).into());
        let publish = frame::Publish { id: id(number), channel, key: None, data };
        peer.send(ClientFrame::Publish(publish)).await;
    }
    let refused = peer.error().await;
    // Seven of 8,514 bytes are within 65,536.
    assert_eq!((refused.id, refused.reason.as_ref()), (Some(id(9)), "rate_limited"));
    listening.abort();
}
