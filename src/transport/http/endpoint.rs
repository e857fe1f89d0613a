//! What is answered on one HTTP connection: health checks, and requests for a session, which then runs beside it.

use super::{
    answer::{Answer, Rejection, text},
    turns::Newcomer,
    websocket::Upgrade,
};
use crate::node::Node;
use http::{HeaderValue, Method, Request, StatusCode, Version, header::CONNECTION};
use hyper::body::Incoming;
use skywave_protocol::CONNECT_PATH;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// For a proxy's checks of its backends, which reach no other port: whether the process answers, …
const HEALTH_PATH: &str = "/healthz";
/// … and whether it takes new sessions.
const READY_PATH: &str = "/readyz";

/// The node, as seen from one HTTP connection.
#[derive(Clone)]
pub(crate) struct Endpoint {
    node: Arc<Node>,
    address: SocketAddr,
    sessions: Arc<AtomicUsize>,
    /// Where each session needs a turn.
    newcomer: Option<Arc<Newcomer>>,
}

impl Endpoint {
    pub(crate) fn new(node: Arc<Node>, address: SocketAddr, newcomer: Option<Newcomer>) -> Self {
        Self { node, address, sessions: Arc::default(), newcomer: newcomer.map(Arc::new) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sessions that run over this HTTP connection, or are about to.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Answers a request; a good one becomes a session in the background.
    pub(crate) async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let path = self.node.config.node.path_below(request.uri().path());
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            match (path, self.node.cluster.unready()) {
                (HEALTH_PATH, _) => return text(StatusCode::OK, "ok\n"),
                (READY_PATH, None) => return text(StatusCode::OK, "ready\n"),
                (READY_PATH, Some(reason)) => return text(StatusCode::SERVICE_UNAVAILABLE, reason),
                _ => {}
            }
        }
        let asked = match path {
            CONNECT_PATH => Upgrade::asked_for(&request, &self.node),
            _ => Err(Rejection::new(StatusCode::NOT_FOUND, "sessions are at /v1/connect")),
        };
        let upgrade = match asked {
            Ok(upgrade) => upgrade,
            Err(rejection) => {
                self.refused(rejection.status.as_str());
                return rejection.into();
            }
        };
        if !self.takes_turn().await {
            return self.turned_away(request.version());
        }
        let upgrading = hyper::upgrade::on(&mut request);
        self.run(upgrade.begin(self.node.clone(), self.address, upgrading));
        upgrade.answer()
    }

    /// Runs a session once it has begun, if it does.
    fn run<S: Future<Output = ()> + Send + 'static>(
        &self,
        beginning: impl Future<Output = Option<S>> + Send + 'static,
    ) {
        let sessions = self.sessions.clone();
        sessions.fetch_add(1, Ordering::Relaxed);
        // Boxed: what the beginning needs is gone once the session runs.
        let beginning = Box::pin(beginning);
        tokio::spawn(async move {
            if let Some(serving) = beginning.await {
                serving.await;
            }
            sessions.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Waits for the turn of a session, where it needs one. `false`: too many came meanwhile.
    async fn takes_turn(&self) -> bool {
        match &self.newcomer {
            Some(newcomer) => newcomer.take_turn().await.is_ok(),
            None => true,
        }
    }

    fn turned_away(&self, version: Version) -> Answer {
        self.refused("handshake_rate");
        let mut answer: Answer =
            Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "too many come at once").into();
        if version < Version::HTTP_2 {
            // A proxy would keep it for others.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    fn refused(&self, reason: &str) {
        self.node.metrics.handshakes_refused.with_label_values(&[reason]).inc();
    }
}
