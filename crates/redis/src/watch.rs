//! Looks whose a Redis is, again and again.

use crate::{
    commands::Commands,
    errors::CallError,
    ownership::{Inscription, Ownership},
    request::Request,
};
use futures_util::future::try_join;
use std::{sync::Arc, time::Duration};

/// How often a node looks whose a Redis is. In its own one it puts the name in where there is none.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The same while it cannot be used.
const IMPATIENT_INTERVAL: Duration = Duration::from_millis(250);

/// Looks whose the Redis is again and again, for as long as it is polled.
pub(crate) async fn watch(ownership: Arc<Ownership>, commands: Commands) {
    loop {
        let interval = if ownership.is_recognized() { LOOK_INTERVAL } else { IMPATIENT_INTERVAL };
        tokio::time::sleep(interval).await;
        match look(&ownership, &commands).await {
            Ok(found) if ownership.is_forgotten(&found) => {}
            Ok(found) => drop(ownership.recognize(&found)),
            // Those who connect look as well.
            Err(error) => tracing::debug!(%error, "it cannot be looked whose a Redis is"),
        }
        ownership.tell();
    }
}

async fn look(ownership: &Ownership, commands: &Commands) -> Result<Inscription, CallError> {
    let found = ask(ownership, commands).await?;
    if !ownership.is_to_be_entered(&found) {
        return Ok(found);
    }
    for (key, value) in ownership.entries() {
        commands.call_unrecognized(Request::command(["SET", &key, &value, "NX"])).await?;
    }
    ask(ownership, commands).await
}

async fn ask(ownership: &Ownership, commands: &Commands) -> Result<Inscription, CallError> {
    let get = |key: String| commands.call_unrecognized(Request::command(["GET", &key]));
    let [partitions, region] = ownership.questions().map(get);
    let (partitions, region) = try_join(partitions, region).await?;
    Inscription::read(partitions, region).map_err(|error| {
        tracing::warn!(%error, "what says whose a Redis is makes no sense");
        CallError::Refused
    })
}
