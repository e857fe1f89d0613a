//! The admin listener: metrics and health.

use crate::node::Node;
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

/// Where the node's other listeners are.
#[derive(Debug, Clone)]
pub struct Places {
    pub public: Option<SocketAddr>,
    pub plain: Option<SocketAddr>,
    pub certificate_sha256: Option<String>,
}

/// Serves the admin interface for the node's life.
pub async fn listen(node: Arc<Node>, listener: TcpListener, _places: Places) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(node);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener ended");
    }
}

async fn ready(State(node): State<Arc<Node>>) -> impl IntoResponse {
    if node.is_draining() { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "ready") }
}

async fn metrics(State(node): State<Arc<Node>>) -> Result<String, (StatusCode, String)> {
    node.metrics.render().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
