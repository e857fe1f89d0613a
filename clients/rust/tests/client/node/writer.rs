//! What an application publishes while a test goes on.

use super::json;
use skywave_client::{Client, Published, RequestError};
use tokio::task::JoinHandle;

/// Publishes `1` on `chat:1`.
pub fn publishes(client: &Client) -> JoinHandle<Result<Published, RequestError>> {
    let client = client.clone();
    tokio::spawn(async move { client.publish("chat:1", json("1")).await })
}
