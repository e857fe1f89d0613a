//! Sessions that stand for longer than a resume secret is good.

use crate::{process, session::Session};
use serde_json::json;
use skywave_testing::{RedisServer, clock};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stands_for_days_can_be_resumed_still() {
    let (redis, directory) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    let node = process::start_with(&redis, "a", &clock::in_directory(directory.path())).await;
    let mut session = Session::try_at(node.plain(), json!({"attempt": 1})).await;
    session.connected = session.receive("connected").await;
    let first = session.connected["session"].clone();
    for (attempt, hours) in [(2, 13), (3, 26), (4, 39)] {
        std::fs::write(directory.path().join("clock"), format!("+{hours}h")).unwrap();
        // Whatever wakes it.
        session.send(json!({"history": {"id": 7, "channel": "chat:1", "limit": 1}})).await;
        assert_eq!(session.receive("drain").await["url"], node.url());
        let resume = json!({"resume": session.connected["resume"], "attempt": attempt});
        session = Session::try_at(node.plain(), resume).await;
        session.connected = session.receive("connected").await;
        assert_eq!((&session.connected["session"], &session.connected["resumed"]), (&first, &json!(true)));
    }
}
