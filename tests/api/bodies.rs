//! Requests that make no sense, and what their sender is told.

use crate::world::World;
use reqwest::{Method, header};
use serde_json::{Value, json};

#[tokio::test]
async fn a_misspelt_field_is_named() {
    let world = World::new().await;
    let misspelt = [
        ("publish", json!({"channel": "chat:1", "data": 1, "kye": "x"}), "kye"),
        ("broadcast", json!({"channels": ["chat:1"], "data": 1, "chanels": []}), "chanels"),
        ("history", json!({"channel": "chat:1", "limt": 1}), "limt"),
        ("presence", json!({"channel": "chat:1", "limit": 1}), "limit"),
        ("channels", json!({"patern": "chat:*"}), "patern"),
        ("sessions", json!({"usr": "alice"}), "usr"),
        ("disconnect", json!({"user": "alice", "cod": 3504}), "cod"),
        ("drain", json!({"deadline": "1s"}), "deadline"),
        ("info", json!({"verbose": true}), "verbose"),
    ];
    for (command, body, field) in misspelt {
        let message = world.post(command, body).await.failure(400, "bad_request");
        assert!(message.contains(&format!("unknown field `{field}`")), "{message}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let world = World::new().await;
    for body in
        ["", "{", "null", "[\"chat:1\"]", "{} {}", "{\"channel\":\"chat:1\",\"channel\":\"chat:2\"}", "\u{0}"]
    {
        world.send(world.posting("presence", body)).await.failure(400, "bad_request");
    }
    world
        .send(world.posting("presence", b"{\"channel\":\"chat:\xff\"}".to_vec()))
        .await
        .failure(400, "bad_request");
}

#[tokio::test]
async fn a_value_out_of_bounds_is_refused() {
    let world = World::new().await;
    let channels: Vec<_> = (0..1001).map(|number| format!("chat:{number}")).collect();
    let refused = [
        ("publish", json!({"channel": "chat", "data": 1})),
        ("publish", json!({"channel": "chat:1"})),
        ("publish", json!({"channel": "chat:1", "data": 1, "data_b64": "AQ=="})),
        ("publish", json!({"channel": "chat:1", "data_b64": "?"})),
        ("publish", json!({"channel": "chat:1", "data": 1, "key": "k".repeat(65)})),
        ("publish", json!({"channel": "chat:1", "data": 1, "user": "u".repeat(255)})),
        ("broadcast", json!({"channels": [], "data": 1})),
        ("broadcast", json!({"channels": channels, "data": 1})),
        ("broadcast", json!({"channels": ["chat:1", "chat:1"], "data": 1})),
        ("broadcast", json!({"channels": ["chat:1"]})),
        ("history", json!({"channel": "chat:1", "limit": 0})),
        ("history", json!({"channel": "chat:1", "limit": 1001})),
        ("history", json!({"channel": "chat:1", "after": {}, "before": "x"})),
        ("history", json!({"channel": "chat:1", "before": "x"})),
        ("channels", json!({"pattern": ""})),
        ("channels", json!({"pattern": "x".repeat(256)})),
        ("channels", json!({"limit": 1001})),
        ("sessions", json!({"limit": 0})),
        ("disconnect", json!({})),
        ("disconnect", json!({"user": "alice", "session": "x"})),
        ("disconnect", json!({"user": "alice", "code": 1000})),
        ("disconnect", json!({"user": "alice", "code": 3504, "reason": "drain"})),
    ];
    for (command, body) in refused {
        world.post(command, body.clone()).await.failure(400, "bad_request");
    }
}

#[tokio::test]
async fn json_nested_deeper_than_a_frame_may_be_is_refused() {
    let world = World::new().await;
    let nested = |levels: usize| {
        format!("{{\"channel\":\"chat:1\",\"data\":{}{}}}", "[".repeat(levels), "]".repeat(levels))
    };
    world.send(world.posting("publish", nested(100))).await.result();
    for levels in [101, 20_000] {
        world.send(world.posting("publish", nested(levels))).await.failure(400, "bad_request");
    }
}

#[tokio::test]
async fn a_body_or_a_payload_that_is_too_large_is_refused() {
    let world = World::with(&[("LIMITS__FRAME_BYTES", "1024")]).await;
    let text = |bytes: usize| Value::from("x".repeat(bytes));
    world.call("publish", json!({"channel": "chat:1", "data": text(900)})).await;
    let refused = [
        ("publish", json!({"channel": "chat:1", "data": text(1100)})),
        ("broadcast", json!({"channels": ["chat:1"], "data": text(1100)})),
        ("broadcast", json!({"channels": ["chat:1"], "data": text(600_000)})),
        ("presence", json!({"channel": text(20_000)})),
        ("info", json!({"x": text(5_000_000)})),
    ];
    for (command, body) in refused {
        // One that is far too large may find the connection closed before all of it was sent.
        match world.posting(command, body.to_string()).send().await {
            Ok(response) => assert_eq!(response.status(), 413, "{command}"),
            Err(error) => assert!(command == "info" && error.is_request(), "{command}: {error:?}"),
        }
    }
    let announced = world.posting("publish", vec![b' '; 1025]);
    world.send(announced).await.failure(413, "limit_reached");
}

#[tokio::test]
async fn what_is_not_there_is_404_and_another_method_405() {
    let world = World::new().await;
    for path in ["/api/v1/nothing", "/api/v2/info", "/api/v1/publish/", "/nothing"] {
        world.get(path).await.failure(404, "bad_request");
    }
    for (method, path) in
        [(Method::GET, "/api/v1/info"), (Method::PUT, "/api/v1/publish"), (Method::POST, "/metrics")]
    {
        let answer = world.send(world.request(method, path)).await;
        answer.failure(405, "bad_request");
        assert!(answer.headers.contains_key(header::ALLOW), "{answer:?}");
    }
}
