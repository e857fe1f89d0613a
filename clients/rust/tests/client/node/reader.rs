//! What an application reads of its subscriptions.

use super::{Node, Peer, soon, subscribed};
use skywave_client::{ChannelEvent, Client, ClientOptions, Subscription};

pub async fn event(subscription: &mut Subscription) -> ChannelEvent {
    soon(subscription.next()).await.expect("the subscription ended")
}

/// Waits until the client has been connected so often.
pub async fn connected_again(client: &Client, connects: u64) {
    let mut status = client.status();
    let there = status.wait_for(|status| status.connected().is_some_and(|now| now.connects == connects));
    soon(there).await.expect("the client ended");
}

/// The offsets of the next `count` publications; other events are passed over.
pub async fn offsets(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        if let ChannelEvent::Publication(publication) = event(subscription).await {
            offsets.push(publication.offset);
        }
    }
    offsets
}

/// A client with a subscription to `chat:1` at `offset`.
pub async fn subscribed_client(
    node: &mut Node,
    options: ClientOptions,
    offset: u64,
) -> (Client, Peer, Subscription) {
    let (client, mut peer, _) = node.client(options).await;
    let subscription = subscribe(&client, &mut peer, "chat:1", offset).await;
    (client, peer, subscription)
}

pub async fn subscribe(client: &Client, peer: &mut Peer, name: &str, offset: u64) -> Subscription {
    let answer = async {
        let subscribe = peer.subscribe().await;
        peer.send(subscribed(Some(subscribe.id), name, offset, None));
    };
    let (subscription, ()) = tokio::join!(client.subscribe(name, Default::default()), answer);
    let mut subscription = subscription.unwrap();
    assert!(matches!(event(&mut subscription).await, ChannelEvent::Subscribed(_)));
    subscription
}
