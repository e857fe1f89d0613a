//! A client that does at random what a client may do, goes on on another transport whenever one ends, and at last waits
//! until it has everything.

use crate::{
    asked::{Asked, Message, Wanted},
    peer::Peer,
    truth::{Stage, Truth},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use skywave::{
    auth::mint::{Claims, Minter},
    config::Secret,
};
use skywave_client::{
    CertificateCheck, Encoding, Json,
    transport::{DialOptions, TransportKind},
};
use skywave_protocol::{
    Channel, ClientFrame, Payload, Position, Text,
    frame::{
        Connect, Emit, HistoryRequest, Network, PresenceRequest, Publish, Refresh, Subscribe,
        SubscribeOptions, Unsubscribe,
    },
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, sleep};

pub const HMAC_SECRET: &str = "a secret of these walks, long enough";
/// How long after the last publish everything must have been answered and have arrived.
const SETTLING: Duration = Duration::from_secs(30);
/// How long a transport that was left is still heard.
const AFTERLIFE: Duration = Duration::from_secs(5);
/// What is repeated late comes within this.
const ECHO: Duration = Duration::from_millis(300);

pub struct Walker {
    number: usize,
    random: StdRng,
    urls: Vec<String>,
    channels: Vec<Channel>,
    truth: Arc<Truth>,
    attempt: u64,
    /// The session's secret.
    resume: Option<Arc<str>>,
    /// Where it is on each channel that it ever was on.
    positions: HashMap<Channel, Position>,
    /// What it published and nobody is known to have got.
    unanswered: Vec<Message>,
    /// None of the tokens that it gave on this transport ends soon.
    is_lasting: bool,
    is_done: bool,
}

impl Walker {
    pub fn new(number: usize, seed: u64, urls: Vec<String>, channels: usize, truth: Arc<Truth>) -> Self {
        let channels = (0..channels).map(|number| Channel::new(&format!("chat:{number}")).unwrap()).collect();
        Self {
            number,
            random: StdRng::seed_from_u64(seed),
            urls,
            channels,
            truth,
            attempt: 0,
            resume: None,
            positions: HashMap::new(),
            unanswered: Vec::new(),
            is_lasting: true,
            is_done: false,
        }
    }

    /// Walks until then, and then until everything has come.
    pub async fn walk(mut self, until: Instant) {
        let mut left: Option<Peer> = None;
        loop {
            let carried = left.as_ref().map(|peer| self.carried(peer)).unwrap_or_default();
            let mut peer = self.open(carried).await;
            if let Some(mut left) = left.take() {
                // It may well overlap with the new one; what it still brings has to be right.
                tokio::spawn(async move { left.hear(Instant::now() + AFTERLIFE).await });
            }
            let is_open = self.come(&mut peer).await;
            if is_open && !self.is_done && self.stroll(&mut peer, until).await {
                self.is_done = true;
                self.truth.reach(Stage::Done);
            }
            if !self.is_done || !self.is_lasting {
                left = Some(peer);
                continue;
            }
            if self.settle(&mut peer).await {
                return;
            }
            left = Some(peer);
        }
    }

    async fn open(&mut self, carried: BTreeMap<Channel, SubscribeOptions>) -> Peer {
        self.attempt += 1;
        self.is_lasting = true;
        let url = self.urls[self.random.random_range(0..self.urls.len())].clone();
        let kind = if self.random.random() { TransportKind::WebTransport } else { TransportKind::WebSocket };
        let options = DialOptions {
            encoding: if self.random.random() { Encoding::Json } else { Encoding::MessagePack },
            http2: kind == TransportKind::WebSocket && self.random.random_bool(0.3),
            certificate: CertificateCheck::Insecure,
            headers: Vec::new(),
        };
        let name = format!("walker {}, transport {}", self.number, self.attempt);
        let mut peer = Peer::open(name, &url, kind, options, self.truth.clone()).await;
        peer.connect((self.token(), self.resume.clone()), self.attempt, carried);
        peer
    }

    /// What it takes along to its next transport: most of its channels, and of most where it is.
    fn carried(&mut self, peer: &Peer) -> BTreeMap<Channel, SubscribeOptions> {
        let mut carried = BTreeMap::new();
        for channel in peer.rooms.keys().chain(peer.carried.keys()) {
            if self.random.random_bool(0.9) {
                let position = self.positions.get(channel).filter(|_| self.random.random_bool(0.9)).cloned();
                let presence = self.random.random_bool(0.4);
                carried.insert(channel.clone(), SubscribeOptions { position, history: None, presence });
            }
        }
        carried
    }

    /// A token that soon ends, or one that does not.
    fn token(&mut self) -> String {
        let is_lasting = self.is_done || self.random.random_bool(0.8);
        self.is_lasting &= is_lasting;
        let claims = Claims {
            user: Some(format!("user-{}", self.number)),
            channels: Vec::new(),
            info: None,
            audience: None,
            issuer: None,
            lifetime: Duration::from_secs(if is_lasting { 600 } else { 2 }),
        };
        Minter::from_secret(&Secret::new(HMAC_SECRET)).mint(&claims, SystemTime::now()).unwrap()
    }

    /// Waits for `connected`, and publishes again what may not have arrived. Whether the transport stands.
    async fn come(&mut self, peer: &mut Peer) -> bool {
        let deadline = Instant::now() + SETTLING;
        while peer.connected.is_none() {
            assert!(Instant::now() < deadline, "no `connected`");
            if !self.hear(peer, Duration::from_millis(5)).await {
                return false;
            }
        }
        self.resume = peer.connected.as_ref().map(|connected| connected.resume.clone());
        for message in &self.unanswered {
            peer.publish(message);
        }
        true
    }

    /// Takes what comes, and notes where it is then.
    async fn hear(&mut self, peer: &mut Peer, time: Duration) -> bool {
        let stands = peer.hear(Instant::now() + time).await;
        for (channel, room) in &peer.rooms {
            self.positions.insert(channel.clone(), room.position.clone());
        }
        self.unanswered.retain(|message| !self.truth.is_known(message.number));
        stands
    }

    /// Does something again and again; whether that was until the time was over.
    async fn stroll(&mut self, peer: &mut Peer, until: Instant) -> bool {
        while Instant::now() < until {
            let pause = Duration::from_millis(match self.random.random_range(0..30) {
                0 => 300,
                1..=5 => 20,
                _ => self.random.random_range(0..4),
            });
            if self.random.random_bool(0.02) {
                // It reads nothing meanwhile.
                sleep(pause).await;
            }
            if !self.hear(peer, pause).await {
                return false;
            }
            if self.random.random_bool(0.02) {
                if self.random.random() {
                    peer.cut();
                }
                return false;
            }
            for _ in 0..self.random.random_range(1..6) {
                self.step(peer);
            }
        }
        true
    }

    fn step(&mut self, peer: &mut Peer) {
        let channel = self.channels[self.random.random_range(0..self.channels.len())].clone();
        match self.random.random_range(0..100) {
            0..25 => self.subscribe(peer, channel),
            25..40 => peer.ask(Asked::Unsubscribe(channel.clone()), |id| {
                ClientFrame::Unsubscribe(Unsubscribe { id, channel })
            }),
            40 => self.publish_largest(peer, channel),
            41..80 => {
                let message = self.message(peer, channel);
                peer.publish(&message);
                if self.random.random_bool(0.03) {
                    peer.publish(&message);
                }
                self.unanswered.push(message);
            }
            80..85 => {
                let limit = self.random.random_range(1..200);
                let after = self.positions.get(&channel).filter(|_| self.random.random()).cloned();
                peer.ask(Asked::History, |id| {
                    ClientFrame::History(HistoryRequest { id, channel, limit, after, before: None })
                });
            }
            85..90 => {
                peer.ask(Asked::Presence, |id| ClientFrame::Presence(PresenceRequest { id, channel }));
            }
            90..95 => {
                let data = data(0, self.random.random_range(0..peer.frame_bytes() / 2));
                peer.send(&ClientFrame::Emit(Emit { channel, slot: None, data }));
            }
            95 => {
                let token = self.token().into();
                peer.ask(Asked::Refresh, |id| ClientFrame::Refresh(Refresh { id, token }));
            }
            96 if self.random.random_bool(0.1) => {
                peer.ask(Asked::Connect, |id| {
                    ClientFrame::Connect(Connect {
                        id,
                        token: None,
                        resume: None,
                        attempt: None,
                        subscriptions: BTreeMap::new(),
                        client: None,
                        network: None,
                    })
                });
            }
            _ => {
                let background = Some(self.random.random());
                peer.send(&ClientFrame::Network(Network { kind: Text::new("wifi").ok(), background }));
            }
        }
    }

    fn subscribe(&mut self, peer: &mut Peer, channel: Channel) {
        let mut wanted = Wanted::new(channel.clone(), &self.truth);
        let mut history = None;
        match self.random.random_range(0..8) {
            0..4 => wanted.position = self.positions.get(&channel).cloned(),
            4 => history = Some(self.random.random_range(1..50)),
            _ => {}
        }
        wanted.has_history = history.is_some();
        let (position, presence) = (wanted.position.clone(), self.random.random_bool(0.4));
        peer.ask(Asked::Subscribe(wanted), |id| {
            ClientFrame::Subscribe(Subscribe { id, channel, position, history, presence })
        });
    }

    fn message(&mut self, peer: &Peer, channel: Channel) -> Message {
        let number = self.truth.next_number();
        let most = peer.frame_bytes();
        let bytes = match self.random.random_range(0..20) {
            0 => self.random.random_range(0..most * 3 / 4),
            1..4 => self.random.random_range(0..most / 16),
            _ => self.random.random_range(0..100),
        };
        Message { channel, number, data: data(number, bytes) }
    }

    /// Publishes in a frame that is as large as one may be, once: in the other encoding it may be larger.
    fn publish_largest(&mut self, peer: &mut Peer, channel: Channel) {
        let (id, number) = (peer.next_id(), self.truth.next_number());
        let frame = |bytes| {
            let (channel, data) = (channel.clone(), data(number, bytes));
            ClientFrame::Publish(Publish { id, channel, key: None, data })
        };
        let size = |bytes| peer.encoding.encode(&frame(bytes)).unwrap().bare().len();
        let most = peer.frame_bytes();
        let bytes = most - (size(most / 2) - most / 2);
        assert_eq!(size(bytes), most);
        let asked = Asked::Publish(Message { channel: channel.clone(), number, data: data(number, bytes) });
        peer.ask_as(id, asked, &frame(bytes));
    }

    // ---- the end ----

    /// Waits until all walkers are done, all is answered and everything has come, and who is there is known.
    ///
    /// `false` when the transport ended before that.
    async fn settle(&mut self, peer: &mut Peer) -> bool {
        let deadline = Instant::now() + SETTLING;
        loop {
            if !self.hear(peer, Duration::from_millis(20)).await {
                return false;
            }
            let behind = peer.behind();
            if self.truth.have_all_reached(Stage::Done) && peer.is_answered() && behind.is_empty() {
                break;
            }
            let (asked, carried) = (&peer.asked, &peer.carried);
            assert!(Instant::now() < deadline, "behind {behind:?}, asked {asked:?}, carried {carried:?}");
        }
        let session = peer.connected.as_ref().unwrap().session.to_string();
        self.truth.stays(&session, peer.rooms.keys().cloned());
        self.truth.reach(Stage::Settled);
        self.await_all(peer, Stage::Settled).await;
        let mut right_since: Option<Instant> = None;
        while right_since.is_none_or(|since| since.elapsed() < ECHO) {
            self.stay(peer).await;
            let misknown = peer.misknown();
            right_since = if misknown.is_none() { right_since.or(Some(Instant::now())) } else { None };
            assert!(Instant::now() < deadline + SETTLING, "{misknown:?}");
        }
        self.truth.reach(Stage::Content);
        self.await_all(peer, Stage::Content).await;
        true
    }

    /// Waits for the others; each waits as long.
    async fn await_all(&mut self, peer: &mut Peer, stage: Stage) {
        while !self.truth.have_all_reached(stage) {
            self.stay(peer).await;
        }
    }

    async fn stay(&mut self, peer: &mut Peer) {
        assert!(self.hear(peer, Duration::from_millis(20)).await, "ended though nothing was to be done");
    }
}

/// A publication's number, and so many bytes.
fn data(number: u64, bytes: usize) -> Payload {
    Json::of(&(number, "x".repeat(bytes))).unwrap().into()
}
