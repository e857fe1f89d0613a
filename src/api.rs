//! The admin listener: the HTTP API for backends and operators, metrics and health.

mod access;
mod channels;
mod command;
mod drain;
mod failure;
mod limit;
mod operation;
mod publications;
mod sessions;
mod turns;

use crate::{node::Node, transport::sockets};
use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::Response,
    routing::get,
};
use command::command;
use failure::Failure;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use skywave_protocol::ErrorCode;
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::Instant,
};
use turns::Turns;

/// Connections at a time; further ones wait in the kernel. More than are kept between requests and have a command
/// together, so that health checks and metrics always find one.
const MAX_CONNECTIONS: usize = 2048;
/// So many are kept open between requests; where there are more, each ends with its next answer.
const MAX_KEPT_CONNECTIONS: usize = 256;
/// Commands that are done at a time; each may hold a whole body.
const MAX_COMMANDS: usize = 256;
/// Commands that wait for their turn, with nothing read but their heads.
const MAX_WAITING_COMMANDS: usize = 1280;
/// How long a request's head may take, and how long a connection may wait for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// A connection ends after so long, between two requests if it can.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// How long the last answer of a connection that has to end may take.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What every request of the admin listener can use.
#[derive(Clone)]
struct Api {
    node: Arc<Node>,
    /// When the node began to serve.
    started: Instant,
    turns: Turns,
}

/// Serves the admin interface, and `pages` beside it for requests of this machine, for the node's life. Ends with the
/// node, once what is under way is answered.
pub(crate) async fn listen(node: Arc<Node>, listener: TcpListener, pages: Router) {
    let turns = Turns::new(MAX_COMMANDS, MAX_WAITING_COMMANDS);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let keeping = Keeping { node: node.clone(), permits: permits.clone() };
    let router = router(Api { node: node.clone(), started: Instant::now(), turns }, pages)
        .layer(middleware::map_response_with_state(keeping, end_unless_kept));
    // Dropped with this future, and all connections with it.
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(&node, &listener, &permits, &router, &mut connections) => return,
        () = node.ends() => drop(listener),
    }
    while connections.join_next().await.is_some() {}
}

async fn accept(
    node: &Arc<Node>,
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    router: &Router,
    connections: &mut JoinSet<()>,
) {
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let (stream, address) = sockets::accept(listener).await;
        let (node, router) = (node.clone(), router.clone());
        connections.spawn(async move {
            serve(&node, router, stream, address).await;
            drop(permit);
        });
    }
}

async fn serve(node: &Node, router: Router, stream: TcpStream, address: SocketAddr) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let has_to_end = tokio::time::timeout(MAX_CONNECTION_AGE, node.ends());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = has_to_end => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_ANSWER_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "an admin connection failed");
    }
}

fn router(api: Api, pages: Router) -> Router {
    let keyed = middleware::from_fn_with_state(api.clone(), access::require_key);
    let local = middleware::from_fn_with_state(api.clone(), access::require_local_host);
    let commands = Router::new()
        .route("/api/v1/publish", command::<publications::Publish>())
        .route("/api/v1/broadcast", command::<publications::Broadcast>())
        .route("/api/v1/history", command::<publications::History>())
        .route("/api/v1/presence", command::<channels::Presence>())
        .route("/api/v1/channels", command::<channels::Channels>())
        .route("/api/v1/sessions", command::<sessions::Sessions>())
        .route("/api/v1/disconnect", command::<sessions::Disconnect>())
        .route("/api/v1/drain", command::<drain::Drain>())
        .route("/api/v1/info", command::<operation::Info>())
        .route_layer(keyed);
    commands
        .route("/api/v1/openapi.json", get(operation::openapi))
        .merge(pages.with_state(()))
        .route_layer(local)
        // Harmless to read under any name, and monitors use many.
        .route("/healthz", get(operation::healthz))
        .route("/readyz", get(operation::readyz))
        .route("/metrics", get(operation::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
}

/// What decides whether connections are kept for further requests.
#[derive(Clone)]
struct Keeping {
    node: Arc<Node>,
    permits: Arc<Semaphore>,
}

/// Ends the connection with this answer where too many are open to be kept: whoever keeps theirs for the next request
/// keeps nobody else out. And where the node is about to end: whoever has many requests makes the next ones elsewhere.
async fn end_unless_kept(
    State(Keeping { node, permits }): State<Keeping>,
    mut response: Response,
) -> Response {
    let open = MAX_CONNECTIONS - permits.available_permits();
    if open > MAX_KEPT_CONNECTIONS || node.cluster.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn not_found() -> Response {
    Failure::new(ErrorCode::BadRequest, "there is nothing at this path")
        .with_status(StatusCode::NOT_FOUND)
        .into()
}

async fn method_not_allowed() -> Response {
    Failure::new(ErrorCode::BadRequest, "this path takes another method")
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
        .into()
}
