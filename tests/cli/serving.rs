//! What a node that the binary runs tells its operator.

use crate::world::{Running, run};

#[tokio::test]
async fn why_a_token_is_refused_stands_in_the_log_and_nothing_of_the_token() {
    let places = ["PUBLIC", "PLAIN", "ADMIN"].map(|listener| format!("SKYWAVE_LISTEN__{listener}"));
    let environment = places.each_ref().map(|place| (place.as_str(), "127.0.0.1:0"));
    let mut node = Running::start(&["serve", "--dev"], &environment);
    let ready = node.line().await;
    let plain = ready.split(['=', ' ']).nth(4).unwrap();
    let arguments = ["sub", "chat:1", "--token", "nonsense", "--url", &format!("http://{plain}")];
    assert_eq!(run(&arguments, &[]).await.status.code(), Some(1));
    let line = node.told("a session was refused").await;
    assert!(line.contains("it is malformed") && !line.contains("nonsense"), "{line}");
}
