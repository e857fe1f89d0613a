//! Regions with a Redis and nodes each, the paths between them, and an ear that hears all that a region delivers.

use skywave::{
    broker::{Accepted, BrokerError, Publish},
    config::Config,
    server::Server,
};
use skywave_client::{ChannelEvent, Client, SubscribeOptions, Subscription, TransportChoice};
use skywave_protocol::{Channel, Json, Text};
use skywave_testing::{
    Process, RedisServer, Relay, eventually,
    node::{
        WITHOUT_PRESENCE,
        broker::{Node as Ear, settings_in},
        connect, environment, options, url,
    },
    process::command,
    soon,
};
use std::{collections::BTreeMap, io::Write, ops::RangeInclusive, time::Duration};
use tempfile::NamedTempFile;

/// Where numbers are published.
pub const CHANNEL: &str = "chat:1";

pub struct Deployment {
    pub regions: Vec<Region>,
    /// From the first to the second.
    pub paths: BTreeMap<(&'static str, &'static str), Relay>,
    changes: String,
    /// `USER:PASSWORD@` of the nodes, if they have any.
    login: &'static str,
}

pub struct Region {
    pub name: &'static str,
    pub redis: RedisServer,
    pub nodes: Vec<Server>,
    pub ear: Ear,
}

/// How a channel's publications were delivered: origin, epoch, offset, payload.
pub type Delivered = (String, String, u64, u64);

impl Deployment {
    /// One node in each region.
    pub async fn start(names: &[&'static str]) -> Self {
        Self::with(names, "").await
    }

    /// As [`Self::start`]; the configuration of every node has `changes` added.
    pub async fn with(names: &[&'static str], changes: &str) -> Self {
        let mut servers = Vec::new();
        for name in names {
            servers.push((*name, RedisServer::durable().await));
        }
        Self::on(servers, "", changes).await
    }

    /// As [`Self::with`], on servers that run, which the nodes use with a login.
    pub async fn on(servers: Vec<(&'static str, RedisServer)>, login: &'static str, changes: &str) -> Self {
        let names: Vec<_> = servers.iter().map(|(name, _)| *name).collect();
        let mut deployment = Self::without_nodes(servers, login, changes).await;
        for name in &names {
            deployment.add_node(name).await;
        }
        for name in &names {
            deployment.bridged(name).await;
        }
        deployment
    }

    /// As [`Self::on`], without nodes: only the ears are there.
    pub async fn without_nodes(
        servers: Vec<(&'static str, RedisServer)>,
        login: &'static str,
        changes: &str,
    ) -> Self {
        let names: Vec<_> = servers.iter().map(|(name, _)| *name).collect();
        let mut paths = BTreeMap::new();
        for from in &names {
            for (to, server) in &servers {
                if from != to {
                    paths.insert((*from, *to), Relay::tcp(server.port()).await);
                }
            }
        }
        let mut deployment = Self { regions: Vec::new(), paths, changes: changes.to_owned(), login };
        for (name, redis) in servers {
            let ear = ear(name, &redis).await;
            deployment.regions.push(Region { name, redis, nodes: Vec::new(), ear });
        }
        deployment
    }

    pub fn region(&self, name: &str) -> &Region {
        self.regions.iter().find(|region| region.name == name).unwrap()
    }

    pub fn region_mut(&mut self, name: &str) -> &mut Region {
        self.regions.iter_mut().find(|region| region.name == name).unwrap()
    }

    pub fn path(&self, from: &'static str, to: &'static str) -> &Relay {
        &self.paths[&(from, to)]
    }

    pub async fn add_node(&mut self, name: &str) {
        let url = self.region(name).redis.url();
        self.add_node_at(name, &url).await;
    }

    /// Adds a node that reaches its region's Redis at this URL.
    pub async fn add_node_at(&mut self, name: &str, redis: &str) {
        let node = Server::start(self.config(name, redis)).await.unwrap();
        self.region_mut(name).nodes.push(node);
    }

    /// The configuration of a node of the region, as a file; the region's Redis is at `url`.
    pub fn file(&self, name: &str, url: &str) -> NamedTempFile {
        let login = |url: &str| url.replacen("://", &format!("://{}", self.login), 1);
        let others = self.paths.iter().filter(|((from, _), _)| *from == name);
        let others = others.map(|((_, to), relay)| (*to, login(&relay.url("redis"))));
        config_file(name, &login(url), &self.changes, others)
    }

    fn config(&self, name: &str, redis: &str) -> Config {
        config_of(&self.file(name, redis))
    }

    /// Waits until the region has a cursor in each other region's log.
    pub async fn bridged(&self, name: &str) {
        let region = self.region(name);
        eventually("the bridge", async || {
            for (_, other) in self.paths.keys().filter(|(from, _)| *from == name) {
                for partition in 0..4 {
                    let cursor: Option<String> =
                        region.redis.run(&format!("HGET sky:{{{partition}}}:cursor {other}")).await;
                    if cursor.is_none() {
                        return false;
                    }
                }
            }
            true
        })
        .await;
    }

    /// Which node of the first region leads the link to the second.
    pub fn leader(&self, here: &str, there: &str) -> Option<usize> {
        let leads = |server: &Server| server.node().metrics.links.of(there).leader.get() == 1;
        self.region(here).nodes.iter().position(leads)
    }

    /// Waits until the first region has delivered what the second published, up to this number, each once and in
    /// order.
    pub async fn all_arrive(&self, here: &str, there: &str, last: u64) {
        let region = self.region(here);
        eventually("the last publication", async || region.numbers(CHANNEL, there).last() >= Some(&last))
            .await;
        assert!(
            region.numbers(CHANNEL, there).into_iter().eq(1..=last),
            "{:?}",
            region.numbers(CHANNEL, there)
        );
        let offsets: Vec<_> = region.delivered(CHANNEL).into_iter().filter(|one| one.0 == there).collect();
        for pair in offsets.windows(2) {
            assert!(pair[1].2 == pair[0].2 + 1 || pair[1].1 != pair[0].1 && pair[1].2 == 1, "{pair:?}");
        }
    }

    /// Publishes these numbers in a region.
    pub async fn publish(&self, name: &str, numbers: RangeInclusive<u64>) {
        for number in numbers {
            self.region(name).insist(CHANNEL, number, &number.to_string()).await;
        }
    }

    /// Publishes these numbers in the second region while the first cannot reach it, and trims its logs to so many
    /// entries before it can.
    pub async fn trim_while_cut(
        &self,
        here: &'static str,
        there: &'static str,
        numbers: RangeInclusive<u64>,
        kept: usize,
    ) {
        let path = self.path(here, there);
        path.cut();
        path.reset();
        self.publish(there, numbers).await;
        for partition in 0..4 {
            let trim = format!("XTRIM sky:{{{partition}}}:log MAXLEN {kept}");
            self.region(there).redis.run::<u64>(&trim).await;
        }
        path.heal();
    }

    /// Waits until the region has heard of so many publications.
    pub async fn deliveries(&self, name: &str, count: usize) {
        self.region(name).ear.deliveries(count).await;
    }
}

/// The configuration of a node of a region whose Redis is at `url`, and the names and Redis of other regions.
pub fn config_file<'a>(
    name: &str,
    url: &str,
    changes: &str,
    others: impl Iterator<Item = (&'a str, String)>,
) -> NamedTempFile {
    let mut text = format!(
        r#"
        [node]
        region = "{name}"
        [listen]
        public = "127.0.0.1:0"
        plain = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        [limits]
        requests_per_second = 100000
        publishes_per_second = 100000
        [auth]
        session_secret = "a secret that all nodes of all regions share"
        [broker]
        kind = "redis"
        url = "{url}"
        partitions = 4
        [drain]
        deadline = "2s"
        [channels.chat]
        history = 10000
        presence = false
        "#
    );
    text.push_str(changes);
    for (other, redis) in others {
        text.push_str(&format!(
            "\n[[regions]]\nname = \"{other}\"\nredis = \"{redis}\"\nurl = \"https://localhost:1\"\n"
        ));
    }
    let mut file = NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A configuration of [`config_file`], without presence.
pub fn config_of(file: &NamedTempFile) -> Config {
    Config::load(Some(file.path()), true, environment(&WITHOUT_PRESENCE)).unwrap()
}

/// A node of a configuration of [`config_file`] in a process of its own.
pub async fn process(file: &NamedTempFile, settings: &[(&str, &str)]) -> Process {
    let path = file.path().to_str().unwrap();
    Process::start(command(["serve", "--dev", "--config", path], settings.iter().copied())).await
}

/// Subscribes to what follows from now on.
pub async fn subscribe(client: &Client, channel: &str) -> Subscription {
    let mut subscription = soon(client.subscribe(channel, SubscribeOptions::default())).await.unwrap();
    let subscribed = soon(subscription.next()).await;
    assert!(matches!(subscribed, Some(ChannelEvent::Subscribed(_))), "{subscribed:?}");
    subscription
}

pub async fn ear(name: &str, redis: &RedisServer) -> Ear {
    Ear::with(settings_in(name, &redis.url())).await.unwrap()
}

impl Region {
    pub fn node(&self) -> &Server {
        &self.nodes[0]
    }

    pub async fn try_publish(
        &self,
        channel: &str,
        number: u64,
        key: Option<&str>,
    ) -> Result<Accepted, BrokerError> {
        let publish = Publish {
            channel: Channel::new(channel).unwrap(),
            data: Json::parse(number.to_string()).unwrap().into(),
            key: key.map(|key| Text::new(key).unwrap()),
            user: None,
        };
        soon(self.node().node().publish(publish)).await
    }

    pub async fn publish(&self, channel: &str, number: u64) -> Accepted {
        self.try_publish(channel, number, None).await.unwrap()
    }

    /// Publishes as a client does: again with its key, until it is accepted.
    pub async fn insist(&self, channel: &str, number: u64, key: &str) -> Accepted {
        let insisting = async {
            loop {
                match self.try_publish(channel, number, Some(key)).await {
                    Ok(accepted) => return accepted,
                    Err(BrokerError::Unavailable) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        soon(insisting).await
    }

    /// What was delivered here on a channel, in order.
    pub fn delivered(&self, channel: &str) -> Vec<Delivered> {
        let publications = self.ear.publications();
        let frames = publications.iter().map(|publication| publication.frame());
        frames
            .filter(|frame| &*frame.channel == channel)
            .map(|frame| {
                let data = format!("{:?}", frame.data);
                let number = data.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
                (frame.origin.to_string(), frame.epoch.to_string(), frame.offset, number)
            })
            .collect()
    }

    /// The numbers that were delivered on a channel from an origin, in order.
    pub fn numbers(&self, channel: &str, origin: &str) -> Vec<u64> {
        let delivered = self.delivered(channel);
        delivered.into_iter().filter(|one| one.0 == origin).map(|one| one.3).collect()
    }

    pub async fn client(&self, transport: TransportChoice) -> Client {
        connect(options(self.nodes.iter().map(url).collect(), transport)).await
    }
}
