//! A client that does not read costs no other client anything, and the node no memory.

use crate::{
    on_every_transport,
    peer::{Peer, channel, connect_to},
    world::{Way, World, json},
};
use skywave::{broker::Publish, hub::outbox::Outbox, node::Node};
use skywave_client::{Encoding, SubscribeOptions, transport::Sender};
use skywave_protocol::{
    CloseCode, ServerFrame,
    frame::{Connected, Gap, Publication},
    framing::FrameBuffer,
};
use skywave_testing::{eventually, node::publication, soon};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

on_every_transport! {
    one_that_never_reads_beside_ninety_nine_that_do,
    one_that_never_reads_is_closed,
    one_that_reads_again_gets_the_latest_and_is_told_what_it_lost,
}

const OUTBOX_BYTES: usize = 64 * 1024;
const SETTINGS: [(&str, &str); 5] = [
    ("CHANNELS__CHAT__HISTORY", "5000"),
    ("CHANNELS__FLOOD__HISTORY", "20"),
    ("CHANNELS__LIVE__HISTORY", "0"),
    ("LIMITS__FRAME_BYTES", "16384"),
    ("LIMITS__OUTBOX_BYTES", "65536"),
];
/// More than the sockets of a connection hold on their way.
const FLOOD_BYTES: usize = 64 << 20;
const FLOOD_FRAME_BYTES: usize = 8 * 1024;
/// So many times the outbox's bytes were published and no frame was taken.
const CLOGGED_AFTER: u32 = 50;

async fn publish(node: &Arc<Node>, name: &str, size: usize) -> u64 {
    let data = json("x".repeat(size)).into();
    let publish = Publish { channel: channel(name), data, key: None, user: None };
    soon(node.publish(publish)).await.unwrap().offset
}

/// A session on `chat:1` and `flood:1` of which nothing is read any more, until what is sent to it has nowhere to go.
async fn clogged(world: &World) -> (Peer, Connected, Arc<Outbox>) {
    let names = ["chat:1", "flood:1"].map(|name| (name, SubscribeOptions::default()));
    let (mut peer, connected) = Peer::open(world, connect_to(names)).await;
    peer.subscribed("flood:1").await;
    let outbox = outbox(world, &connected);
    clog(world, &outbox).await;
    (peer, connected, outbox)
}

fn outbox(world: &World, connected: &Connected) -> Arc<Outbox> {
    let all = world.server.node().sessions.all();
    let (_, attached) = all.into_iter().find(|(session, _)| *session == connected.session).unwrap();
    attached.outbox
}

/// Floods a session until its transport takes no more: then its outbox has to drop what waits.
async fn clog(world: &World, outbox: &Outbox) {
    let mut still = 0;
    for _ in 0..FLOOD_BYTES / OUTBOX_BYTES {
        for _ in 0..OUTBOX_BYTES / FLOOD_FRAME_BYTES {
            publish(world.server.node(), "flood:1", FLOOD_FRAME_BYTES).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        still = if outbox.take_counts().frames_sent == 0 { still + 1 } else { 0 };
        if still == CLOGGED_AFTER {
            return;
        }
    }
    panic!("it reads after all");
}

/// Readers of `chat:1` that check the order and tell after each round.
struct Readers {
    rounds: mpsc::Receiver<()>,
    count: usize,
}

const ROUND: u64 = 100;

impl Readers {
    async fn start(world: &World, count: usize) -> Self {
        let (done, rounds) = mpsc::channel(count);
        for _ in 0..count {
            let client = world.client().await;
            let mut room = client.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
            let done = done.clone();
            tokio::spawn(async move {
                for offset in 1.. {
                    assert_eq!(publication(&mut room).await.offset, offset);
                    if offset % ROUND == 0 && done.send(()).await.is_err() {
                        break;
                    }
                }
                drop(client);
            });
        }
        Self { rounds, count }
    }

    /// How long a round takes until all have all of it.
    async fn round(&mut self, node: &Arc<Node>) -> Duration {
        let began = Instant::now();
        for _ in 0..ROUND {
            publish(node, "chat:1", 100).await;
        }
        for _ in 0..self.count {
            soon(self.rounds.recv()).await.unwrap();
        }
        began.elapsed()
    }

    async fn median_of(&mut self, rounds: usize, node: &Arc<Node>, mut after: impl FnMut()) -> Duration {
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(self.round(node).await);
            after();
        }
        times.sort();
        times[rounds / 2]
    }
}

async fn one_that_never_reads_beside_ninety_nine_that_do(way: Way) {
    let world = World::with(way, &SETTINGS).await;
    let node = world.server.node();
    let mut readers = Readers::start(&world, 99).await;
    let alone = readers.median_of(10, node, || ()).await;
    let (mut slow, _, outbox) = clogged(&world).await;
    let mut most = 0;
    let beside = readers.median_of(10, node, || most = most.max(outbox.bytes())).await;
    assert!(most > 0 && most <= OUTBOX_BYTES, "{most} bytes wait for the slow one");
    assert!(beside < alone * 3 + Duration::from_millis(50), "{beside:?} instead of {alone:?}");
    // It reads after all: what history has, it gets.
    let mut story = Story(BTreeMap::from([("chat:1".to_owned(), (1000, 0))]));
    while story.at("chat:1") < 2000 {
        story.take(slow.next().await.unwrap());
    }
    assert_eq!(story.lost("chat:1"), 0);
}

async fn one_that_reads_again_gets_the_latest_and_is_told_what_it_lost(way: Way) {
    let world = World::with(way, &SETTINGS).await;
    let node = world.server.node();
    let (mut slow, _, _) = clogged(&world).await;
    for _ in 0..100 {
        publish(node, "flood:1", FLOOD_FRAME_BYTES).await;
    }
    let last = publish(node, "flood:1", 1).await;
    let mut story = Story::default();
    while story.at("flood:1") < last {
        story.take(slow.next().await.unwrap());
    }
    assert!(story.lost("flood:1") > 0, "history holds 20, a gap tells of the others");
    publish(node, "flood:1", 1).await;
    assert_eq!(slow.publication("flood:1").await.offset, last + 1);
}

async fn one_that_never_reads_is_closed(way: Way) {
    let fast = [("HEARTBEAT__MIN", "100ms"), ("HEARTBEAT__MAX", "500ms")];
    let settings: Vec<_> = SETTINGS.into_iter().chain(fast).collect();
    let world = World::with(way, &settings).await;
    let mut readers = Readers::start(&world, 1).await;
    let (_slow, connected, outbox) = clogged(&world).await;
    assert!(outbox.bytes() > 0);
    let closed =
        || world.closed_with(CloseCode::SlowConsumer) + world.closed_with(CloseCode::HeartbeatTimeout);
    while closed() == 0 {
        readers.round(world.server.node()).await;
        assert!(outbox.bytes() <= OUTBOX_BYTES);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(closed(), 1);
    let node = world.server.node();
    eventually("its session has left", async || !node.sessions.contains(&connected.session)).await;
    readers.round(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_stream_that_is_not_read_holds_up_no_other_channel() {
    let world = World::with(Way::WebTransport, &SETTINGS).await;
    let node = world.server.node();
    let names = ["live:free", "flood:stuck"].map(|name| (name, SubscribeOptions::default()));
    let (mut peer, connected) = Peer::open(&world, connect_to(names)).await;
    peer.subscribed("flood:stuck").await;
    let Sender::WebTransport(sender) = &peer.sender else { panic!("{:?}", peer.sender) };
    // The node opens a stream for each channel when its first publication is due.
    publish(node, "flood:stuck", 1).await;
    let mut stuck = soon(sender.connection().accept_uni()).await.unwrap();
    // What nobody retains is lost if its queue is dropped for another channel's sake.
    publish(node, "live:free", 1).await;
    let mut free = soon(sender.connection().accept_uni()).await.unwrap();
    let mut frames = FrameBuffer::new(1 << 20);
    let mut story = Story::default();
    for _ in ["stream", "publication"] {
        story.take(next_frame(&mut free, &mut frames).await);
    }
    let outbox = outbox(&world, &connected);
    for offset in 2..=500 {
        publish(node, "flood:stuck", FLOOD_FRAME_BYTES).await;
        publish(node, "live:free", FLOOD_FRAME_BYTES).await;
        story.take(next_frame(&mut free, &mut frames).await);
        assert_eq!((story.at("live:free"), story.lost("live:free")), (offset, 0));
        assert!(outbox.bytes() <= OUTBOX_BYTES);
    }
    // Read again, the other stream goes on where it stood.
    let mut frames = FrameBuffer::new(1 << 20);
    while story.at("flood:stuck") < 500 {
        story.take(next_frame(&mut stuck, &mut frames).await);
    }
    assert!(story.lost("flood:stuck") > 0);
}

/// What came of each channel, checked: every publication follows on the one before or on a gap.
#[derive(Default)]
struct Story(BTreeMap<String, (u64, u64)>);

impl Story {
    fn take(&mut self, frame: ServerFrame) {
        match frame {
            ServerFrame::Publication(Publication { channel, offset, .. }) => {
                let (at, _) = self.0.entry(channel.to_string()).or_default();
                assert_eq!(offset, *at + 1, "{channel}");
                *at = offset;
            }
            ServerFrame::Gap(Gap { channel, offset, .. }) => {
                let (at, lost) = self.0.entry(channel.to_string()).or_default();
                assert!(offset > *at, "{channel}: a gap from {at} to {offset}");
                *lost += offset - *at;
                *at = offset;
            }
            ServerFrame::Ping(_) | ServerFrame::Stream(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// The last offset of a channel.
    fn at(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |(at, _)| *at)
    }

    /// How many publications of a channel a gap told of.
    fn lost(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |(_, lost)| *lost)
    }
}

async fn next_frame(stream: &mut wtransport::RecvStream, frames: &mut FrameBuffer) -> ServerFrame {
    loop {
        if let Some(frame) = frames.next_frame().unwrap() {
            return Encoding::MessagePack.decode_server(&frame).unwrap();
        }
        let chunk = soon(stream.quic_stream_mut().read_chunk(64 * 1024, true)).await.unwrap();
        frames.extend(&chunk.expect("the stream goes on").bytes);
    }
}
