//! Events: for whoever is there now, never stored, never echoed.

use crate::{
    on_every_transport,
    peer::{Peer, channel, connect_to},
    world::{Way, World, event, json, token},
};
use skywave::rights::Right;
use skywave_client::{HistoryRange, SubscribeOptions, transport::Lane};
use skywave_protocol::{ClientFrame, ErrorCode, frame::Emit};
use skywave_testing::{node::publication, soon};

on_every_transport! {
    an_event_reaches_the_others_and_not_its_sender,
    an_event_too_large_for_a_datagram_arrives,
    an_event_needs_the_right_and_no_subscription,
    an_event_tells_who_sent_it,
    an_event_is_not_stored,
    events_do_not_disturb_the_order_of_publications,
}

fn options() -> SubscribeOptions {
    SubscribeOptions::default()
}

async fn an_event_reaches_the_others_and_not_its_sender(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut at_alice = alice.subscribe("chat:1", options()).await.unwrap();
    let mut at_bob = bob.subscribe("chat:1", options()).await.unwrap();
    alice.emit("chat:1", json("from alice"), Some("cursor")).await.unwrap();
    let received = event(&mut at_bob).await;
    assert_eq!((received.data, received.slot.as_deref()), (json("from alice").into(), Some("cursor")));
    assert_eq!(received.session, alice.connected().unwrap().session);
    bob.emit("chat:1", json("from bob"), None).await.unwrap();
    let received = event(&mut at_alice).await;
    assert_eq!((received.data, received.slot), (json("from bob").into(), None));
}

async fn an_event_too_large_for_a_datagram_arrives(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut at_bob = bob.subscribe("chat:1", options()).await.unwrap();
    let drawing = json("x".repeat(30_000));
    alice.emit("chat:1", drawing.clone(), Some("drawing")).await.unwrap();
    assert_eq!(event(&mut at_bob).await.data, drawing.into());
}

async fn an_event_needs_the_right_and_no_subscription(way: Way) {
    let world = World::secured(way, &[]).await;
    let writer = world.client_with(token("writer", &[("chat:*", &[Right::Emit])])).await;
    let reader = token("reader", &[("chat:*", &[Right::Subscribe])]);
    let connect = skywave_protocol::frame::Connect {
        token: Some(reader.into()),
        ..connect_to([("chat:1", options())])
    };
    let (mut reader, _) = Peer::open(&world, connect).await;
    reader.subscribed("chat:1").await;
    let emit = Emit { channel: channel("chat:1"), slot: None, data: json(1).into() };
    reader.send_on(Lane::Datagram, ClientFrame::Emit(emit)).await;
    let error = reader.error().await;
    assert_eq!((error.id, error.code), (None, ErrorCode::Forbidden.code()));
    writer.emit("chat:1", json(2), None).await.unwrap();
    let received = reader
        .until(|frame| match frame {
            skywave_protocol::ServerFrame::Event(event) => Some(event),
            _ => None,
        })
        .await;
    assert_eq!(received.data, json(2).into());
}

async fn an_event_tells_who_sent_it(way: Way) {
    let world = World::secured(way, &[("CHANNELS__CHAT__ALLOW", "subscribe,emit")]).await;
    let (alice, bob) =
        (world.client_with(token("alice", &[])).await, world.client_with(token("bob", &[])).await);
    let mut at_bob = bob.subscribe("chat:1", options()).await.unwrap();
    alice.emit("chat:1", json(1), None).await.unwrap();
    assert_eq!(event(&mut at_bob).await.user.as_deref(), Some("alice"));
}

async fn an_event_is_not_stored(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut witness = bob.subscribe("chat:1", options()).await.unwrap();
    alice.emit("chat:1", json(1), None).await.unwrap();
    event(&mut witness).await;
    let history = soon(bob.history("chat:1", HistoryRange::last(10))).await.unwrap();
    assert_eq!(history.publications, []);
    let late = world.client().await;
    let latest = SubscribeOptions { history: Some(10), ..options() };
    let mut room = late.subscribe("chat:1", latest).await.unwrap();
    soon(alice.publish("chat:1", json(2))).await.unwrap();
    loop {
        match crate::world::next(&mut room).await {
            skywave_client::ChannelEvent::Event(event) => panic!("{event:?}"),
            skywave_client::ChannelEvent::Publication(publication) => {
                break assert_eq!(publication.offset, 1);
            }
            _ => {}
        }
    }
}

async fn events_do_not_disturb_the_order_of_publications(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut room = bob.subscribe("chat:1", options()).await.unwrap();
    for number in 1..=100 {
        alice.emit("chat:1", json(number), Some("typing")).await.unwrap();
        soon(alice.publish("chat:1", json(number))).await.unwrap();
    }
    for offset in 1..=100 {
        assert_eq!(publication(&mut room).await.offset, offset);
    }
}
