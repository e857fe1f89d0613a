//! Peers that grant the node few streams, or do not read them.

use crate::{World, half_open::HEARTBEAT, number};
use quinn::{ReadError, RecvStream, TransportConfig, VarInt};
use serde_json::json;
use skywave_client::{Json, SubscribeOptions, TransportChoice};
use skywave_protocol::framing::FrameBuffer;
use skywave_testing::{
    eventually, soon,
    webtransport::{RawSession, next_frame},
};
use std::time::Duration;

const MAX_FRAME_BYTES: usize = 1 << 20;

/// A channel's stream as its subscriber reads it.
pub struct ChannelStream {
    /// Whose it is.
    pub subscription: u64,
    stream: RecvStream,
    buffer: FrameBuffer,
}

impl ChannelStream {
    /// The next one that the node opens; HTTP/3's own is passed over.
    pub async fn accept(session: &RawSession) -> Self {
        loop {
            let mut stream = soon(session.quic.accept_uni()).await.unwrap();
            let mut header = [0; 3];
            soon(stream.read_exact(&mut header)).await.unwrap();
            if header == [0x40, 0x54, session.id() as u8] {
                let mut buffer = FrameBuffer::new(MAX_FRAME_BYTES);
                let opening = soon(next_frame(&mut stream, &mut buffer)).await.unwrap();
                let subscription = opening["stream"]["subscription"].as_u64().unwrap();
                return Self { subscription, stream, buffer };
            }
        }
    }

    /// The next publication's channel and offset.
    pub async fn next(&mut self) -> (String, u64) {
        let frame = soon(next_frame(&mut self.stream, &mut self.buffer)).await.expect("the stream ended");
        let publication = &frame["publication"];
        (publication["channel"].as_str().unwrap().to_owned(), publication["offset"].as_u64().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_whose_it_is_and_is_reset_with_its_subscription() {
    let world = World::new(&[]).await;
    let session = RawSession::open(world.server.public().unwrap(), TransportConfig::default()).await;
    let mut control = session.connect(json!({})).await;
    let mut last = None;
    for count in 1..=3 {
        control.send(&json!({"subscribe": {"id": 2, "channel": "chat:1"}})).await;
        let name = control.frame().await["subscribed"]["subscription"].as_u64();
        assert!(name.is_some() && name > last, "{name:?} after {last:?}");
        last = name;
        world.publish("chat:1", number(count)).await;
        let mut stream = ChannelStream::accept(&session).await;
        assert_eq!(Some(stream.subscription), name);
        assert_eq!(stream.next().await, ("chat:1".to_owned(), count));
        control.send(&json!({"unsubscribe": {"id": 3, "channel": "chat:1"}})).await;
        assert!(control.frame().await["unsubscribed"].is_object());
        let end = soon(stream.stream.read_chunk(1, true)).await;
        assert!(matches!(end, Err(ReadError::Reset(_))), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_control_stream_a_subscriptions_frames_stand_between_its_begin_and_its_end() {
    const ROUNDS: u64 = 20;
    let world =
        World::new(&[("CHANNELS__CHAT__HISTORY", "100"), ("LIMITS__REQUESTS_PER_SECOND", "1000")]).await;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(VarInt::from_u32(1));
    // The node is blocked after every other frame.
    transport.stream_receive_window(VarInt::from_u32(1500));
    let session = RawSession::open(world.server.public().unwrap(), transport).await;
    let mut control = session.connect(json!({})).await;
    for _ in 0..20 {
        world.publish("chat:1", Json::of(&"x".repeat(1000)).unwrap()).await;
    }
    for _ in 0..ROUNDS {
        control.send(&json!({"subscribe": {"id": 2, "channel": "chat:1", "history": 10}})).await;
        control.send(&json!({"unsubscribe": {"id": 3, "channel": "chat:1"}})).await;
    }
    let (mut is_subscribed, mut ended) = (false, 0);
    while ended < ROUNDS {
        world.publish("chat:1", Json::of(&"x".repeat(1000)).unwrap()).await;
        let frame = control.frame().await;
        match frame.as_object().and_then(|frame| frame.keys().next()).map(String::as_str) {
            Some("subscribed") => is_subscribed = true,
            Some("unsubscribed") => (is_subscribed, ended) = (false, ended + 1),
            Some("publication" | "gap") => assert!(is_subscribed, "{frame}"),
            Some("ping") => {}
            _ => panic!("{frame}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_stream_is_granted_publications_come_on_the_control_stream() {
    let world = World::new(&[]).await;
    let mut transport = TransportConfig::default();
    // One is for HTTP/3's settings.
    transport.max_concurrent_uni_streams(VarInt::from_u32(1));
    let session = RawSession::open(world.server.public().unwrap(), transport).await;
    let mut control = session.connect(json!({"chat:1": {}, "chat:2": {}})).await;
    for _ in 0..2 {
        assert!(control.frame().await["subscribed"].is_object());
    }
    for count in 1..=50 {
        for channel in ["chat:1", "chat:2"] {
            world.publish(channel, number(count)).await;
            let frame = control.frame().await;
            assert_eq!(frame["publication"]["channel"], channel);
            assert_eq!(frame["publication"]["offset"], count);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_stream_is_granted_the_other_channels_do_not_wait_for_it() {
    let world = World::new(&[]).await;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(VarInt::from_u32(2));
    let session = RawSession::open(world.server.public().unwrap(), transport).await;
    let mut control = session.connect(json!({"chat:1": {}, "chat:2": {}})).await;
    for _ in 0..2 {
        assert!(control.frame().await["subscribed"].is_object());
    }
    world.publish("chat:1", number(1)).await;
    let mut first = ChannelStream::accept(&session).await;
    assert_eq!(first.next().await, ("chat:1".to_owned(), 1));
    for count in 1..=20 {
        world.publish("chat:2", number(count)).await;
        assert_eq!(control.frame().await["publication"]["offset"], count);
    }
    world.publish("chat:1", number(2)).await;
    assert_eq!(first.next().await, ("chat:1".to_owned(), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_any_more_is_given_up_where_publications_come_on_the_control_stream() {
    let world = World::new(&[&HEARTBEAT[..], &[("CHANNELS__CHAT__HISTORY", "100")]].concat()).await;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(VarInt::from_u32(1));
    transport.stream_receive_window(VarInt::from_u32(4096));
    let session = RawSession::open(world.server.public().unwrap(), transport).await;
    for _ in 0..20 {
        world.publish("chat:1", Json::of(&"x".repeat(1000)).unwrap()).await;
    }
    let mut control = session.connect(json!({})).await;
    control.send(&json!({"subscribe": {"id": 2, "channel": "chat:1", "history": 20}})).await;
    // Its QUIC goes on to acknowledge, with nobody behind it.
    eventually("the session's end", async || world.server.node().sessions.all().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_not_read_holds_up_no_other_and_no_one_else() {
    a_channel_is_not_read("1048576").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_not_read_and_fills_the_outbox_holds_up_no_other_and_no_one_else() {
    a_channel_is_not_read("100000").await;
}

/// One channel is not read until much has been published on it and on another.
async fn a_channel_is_not_read(outbox_bytes: &str) {
    const COUNT: u64 = 300;
    let world =
        World::new(&[("CHANNELS__CHAT__HISTORY", "1000"), ("LIMITS__OUTBOX_BYTES", outbox_bytes)]).await;
    let bystander = world.direct(TransportChoice::WebTransport).await;
    let mut room = soon(bystander.subscribe("chat:unread", SubscribeOptions::default())).await.unwrap();
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(4096));
    let session = RawSession::open(world.server.public().unwrap(), transport).await;
    let mut control = session.connect(json!({"chat:read": {}, "chat:unread": {}})).await;
    for _ in 0..2 {
        assert!(control.frame().await["subscribed"].is_object());
    }
    // Its stream comes first, so that the other one is not even accepted.
    let kilobyte = || Json::of(&"x".repeat(1000)).unwrap();
    world.publish("chat:read", kilobyte()).await;
    let mut read = ChannelStream::accept(&session).await;
    assert_eq!(read.next().await, ("chat:read".to_owned(), 1));
    for count in 2..=COUNT {
        world.publish("chat:unread", kilobyte()).await;
        world.publish("chat:read", kilobyte()).await;
        assert_eq!(read.next().await, ("chat:read".to_owned(), count));
        assert_eq!(crate::publication(&mut room).await.offset, count - 1);
    }
    control.send(&json!({"history": {"id": 2, "channel": "chat:read", "limit": 1}})).await;
    assert_eq!(control.frame().await["history"]["id"], 2);
    // Once it is read, all of it is there.
    let mut unread = ChannelStream::accept(&session).await;
    for count in 1..COUNT {
        assert_eq!(unread.next().await, ("chat:unread".to_owned(), count));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_with_much_on_its_way_holds_up_no_publication_of_another() {
    a_channel_has_much_on_its_way(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_with_much_on_its_way_leaves_another_its_share() {
    a_channel_has_much_on_its_way(20).await;
}

/// More is published on one channel than the node sends without an acknowledgement, then something on another: it comes
/// long before all of the first.
async fn a_channel_has_much_on_its_way(publications: u64) {
    const MUCH: u64 = 900;
    let world = World::new(&[]).await;
    let session = RawSession::open(world.relay.address(), TransportConfig::default()).await;
    let mut control = session.connect(json!({"chat:much": {}, "chat:little": {}})).await;
    for _ in 0..2 {
        assert!(control.frame().await["subscribed"].is_object());
    }
    let kilobyte = || Json::of(&"x".repeat(1000)).unwrap();
    world.publish("chat:much", kilobyte()).await;
    let mut much = ChannelStream::accept(&session).await;
    assert_eq!(much.next().await, ("chat:much".to_owned(), 1));
    world.publish("chat:little", kilobyte()).await;
    let mut little = ChannelStream::accept(&session).await;
    assert_eq!(little.next().await, ("chat:little".to_owned(), 1));
    // Nothing comes through until all of it waits.
    world.relay.set(|weather| weather.udp_replies = false);
    for _ in 0..MUCH {
        world.publish("chat:much", kilobyte()).await;
    }
    for _ in 0..publications {
        world.publish("chat:little", kilobyte()).await;
    }
    // It comes more slowly than it is read.
    world.relay.set(|weather| {
        weather.udp_replies = true;
        weather.jitter = Duration::from_millis(20);
    });
    let (mut much_came, mut little_came) = (0, 0);
    while little_came < publications {
        tokio::select! {
            biased;
            _ = little.next() => little_came += 1,
            _ = much.next() => much_came += 1,
        }
    }
    assert!(much_came < MUCH / 4, "{much_came} of {MUCH} came before");
    for offset in much_came + 2..=MUCH + 1 {
        assert_eq!(much.next().await, ("chat:much".to_owned(), offset));
    }
}
