//! Who is let in, for how long, and to do what.

use crate::{
    on_every_transport,
    peer::{Peer, connect, connect_to},
    world::{Way, World, expired_token, json, next, refused, token, token_for},
};
use skywave::rights::Right;
use skywave_client::{
    ChannelEvent, Client, ConnectError, DialErrors, SubscribeOptions, TokenSource, transport::DialError,
};
use skywave_protocol::{ClientFrame, CloseCode, ErrorCode, frame::Connect};
use skywave_testing::{
    node::{connect as connect_client, publication},
    soon,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

on_every_transport! {
    a_node_that_knows_no_strangers_asks_for_a_token,
    a_token_that_is_not_valid_is_refused,
    why_a_token_is_refused_is_counted_and_a_developer_is_told,
    why_a_token_is_refused_is_told_nobody_else,
    a_token_that_has_expired_is_to_be_replaced,
    a_session_tells_whose_it_is_and_until_when,
    a_session_ends_when_its_token_expires,
    a_refreshed_session_outlives_its_first_token,
    a_client_that_can_get_tokens_stays_connected,
    a_token_of_another_user_does_not_refresh,
    a_token_that_is_not_valid_does_not_refresh,
    a_refreshed_token_with_fewer_rights_ends_what_it_does_not_allow,
    a_refreshed_token_without_presence_ends_what_tells_it,
    a_refreshed_token_with_more_rights_allows_more,
    rights_of_the_namespace_and_of_the_token_add_up,
    a_page_of_a_foreign_origin_is_refused,
    a_page_of_an_allowed_origin_and_an_app_without_one_are_let_in,
}

/// Why a session of these options is refused.
async fn refusal(options: skywave_client::ClientOptions) -> ConnectError {
    soon(Client::connect(options)).await.unwrap_err()
}

async fn a_node_that_knows_no_strangers_asks_for_a_token(way: Way) {
    let world = World::secured(way, &[]).await;
    assert_eq!(refusal(world.options()).await.code(), Some(CloseCode::Unauthenticated.code()));
}

async fn a_token_that_is_not_valid_is_refused(way: Way) {
    let world = World::secured(way, &[]).await;
    let mut forged = token("alice", &[]);
    forged.truncate(forged.len() - 3);
    for bad in ["nonsense".to_owned(), String::new(), forged] {
        let refused = refusal(world.options_with(bad)).await;
        assert_eq!(refused.code(), Some(CloseCode::Unauthenticated.code()));
        assert!(!refused.is_transient());
    }
}

async fn why_a_token_is_refused_is_counted_and_a_developer_is_told(way: Way) {
    let world = World::secured(way, &[("AUTH__ISSUER", "login.example")]).await;
    let from_elsewhere = token("alice", &[]);
    for (token, cause) in [
        (None, "no token was given"),
        (Some("nonsense"), "it is malformed"),
        (Some(from_elsewhere.as_str()), "iss is missing"),
    ] {
        let mut peer = Peer::dial(&world).await;
        let token = token.map(Into::into);
        peer.send(ClientFrame::Connect(Connect { token, ..connect() })).await;
        let disconnect = peer.disconnected().await;
        assert_eq!(disconnect.code, CloseCode::Unauthenticated.code());
        assert_eq!((&*disconnect.reason, disconnect.message.as_deref()), ("unauthenticated", Some(cause)));
        assert_eq!(world.refused_for(cause), 1, "{cause}");
    }
}

async fn why_a_token_is_refused_is_told_nobody_else(way: Way) {
    let world = World::in_production(way).await;
    let mut peer = Peer::dial(&world).await;
    peer.send(ClientFrame::Connect(Connect { token: Some("nonsense".into()), ..connect() })).await;
    let disconnect = peer.disconnected().await;
    assert_eq!((disconnect.code, disconnect.message), (CloseCode::Unauthenticated.code(), None));
}

async fn a_token_that_has_expired_is_to_be_replaced(way: Way) {
    let world = World::secured(way, &[]).await;
    let mut peer = Peer::dial(&world).await;
    let old = Connect { token: Some(expired_token("alice").into()), ..connect() };
    peer.send(ClientFrame::Connect(old)).await;
    assert_eq!(peer.end().await, CloseCode::TokenExpired.code());
}

async fn a_session_tells_whose_it_is_and_until_when(way: Way) {
    let world = World::secured(way, &[]).await;
    let alice = world.client_with(token_for("alice", &[], Duration::from_secs(600))).await;
    let connected = alice.connected().unwrap();
    assert_eq!(connected.user.as_deref(), Some("alice"));
    let left = Duration::from_millis(connected.expires_at_ms.unwrap()) - now();
    assert!((590..=600).contains(&left.as_secs()), "{left:?}");
}

async fn a_session_ends_when_its_token_expires(way: Way) {
    let world = World::secured(way, &[]).await;
    let short = token_for("alice", &[], Duration::from_secs(2));
    let (mut peer, connected) = Peer::open(&world, Connect { token: Some(short.into()), ..connect() }).await;
    assert_eq!(peer.end().await, CloseCode::TokenExpired.code());
    assert!(now() >= Duration::from_millis(connected.expires_at_ms.unwrap()));
}

async fn a_refreshed_session_outlives_its_first_token(way: Way) {
    let world = World::secured(way, &[("CHANNELS__CHAT__ALLOW", "subscribe,publish")]).await;
    let alice = world.client_with(token_for("alice", &[], Duration::from_secs(2))).await;
    let mut room = alice.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let first_end = Duration::from_millis(alice.connected().unwrap().expires_at_ms.unwrap());
    let expires_at = soon(alice.refresh(token("alice", &[]))).await.unwrap();
    assert!(Duration::from_millis(expires_at) > first_end + Duration::from_secs(500));
    tokio::time::sleep(first_end.saturating_sub(now()) + Duration::from_millis(200)).await;
    soon(alice.publish("chat:1", json(1))).await.unwrap();
    assert_eq!(publication(&mut room).await.offset, 1);
    assert_eq!(alice.connected().unwrap().connects, 1);
}

async fn a_client_that_can_get_tokens_stays_connected(way: Way) {
    let world = World::secured(way, &[("CHANNELS__CHAT__ALLOW", "subscribe,publish")]).await;
    let mut options = world.options();
    options.token = TokenSource::callback(|| async { Ok(token_for("alice", &[], Duration::from_secs(2))) });
    let alice = connect_client(options).await;
    let first_end = Duration::from_millis(alice.connected().unwrap().expires_at_ms.unwrap());
    tokio::time::sleep(first_end.saturating_sub(now()) + Duration::from_millis(200)).await;
    soon(alice.publish("chat:1", json(1))).await.unwrap();
    assert_eq!(alice.connected().unwrap().connects, 1);
}

async fn a_token_of_another_user_does_not_refresh(way: Way) {
    let world = World::secured(way, &[]).await;
    let alice = world.client_with(token("alice", &[])).await;
    assert_eq!(refused(soon(alice.refresh(token("bob", &[]))).await), ErrorCode::Forbidden);
    assert_eq!(soon(alice.refresh(token("alice", &[]))).await.map(|_| ()), Ok(()));
}

async fn a_token_that_is_not_valid_does_not_refresh(way: Way) {
    let world = World::secured(way, &[]).await;
    let alice = world.client_with(token("alice", &[])).await;
    assert_eq!(refused(soon(alice.refresh("nonsense")).await), ErrorCode::Unauthenticated);
    assert_eq!(refused(soon(alice.refresh(expired_token("alice"))).await), ErrorCode::TokenExpired);
    assert_eq!(alice.connected().unwrap().connects, 1);
}

async fn a_refreshed_token_with_fewer_rights_ends_what_it_does_not_allow(way: Way) {
    let world = World::secured(way, &[]).await;
    let subscribe: &[Right] = &[Right::Subscribe];
    let alice = world.client_with(token("alice", &[("chat:*", subscribe)])).await;
    let mut lost = alice.subscribe("chat:lost", SubscribeOptions::default()).await.unwrap();
    let mut kept = alice.subscribe("chat:kept", SubscribeOptions::default()).await.unwrap();
    let fewer = token("alice", &[("chat:kept", &[Right::Subscribe, Right::Publish])]);
    soon(alice.refresh(fewer)).await.unwrap();
    loop {
        if let ChannelEvent::Unsubscribed { code, .. } = next(&mut lost).await {
            assert_eq!(code, Some(ErrorCode::Forbidden.code()));
            break;
        }
    }
    soon(alice.publish("chat:kept", json(1))).await.unwrap();
    assert_eq!(publication(&mut kept).await.offset, 1);
}

async fn a_refreshed_token_without_presence_ends_what_tells_it(way: Way) {
    let world = World::secured(way, &[]).await;
    let rights: &[Right] = &[Right::Subscribe, Right::Presence];
    let alice = world.client_with(token("alice", &[("chat:*", rights)])).await;
    let watching = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
    let mut room = alice.subscribe("chat:1", watching).await.unwrap();
    soon(alice.refresh(token("alice", &[("chat:*", &[Right::Subscribe])]))).await.unwrap();
    loop {
        if let ChannelEvent::Unsubscribed { code, .. } = next(&mut room).await {
            assert_eq!(code, Some(ErrorCode::Forbidden.code()));
            break;
        }
    }
}

async fn a_refreshed_token_with_more_rights_allows_more(way: Way) {
    let world = World::secured(way, &[]).await;
    let alice = world.client_with(token("alice", &[])).await;
    assert_eq!(refused(soon(alice.publish("chat:1", json(1))).await), ErrorCode::Forbidden);
    soon(alice.refresh(token("alice", &[("chat:*", &[Right::Publish])]))).await.unwrap();
    soon(alice.publish("chat:1", json(1))).await.unwrap();
}

async fn rights_of_the_namespace_and_of_the_token_add_up(way: Way) {
    let world = World::secured(way, &[("CHANNELS__CHAT__ALLOW", "subscribe")]).await;
    let patterns: &[(&str, &[Right])] = &[("chat:*", &[Right::Publish]), ("chat:1", &[Right::Presence])];
    let of_alice = Connect {
        token: Some(token("alice", patterns).into()),
        ..connect_to([("chat:1", SubscribeOptions { presence: true, ..SubscribeOptions::default() })])
    };
    let (mut peer, _) = Peer::open(&world, of_alice).await;
    assert_eq!(peer.subscribed("chat:1").await.presence.unwrap().count, 1);
    let alice = world.client_with(token("alice", patterns)).await;
    soon(alice.publish("chat:1", json(1))).await.unwrap();
    assert_eq!(peer.publication("chat:1").await.offset, 1);
    assert_eq!(refused(soon(alice.presence("chat:2")).await), ErrorCode::Forbidden);
}

const ORIGINS: (&str, &str) = ("AUTH__ALLOWED_ORIGINS", "https://app.example.com");

async fn a_page_of_a_foreign_origin_is_refused(way: Way) {
    let world = World::with(way, &[ORIGINS]).await;
    for origin in
        ["https://evil.example", "null", "http://app.example.com", "https://app.example.com.evil.example"]
    {
        let mut options = world.options();
        options.headers = vec![("origin".to_owned(), origin.to_owned())];
        let refused = refusal(options).await;
        match (way, DialErrors::of(&refused).and_then(|errors| errors.by(way.kind()))) {
            (Way::WebTransport, Some(DialError::WebTransport(_)))
            | (_, Some(DialError::Refused { status: 403 })) => {}
            _ => panic!("{origin}: {refused}"),
        }
    }
    assert_eq!(world.refused_for("the page's origin is not allowed"), 4);
}

async fn a_page_of_an_allowed_origin_and_an_app_without_one_are_let_in(way: Way) {
    let world = World::with(way, &[ORIGINS]).await;
    let mut options = world.options();
    options.headers = vec![("origin".to_owned(), "https://app.example.com".to_owned())];
    connect_client(options).await;
    world.client().await;
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
