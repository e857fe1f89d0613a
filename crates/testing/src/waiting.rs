//! Waiting in tests: for what comes, and never for ever.

use std::{panic::Location, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Nothing in a test takes so long unless it hangs, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How often is looked for what no event tells.
const PAUSE: Duration = Duration::from_millis(5);

/// What a future comes to; fails instead of hanging, and says where that is.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move { timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it takes too long: {caller}")) }
}

/// Waits for what no event tells.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} does not come true");
        sleep(PAUSE).await;
    }
}
