//! Whole nodes on one Redis, clients of them, and what a subscriber is told of presence.

use futures_util::future::join_all;
use skywave::{config::Config, server::Server};
use skywave_client::{
    ChannelEvent, Client, ClientOptions, Network, PresenceChanged, SubscribeOptions, Subscription,
    TransportChoice,
};
use skywave_protocol::frame::{Member, SessionId};
use skywave_testing::{
    PATIENCE, Process, RedisServer, eventually,
    node::{self, connect, options, url},
    soon,
};
use std::{collections::BTreeSet, io::Write};

pub const TRANSPORTS: [TransportChoice; 2] = [TransportChoice::WebTransport, TransportChoice::WebSocket];
pub const WEBSOCKET: TransportChoice = TransportChoice::WebSocket;
/// Changes are told at once.
pub const AT_ONCE: (&str, &str) = ("CHANNELS__CHAT__PRESENCE_BATCH", "0s");

/// The keys of a node on `redis`, and more.
fn settings<'a>(redis: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let usual = [
        ("BROKER__PARTITIONS", "4"),
        ("CHANNELS__CHAT__PRESENCE", "true"),
        ("DRAIN__DEADLINE", "2s"),
        // The presence lease follows it: this one's is the shortest, 10 s.
        ("HEARTBEAT__FOREGROUND_MAX", "1s"),
    ];
    [&node::sharing(redis)[..], &usual, more].concat()
}

pub fn config(redis: &RedisServer, more: &[(&str, &str)]) -> Config {
    node::config(&settings(&redis.url(), more))
}

pub async fn node_with(redis: &RedisServer, more: &[(&str, &str)]) -> Server {
    Server::start(config(redis, more)).await.unwrap()
}

/// A node in a process of its own.
pub async fn process(redis: &RedisServer, more: &[(&str, &str)]) -> Process {
    Process::serve(node::environment(&settings(&redis.url(), more))).await
}

/// A node of a region that tells changes at once, and knows other regions by the URLs of their Redis.
pub async fn node_of_regions(redis: &RedisServer, region: &str, others: &[(&str, &str)]) -> Server {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    for (name, url) in others {
        writeln!(file, "[[regions]]\nname = \"{name}\"\nredis = \"{url}\"\nurl = \"https://localhost:1\"")
            .unwrap();
    }
    let own = redis.url();
    let environment = node::environment(&settings(&own, &[AT_ONCE, ("NODE__REGION", region)]));
    Server::start(Config::load(Some(file.path()), true, environment).unwrap()).await.unwrap()
}

/// A node that tells changes at once.
pub async fn node(redis: &RedisServer) -> Server {
    node_with(redis, &[AT_ONCE]).await
}

pub async fn client_of(urls: Vec<String>, transport: TransportChoice) -> Client {
    client_with(urls, transport, Network::default()).await
}

/// A client at whose app someone looks.
pub async fn client_in_the_foreground(urls: Vec<String>, transport: TransportChoice) -> Client {
    client_with(urls, transport, Network { background: Some(false), ..Network::default() }).await
}

async fn client_with(urls: Vec<String>, transport: TransportChoice, network: Network) -> Client {
    connect(ClientOptions { network, ..options(urls, transport) }).await
}

pub async fn client(nodes: &[&Server], transport: TransportChoice) -> Client {
    client_of(nodes.iter().map(|node| url(node)).collect(), transport).await
}

pub fn session(client: &Client) -> SessionId {
    client.connected().unwrap().session.clone()
}

/// Someone who is on `chat:1`, and does not ask who else is.
pub struct Guest {
    pub client: Client,
    pub subscription: Subscription,
}

impl Guest {
    pub async fn of(client: Client) -> Self {
        let subscription = soon(client.subscribe("chat:1", SubscribeOptions::default())).await.unwrap();
        Self { client, subscription }
    }

    pub async fn on(node: &Server) -> Self {
        Self::of(client(&[node], WEBSOCKET).await).await
    }

    pub fn session(&self) -> SessionId {
        session(&self.client)
    }
}

/// Someone who is on `chat:1` and is told who else is.
pub struct Watcher {
    pub client: Client,
    subscription: Subscription,
    /// Who is there, by all that it was told.
    known: BTreeSet<String>,
}

impl Watcher {
    pub async fn on(node: &Server) -> Self {
        Self::by(node, WEBSOCKET).await
    }

    /// A watcher that has been told of itself.
    pub async fn by(node: &Server, transport: TransportChoice) -> Self {
        let client = client(&[node], transport).await;
        let options = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
        let subscription = soon(client.subscribe("chat:1", options)).await.unwrap();
        let mut watcher = Self { client, subscription, known: BTreeSet::new() };
        let own = watcher.session();
        while !watcher.changed().await.joined.iter().any(|member| member.session == own) {}
        watcher
    }

    /// A watcher that was told who is there, and nothing since.
    pub async fn listed(node: &Server) -> Self {
        let client = client(&[node], WEBSOCKET).await;
        let options = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
        let mut subscription = soon(client.subscribe("chat:1", options)).await.unwrap();
        let Some(ChannelEvent::Subscribed(subscribed)) = soon(subscription.next()).await else { panic!() };
        let known = sessions(&subscribed.presence.unwrap().members);
        Self { client, subscription, known }
    }

    /// Whether it believes that this one is there.
    pub fn knows(&self, session: &SessionId) -> bool {
        self.known.contains(&**session)
    }

    pub fn session(&self) -> SessionId {
        session(&self.client)
    }

    /// The next change.
    pub async fn changed(&mut self) -> PresenceChanged {
        loop {
            match soon(self.subscription.next()).await {
                Some(ChannelEvent::PresenceChanged(changed)) => {
                    self.known.extend(sessions(&changed.joined));
                    let left = sessions(&changed.left);
                    self.known.retain(|session| !left.contains(session));
                    return changed;
                }
                Some(ChannelEvent::Subscribed(subscribed)) => {
                    self.known = sessions(&subscribed.presence.unwrap().members);
                }
                Some(_) => {}
                None => panic!("the subscription ended"),
            }
        }
    }

    /// The next change: who joined, who left, how many are there.
    pub async fn next(&mut self) -> (BTreeSet<String>, BTreeSet<String>, u64) {
        let PresenceChanged { joined, left, count, .. } = self.changed().await;
        (sessions(&joined), sessions(&left), count)
    }

    /// Changes until so many have left or joined, together: who joined and who left.
    pub async fn gather(&mut self, changes: usize) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut joined, mut left) = (BTreeSet::new(), BTreeSet::new());
        while joined.len() + left.len() < changes {
            let (more_joined, more_left, _) = self.next().await;
            joined.extend(more_joined);
            left.extend(more_left);
        }
        (joined, left)
    }

    /// Changes until all of these have been told to have joined, and no others.
    pub async fn gather_of(&mut self, expected: &[SessionId]) {
        assert_eq!(self.gather(expected.len()).await, (set(expected), set(&[])));
    }

    /// Waits until it has been told of exactly these besides itself.
    pub async fn sees(&mut self, others: &[SessionId]) {
        let mut expected = set(others);
        expected.insert(self.session().to_string());
        while self.known != expected {
            if tokio::time::timeout(PATIENCE, self.changed()).await.is_err() {
                let lacks: Vec<_> = expected.difference(&self.known).collect();
                let has: Vec<_> = self.known.difference(&expected).collect();
                panic!("it is told no more, and lacks {lacks:?}, and has {has:?} that are not there");
            }
        }
    }

    /// Someone comes by `node`; that is the first thing that is told.
    pub async fn is_told_first_of_one_who_comes(&mut self, node: &Server, count: u64) -> Guest {
        let guest = Guest::on(node).await;
        assert_eq!(self.next().await, (set(&[guest.session()]), set(&[]), count));
        guest
    }

    /// How many are there and who, by a request.
    pub async fn asks(&self) -> (BTreeSet<String>, u64) {
        let presence = soon(self.client.presence("chat:1")).await.unwrap();
        (sessions(&presence.members), presence.count)
    }
}

fn sessions(members: &[Member]) -> BTreeSet<String> {
    members.iter().map(|member| member.session.to_string()).collect()
}

pub fn set(sessions: &[SessionId]) -> BTreeSet<String> {
    sessions.iter().map(ToString::to_string).collect()
}

/// The key of the channel `chat:1`.
pub async fn room(redis: &RedisServer) -> String {
    for partition in 0..4 {
        let key = format!("sky:{{{partition}}}:presence:chat:1");
        if redis.run::<u64>(&format!("EXISTS {key}")).await == 1 {
            return key;
        }
    }
    panic!("nobody is there");
}

/// Waits until Redis knows so many members, be it again.
pub async fn are_back(redis: &RedisServer, members: u64) {
    eventually("their return", async || {
        let rooms = (0..4).map(|partition| format!("HLEN sky:{{{partition}}}:presence:chat:1"));
        let counts = join_all(rooms.map(async |room| redis.run::<u64>(&room).await)).await;
        counts.into_iter().sum::<u64>() == members
    })
    .await;
}
