//! Waiting in tests: for what comes, and never for ever.

use crate::server::PATIENCE;
use std::time::Duration;

/// Fails instead of hanging.
#[allow(dead_code, reason = "each test binary uses a part")]
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Waits for what no event tells.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
