//! A session goes on after a break.

use crate::{
    on_every_transport,
    world::{Way, World, json, offsets, publication, soon},
};
use skywave_client::SubscribeOptions;

on_every_transport! {
    what_is_published_reaches_a_subscriber,
    what_was_published_during_a_cut_arrives_once_and_in_order,
}

async fn what_is_published_reaches_a_subscriber(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut room = alice.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let published = soon(bob.publish("chat:1", json(7))).await.unwrap();
    let received = publication(&mut room).await;
    assert_eq!(received.data, json(7).into());
    assert_eq!((received.offset, received.epoch), (published.offset, published.epoch));
}

async fn what_was_published_during_a_cut_arrives_once_and_in_order(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut room = alice.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let before = alice.connected().unwrap();
    for count in 0..20 {
        if count == 5 {
            soon(alice.cut()).await.unwrap();
        }
        soon(bob.publish("chat:1", json(count))).await.unwrap();
    }
    assert_eq!(offsets(&mut room, 20).await, (1..=20).collect::<Vec<_>>());
    let after = alice.connected().unwrap();
    assert_eq!(before.session, after.session);
    assert!(after.resumed);
}
