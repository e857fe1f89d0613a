//! What operators and their machines ask of a node.

use crate::world::{Session, World};
use reqwest::header;
use serde_json::json;

#[tokio::test]
async fn info_says_what_the_node_is_and_how_busy() {
    let world = World::with(&[("NODE__ID", "eu-1"), ("NODE__REGION", "eu")]).await;
    let _sessions = [world.session(&["chat:1", "chat:2"]).await, world.session(&["chat:1"]).await];
    let mut info = world.call("info", json!({})).await;
    assert!(info["uptime_ms"].take().is_u64());
    assert!(info["nodes"][0]["started_ms"].take().is_u64());
    let expected = json!({
        "node": "eu-1",
        "region": "eu",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": null,
        "draining": false,
        "sessions": {"websocket": 2, "webtransport": 0},
        "channels": 2,
        "moving": 0,
        "nodes": [{
            "node": "eu-1",
            "state": "ready",
            "sessions": 2,
            "limit": 100_000,
            "version": env!("CARGO_PKG_VERSION"),
            "started_ms": null,
        }],
        "links": [],
    });
    assert_eq!(info, expected);
}

#[tokio::test]
async fn a_drain_tells_sessions_to_move_and_takes_no_new_ones() {
    let world = World::with(&[("DRAIN__DEADLINE", "10s")]).await;
    let mut session = world.session(&[]).await;
    assert_eq!(world.get("/readyz").await.status, 200);
    assert_eq!(world.call("drain", json!({})).await, json!({"sessions": 1}));

    let drain = session.receive("drain").await;
    assert!(drain["after_ms"].as_u64().unwrap() <= 10_000);
    assert_eq!(world.get("/readyz").await.status, 503);
    assert_eq!(world.get("/healthz").await.status, 200);
    assert_eq!(world.call("info", json!({})).await["draining"], true);
    let mut late = Session::open(&world).await;
    late.send(json!({"connect": {"id": 1}})).await;
    assert_eq!(late.receive("disconnect").await["reason"], "drain");

    // To drain again changes nothing: nobody is told twice.
    assert_eq!(world.call("drain", json!({})).await, json!({"sessions": 1}));
    world.call("disconnect", json!({"session": session.id})).await;
    session.receive("disconnect").await;
}

#[tokio::test]
async fn metrics_are_in_the_text_format_of_prometheus() {
    let world = World::new().await;
    let _session = world.session(&["chat:1"]).await;
    world.call("publish", json!({"channel": "chat:1", "data": 1})).await;
    let answer = world.get("/metrics").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4");
    assert!(answer.body.lines().any(|line| line == "skywave_publications_total 1"), "{}", answer.body);
    assert!(answer.body.ends_with('\n'));
}

#[tokio::test]
async fn answers_are_not_kept_by_caches() {
    let world = World::new().await;
    for answer in [world.post("info", json!({})).await, world.post("info", json!({"x": 1})).await] {
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
