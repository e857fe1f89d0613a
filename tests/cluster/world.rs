//! Whole nodes on one Redis, clients of them, and requests to their admin listeners.

use futures_util::future::join_all;
use serde_json::{Value, json};
use skywave::{config::Config, redis::Request, server::Server};
use skywave_client::{Client, ClientOptions, TokenSource, TransportChoice};
use skywave_testing::{
    Port, RedisServer, eventually,
    node::{self, HMAC_SECRET, connect, options, token},
    soon,
};

/// Another region, as a node is told of it.
pub struct Other<'a> {
    pub name: &'a str,
    pub redis: &'a RedisServer,
    pub url: &'a str,
}

impl Other<'_> {
    fn table(&self) -> String {
        let Self { name, url, .. } = self;
        format!("[[regions]]\nname = \"{name}\"\nredis = \"{}\"\nurl = \"{url}\"\n", self.redis.url())
    }
}

/// A node of a region.
pub struct Node {
    pub server: Server,
    pub id: String,
    pub url: String,
}

impl Node {
    pub async fn start(redis: &RedisServer, id: &str) -> Self {
        Self::with(redis, id, &[]).await
    }

    /// A node with some keys set, as by environment: `LIMITS__SESSIONS`.
    pub async fn with(redis: &RedisServer, id: &str, settings: &[(&str, &str)]) -> Self {
        Self::under("", redis, id, settings).await
    }

    /// A node whose address has a path.
    pub async fn under(path: &str, redis: &RedisServer, id: &str, settings: &[(&str, &str)]) -> Self {
        // Its own until it listens there.
        let port = Port::free();
        Self::at(&(url_at(&port) + path), redis, id, settings, &[]).await
    }

    /// A node at an address, which may have a path, beside other regions.
    pub async fn at(
        url: &str,
        redis: &RedisServer,
        id: &str,
        settings: &[(&str, &str)],
        others: &[Other<'_>],
    ) -> Self {
        let (_, place) = url.split_once("https://localhost").unwrap();
        let port = place.split('/').next().unwrap();
        let place = format!("127.0.0.1{port}");
        let server = Server::start(config(redis, id, url, &place, settings, others)).await.unwrap();
        Self { server, id: id.to_owned(), url: url.to_owned() }
    }

    /// The result of a command of its HTTP API.
    pub async fn call(&self, command: &str, body: Value) -> Value {
        let (status, mut answer) = self.post(command, body).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"].take()
    }

    /// The status and the answer to a command of its HTTP API.
    pub async fn post(&self, command: &str, body: Value) -> (u16, Value) {
        let url = format!("http://{}/api/v1/{command}", self.server.admin().unwrap());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = http.post(url).header("content-type", "application/json").body(body.to_string());
        let response = soon(request.send()).await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&soon(response.text()).await.unwrap()).unwrap())
    }

    /// The ids of the nodes that it knows, itself among them.
    pub async fn knows(&self) -> Vec<String> {
        let info = self.call("info", json!({})).await;
        let nodes = info["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["node"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it knows these nodes and no others.
    pub async fn meets(&self, ids: &[&str]) {
        eventually(&format!("{} knows {ids:?}", self.id), async || self.knows().await == ids).await;
    }

    /// What it knows of another node's state.
    pub async fn state_of(&self, id: &str) -> String {
        let info = self.call("info", json!({})).await;
        let nodes = info["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["node"] == id);
        node.map_or("gone", |node| node["state"].as_str().unwrap()).to_owned()
    }

    /// What it answers to a balancer that asks whether to send clients to it.
    pub async fn readiness(&self) -> (u16, String) {
        let url = format!("http://{}/readyz", self.server.admin().unwrap());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = soon(http.get(url).send()).await.unwrap();
        (response.status().as_u16(), soon(response.text()).await.unwrap())
    }

    /// Waits until it reaches the Redis of every other region.
    pub async fn reaches_the_others(&self) {
        let remotes = self.server.node().cluster.sharing.remotes();
        assert!(!remotes.is_empty());
        let reached = async || remotes.iter().all(|remote| remote.redis.commands.is_available());
        eventually("the regions reach each other", reached).await;
    }

    /// Waits until each Redis has answered what it was asked so far: it does so in order.
    pub async fn has_claimed(&self) {
        let node = self.server.node();
        let sharing = &node.cluster.sharing;
        let others = sharing.remotes().iter().map(|remote| &remote.redis);
        for redis in sharing.redis().into_iter().chain(others) {
            soon(redis.commands.call(Request::command(["GET", "a"]))).await.unwrap();
        }
    }

    pub fn sessions(&self) -> usize {
        self.server.node().sessions.len()
    }
}

/// A node in each of these regions, which know each other, and the Redis of each.
pub async fn regions<const COUNT: usize>(
    names: [&str; COUNT],
    settings: &[(&str, &str)],
) -> [(RedisServer, Node); COUNT] {
    let redis = join_all(names.map(|_| RedisServer::durable())).await;
    let ports = names.map(|_| Port::free());
    let urls = ports.each_ref().map(url_at);
    let nodes = join_all((0..COUNT).map(async |own| {
        let others: Vec<_> = (0..COUNT)
            .filter(|other| *other != own)
            .map(|other| Other { name: names[other], redis: &redis[other], url: &urls[other] })
            .collect();
        let settings = [&[("NODE__REGION", names[own])], settings].concat();
        Node::at(&urls[own], &redis[own], &format!("{}-1", names[own]), &settings, &others).await
    }));
    let nodes = nodes.await;
    let started: Vec<_> = redis.into_iter().zip(nodes).collect();
    started.try_into().ok().unwrap()
}

/// The address of a node that listens on this port.
fn url_at(port: &Port) -> String {
    format!("https://localhost:{}", port.number())
}

/// The variables that configure a node.
pub fn settings(
    redis: &RedisServer,
    id: &str,
    url: &str,
    place: &str,
    more: &[(&str, &str)],
) -> Vec<(String, String)> {
    let redis = redis.url();
    let usual = [
        ("NODE__ID", id),
        ("NODE__URL", url),
        ("LISTEN__PUBLIC", place),
        ("AUTH__HMAC_SECRET", HMAC_SECRET),
        ("CHANNELS__CHAT__HISTORY", "10000"),
        ("DRAIN__DEADLINE", "10s"),
    ];
    node::environment(&[&node::WITHOUT_PRESENCE[..], &node::sharing(&redis), &usual, more].concat())
}

/// The configuration of a node.
pub fn config(
    redis: &RedisServer,
    id: &str,
    url: &str,
    place: &str,
    more: &[(&str, &str)],
    others: &[Other<'_>],
) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, others.iter().map(Other::table).collect::<String>()).unwrap();
    Config::load(Some(file.path()), true, settings(redis, id, url, place, more)).unwrap()
}

/// A client that knows these nodes; anonymous without a user.
pub async fn client(nodes: &[&Node], user: Option<&str>, transport: TransportChoice) -> Client {
    let urls = nodes.iter().map(|node| node.url.clone()).collect();
    let token = user.map_or(TokenSource::None, |user| TokenSource::fixed(token(user)));
    connect(ClientOptions { token, ..options(urls, transport) }).await
}
