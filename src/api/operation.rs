//! What an operator or a machine asks of the node itself: health, metrics, its state, and to drain.

use super::{Api, command::Command, failure::Failure};
use crate::{
    cluster::directory::{NodeState, Record},
    node::Node,
    region::{
        Remote, Sharing,
        link::{Condition, LinkState},
    },
    transport,
};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use skywave_protocol::{ErrorCode, position::Origin};
use std::{collections::BTreeMap, sync::Arc};

/// The description of this API for machines (OpenAPI 3.1).
const OPENAPI: &str = include_str!("openapi.json");

/// `info`: the node's state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Info {}

#[derive(Serialize)]
pub(crate) struct InfoAnswer {
    node: Arc<str>,
    region: Origin,
    version: &'static str,
    uptime_ms: u64,
    draining: bool,
    /// By transport.
    sessions: BTreeMap<&'static str, usize>,
    /// Those with subscribers on this node.
    channels: usize,
    /// Sessions that were ordered to move and have not moved yet.
    moving: usize,
    /// The live nodes of the region, this one among them, by id.
    nodes: Vec<ListedNode>,
    /// The links to the other regions, by their names.
    links: Vec<ListedLink>,
}

#[derive(Serialize)]
struct ListedNode {
    node: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Arc<str>>,
    state: NodeState,
    sessions: usize,
    limit: usize,
    version: Arc<str>,
    started_ms: u64,
}

impl ListedNode {
    fn new(node: Arc<str>, record: Record) -> Self {
        let Record { url, state, sessions, limit, version, started_ms, .. } = record;
        Self { node, url, state, sessions, limit, version, started_ms }
    }
}

/// The live nodes of the region, as this one knows them.
fn nodes(node: &Node) -> Vec<ListedNode> {
    let peers = node.cluster.directory.peers();
    let peers = peers.iter().map(|peer| ListedNode::new(peer.id.clone(), peer.record.clone()));
    let mut nodes: Vec<_> =
        peers.chain([ListedNode::new(node.cluster.id.clone(), node.cluster.record())]).collect();
    nodes.sort_unstable_by(|one, other| one.node.cmp(&other.node));
    nodes
}

/// A link to another region, as this region knows it.
#[derive(Serialize)]
struct ListedLink {
    region: Origin,
    state: Condition,
    outbound: Condition,
    inbound: Condition,
    /// Whether the other region hears ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_heard: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    lag_ms: u64,
    lagging: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Arc<str>>,
    /// Why this node does not use the other region's Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl ListedLink {
    fn new(remote: &Remote, link: LinkState) -> Self {
        Self {
            region: remote.name.clone(),
            state: link.condition(),
            outbound: link.outbound.into(),
            inbound: link.inbound.into(),
            is_heard: link.is_heard,
            rtt_ms: link.srtt.map(|srtt| (srtt.as_secs_f64() * 100_000.0).round() / 100.0),
            lag_ms: u64::try_from(link.lag.as_millis()).unwrap_or(u64::MAX),
            lagging: link.lagging,
            leader: link.leader,
            refused: remote.stranger().map(|stranger| stranger.to_string()),
        }
    }
}

fn links(node: &Node) -> Vec<ListedLink> {
    let Sharing::WithRegion { regions, links } = &node.cluster.sharing else { return Vec::new() };
    let states = links.states();
    let states = states.borrow();
    let listed = |remote: &Remote| {
        let link = states.get(&remote.name).cloned().unwrap_or_default();
        ListedLink::new(remote, link)
    };
    let mut listed: Vec<_> = regions.remotes.iter().map(listed).collect();
    listed.sort_unstable_by(|one, other| one.region.cmp(&other.region));
    listed
}

impl Command for Info {
    type Answer = InfoAnswer;

    async fn run(self, api: &Api) -> Result<InfoAnswer, Failure> {
        let node = &api.node;
        let mut sessions = BTreeMap::from(transport::NAMES.map(|name| (name, 0)));
        node.sessions.each(|_, attached| *sessions.entry(attached.transport).or_default() += 1);
        Ok(InfoAnswer {
            node: node.cluster.id.clone(),
            region: node.cluster.region.clone(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_ms: api.started.elapsed().as_millis() as u64,
            draining: node.cluster.is_draining(),
            sessions,
            channels: node.hub.channel_count(),
            moving: node.cluster.moving.left(&node.sessions),
            nodes: nodes(node),
            links: links(node),
        })
    }
}

pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// The process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// The node takes new sessions.
pub(crate) async fn readyz(State(api): State<Api>) -> impl IntoResponse {
    match api.node.cluster.unready() {
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
        None => (StatusCode::OK, "ready"),
    }
}

pub(crate) async fn metrics(State(api): State<Api>) -> Response {
    match api.node.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            Failure::new(ErrorCode::Internal, "the metrics could not be written").into()
        }
    }
}
