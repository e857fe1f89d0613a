//! A node that is about to stop: its sessions go elsewhere first.

use crate::{
    on_every_transport,
    peer::{Peer, connect, connect_to},
    world::{Way, World, gap, json, status},
};
use skywave::server::start_drain;
use skywave_client::{GapReason, Status, SubscribeOptions};
use skywave_protocol::{ClientFrame, CloseCode, ServerFrame};
use skywave_testing::{
    eventually,
    node::{connect as connect_client, publication},
    soon,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

on_every_transport! {
    sessions_are_told_to_go_each_at_its_own_time,
    a_draining_node_takes_no_session,
    a_session_that_is_told_to_go_is_served_until_it_goes,
    what_is_left_at_the_deadline_is_closed,
    sessions_that_a_node_leaves_behind_come_back_one_after_the_other,
    a_node_ends_as_soon_as_its_last_session_has_gone,
    whoever_has_not_said_who_comes_does_not_hold_up_the_end,
    a_client_moves_to_the_next_node_and_is_told_what_it_lost,
    a_node_that_is_dropped_closes_its_sessions,
}

async fn sessions_are_told_to_go_each_at_its_own_time(way: Way) {
    let world = World::with(way, &[("DRAIN__DEADLINE", "20s")]).await;
    let mut peers = Vec::new();
    for _ in 0..8 {
        peers.push(Peer::connected(&world).await.0);
    }
    start_drain(world.server.node());
    let mut times = BTreeSet::new();
    for peer in &mut peers {
        match peer.next().await.unwrap() {
            ServerFrame::Drain(drain) => times.insert(drain.after_ms),
            other => panic!("{other:?}"),
        };
    }
    assert!(times.len() > 1, "they would all arrive elsewhere at once: {times:?}");
    assert!(times.iter().all(|after_ms| *after_ms < 20_000), "{times:?}");
}

async fn a_draining_node_takes_no_session(way: Way) {
    let world = World::new(way).await;
    start_drain(world.server.node());
    let mut peer = Peer::dial(&world).await;
    peer.send(ClientFrame::Connect(connect())).await;
    assert_eq!(peer.end().await, CloseCode::Drain.code());
}

async fn a_session_that_is_told_to_go_is_served_until_it_goes(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::open(&world, connect_to([("chat:1", SubscribeOptions::default())])).await;
    let publisher = world.client().await;
    peer.subscribed("chat:1").await;
    start_drain(world.server.node());
    peer.until(|frame| matches!(frame, ServerFrame::Drain(_)).then_some(())).await;
    soon(publisher.publish("chat:1", json(1))).await.unwrap();
    assert_eq!(peer.publication("chat:1").await.offset, 1);
}

async fn what_is_left_at_the_deadline_is_closed(way: Way) {
    let world = World::with(way, &[("DRAIN__DEADLINE", "500ms")]).await;
    let (mut peer, _) = Peer::connected(&world).await;
    let began = Instant::now();
    let draining = tokio::spawn(world.server.drain());
    assert_eq!(peer.end().await, CloseCode::Shutdown.code());
    assert!(began.elapsed() >= Duration::from_millis(500));
    soon(draining).await.unwrap();
}

async fn sessions_that_a_node_leaves_behind_come_back_one_after_the_other(way: Way) {
    let settings = [("DRAIN__DEADLINE", "0s"), ("LIMITS__HANDSHAKES_PER_SECOND", "10")];
    let world = World::with(way, &settings).await;
    let mut peers = Vec::new();
    for _ in 0..8 {
        peers.push(Peer::connected(&world).await.0);
    }
    let draining = tokio::spawn(world.server.drain());
    let mut waits_ms = BTreeSet::new();
    for peer in &mut peers {
        let disconnect = peer.disconnected().await;
        assert_eq!(disconnect.code, CloseCode::Shutdown.code());
        waits_ms.extend(disconnect.retry_after_ms);
    }
    assert!(waits_ms.len() > 1 && waits_ms.last() < Some(&801), "{waits_ms:?}");
    soon(draining).await.unwrap();
}

async fn a_node_ends_as_soon_as_its_last_session_has_gone(way: Way) {
    let world = World::with(way, &[("DRAIN__DEADLINE", "10m")]).await;
    let (mut peer, _) = Peer::connected(&world).await;
    let draining = tokio::spawn(world.server.drain());
    peer.until(|frame| matches!(frame, ServerFrame::Drain(_)).then_some(())).await;
    assert!(!draining.is_finished());
    peer.close().await;
    soon(draining).await.unwrap();
}

async fn whoever_has_not_said_who_comes_does_not_hold_up_the_end(way: Way) {
    let world = World::with(way, &[("DRAIN__DEADLINE", "10m"), ("LIMITS__CONNECT_TIMEOUT", "1m")]).await;
    let (mut peer, _) = Peer::connected(&world).await;
    let mut stranger = Peer::dial(&world).await;
    eventually("it came", async || world.server.node().sessions.transports.count() == 2).await;
    let draining = tokio::spawn(world.server.drain());
    peer.until(|frame| matches!(frame, ServerFrame::Drain(_)).then_some(())).await;
    peer.close().await;
    // Where the node has no stream to answer on, the transport's own close tells the code.
    let code = match stranger.next().await {
        Ok(ServerFrame::Disconnect(disconnect)) => Some(disconnect.code),
        Ok(other) => panic!("{other:?}"),
        Err(closed) => closed.code,
    };
    assert_eq!(code, Some(CloseCode::Drain.code()));
    soon(draining).await.unwrap();
}

async fn a_client_moves_to_the_next_node_and_is_told_what_it_lost(way: Way) {
    let secret = ("AUTH__SESSION_SECRET", "a secret that both of the nodes share");
    let here = World::with(way, &[secret, ("NODE__ID", "here"), ("DRAIN__DEADLINE", "10s")]).await;
    let there = World::with(way, &[secret, ("NODE__ID", "there")]).await;
    let mut options = here.options();
    options.urls.push(there.url());
    let alice = connect_client(options).await;
    let before = alice.connected().unwrap();
    let mut room = alice.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    soon(alice.publish("chat:1", json(1))).await.unwrap();
    assert_eq!(publication(&mut room).await.offset, 1);
    soon(here.server.drain()).await;
    let after = status(&alice, |status| match status {
        Status::Connected(connected) if &*connected.node == "there" => Some(connected.clone()),
        _ => None,
    })
    .await;
    assert_eq!((&after.session, after.resumed, &*before.node), (&before.session, true, "here"));
    // These two nodes share no broker: the other one has another history, and says so.
    assert_eq!(gap(&mut room).await.reason, GapReason::EpochChanged);
    soon(alice.publish("chat:1", json(2))).await.unwrap();
    assert_eq!(publication(&mut room).await.data, json(2).into());
}

async fn a_node_that_is_dropped_closes_its_sessions(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::connected(&world).await;
    drop(world);
    assert_eq!(peer.end().await, CloseCode::Shutdown.code());
}
