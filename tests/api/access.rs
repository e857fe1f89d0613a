//! Who gets an answer from the admin listener.

use crate::world::World;
use reqwest::{Method, header};
use serde_json::json;

const KEY: &str = "a-key-of-16-bytes-or-more";

#[tokio::test]
async fn with_a_key_configured_only_those_who_have_it_get_in() {
    let world = World::with(&[("AUTH__API_KEY", KEY)]).await;
    world.post("info", json!({})).await.failure(401, "unauthenticated");
    for wrong in ["", "a", &KEY[1..], "A-key-of-16-bytes-or-more", &format!("{KEY}x")] {
        let request = world.posting("info", "{}").header("X-API-Key", wrong);
        let refused = world.send(request).await;
        let message = refused.failure(401, "unauthenticated");
        assert!(!message.contains(KEY));
    }
    let refusals = &world.server.node().metrics.refusals;
    assert_eq!(refusals.with_label_values(&["the API key is missing or another one"]).get(), 6);
    let request = world.posting("info", "{}").header("x-api-key", KEY);
    world.send(request).await.result();
}

#[tokio::test]
async fn every_command_asks_for_the_key() {
    let world = World::with(&[("AUTH__API_KEY", KEY)]).await;
    for command in crate::description::COMMANDS {
        world.post(command, json!({})).await.failure(401, "unauthenticated");
    }
    assert!(!world.server.node().cluster.is_draining());
}

#[tokio::test]
async fn health_metrics_and_the_description_need_no_key() {
    let world = World::with(&[("AUTH__API_KEY", KEY)]).await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/openapi.json"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_page_whose_name_resolves_to_loopback_is_refused() {
    for settings in [&[][..], &[("AUTH__API_KEY", KEY)]] {
        let world = World::with(settings).await;
        let request = world.posting("info", "{}").header("X-API-Key", KEY);
        world.send(request.header(header::HOST, "rebound.example.com:8080")).await.failure(403, "forbidden");
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
            let request = world.posting("info", "{}").header("X-API-Key", KEY);
            world.send(request.header(header::HOST, host)).await.result();
        }
    }
}

#[tokio::test]
async fn the_demo_page_is_for_this_machine() {
    let world = World::new().await;
    assert_eq!(world.get("/").await.status, 200);
    let request = world.request(Method::GET, "/").header(header::HOST, "rebound.example.com:8080");
    world.send(request).await.failure(403, "forbidden");
}

#[tokio::test]
async fn a_monitor_may_call_the_node_by_any_name() {
    let world = World::new().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let request = world.request(Method::GET, path).header(header::HOST, "node-1.example.com");
        assert_eq!(world.send(request).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_a_form_on_a_foreign_page_can_send_is_refused() {
    let world = World::new().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let request =
            world.request(Method::POST, "/api/v1/drain").header(header::CONTENT_TYPE, kind).body("{}");
        world.send(request).await.failure(415, "bad_request");
    }
    world.send(world.request(Method::POST, "/api/v1/drain").body("{}")).await.failure(415, "bad_request");
    assert!(!world.server.node().cluster.is_draining());
}

#[tokio::test]
async fn the_content_type_may_have_parameters() {
    let world = World::new().await;
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        let request =
            world.request(Method::POST, "/api/v1/info").header(header::CONTENT_TYPE, kind).body("{}");
        world.send(request).await.result();
    }
}
