//! What each command of the API does.

use crate::world::{Session, World};
use serde_json::{Value, json};

#[tokio::test]
async fn a_publication_of_a_backend_reaches_a_subscriber() {
    let world = World::new().await;
    let mut subscriber = world.session(&["chat:1"]).await;
    let data = json!({"text": "hi", "big": 18_446_744_073_709_551_615u64});
    let published = world
        .call("publish", json!({"channel": "chat:1", "data": data, "key": "k-1", "user": "system"}))
        .await;
    assert_eq!((&published["origin"], &published["offset"]), (&json!("local"), &json!(1)));
    let publication = subscriber.receive("publication").await;
    for field in ["origin", "epoch", "offset"] {
        assert_eq!(publication[field], published[field], "{field}");
    }
    assert_eq!(publication["data"], data);
    assert_eq!((&publication["user"], &publication["key"]), (&json!("system"), &json!("k-1")));
}

#[tokio::test]
async fn null_and_bytes_are_payloads() {
    let world = World::new().await;
    let mut subscriber = world.session(&["chat:1"]).await;
    world.call("publish", json!({"channel": "chat:1", "data": null})).await;
    let publication = subscriber.receive("publication").await;
    assert_eq!(publication.get("data"), Some(&Value::Null));
    world.call("publish", json!({"channel": "chat:1", "data_b64": "AP8="})).await;
    let publication = subscriber.receive("publication").await;
    assert_eq!((publication.get("data"), &publication["data_b64"]), (None, &json!("AP8=")));
}

#[tokio::test]
async fn a_publish_that_is_repeated_with_its_key_has_one_effect() {
    let world = World::new().await;
    let body = json!({"channel": "chat:1", "data": 1, "key": "order-17"});
    let first = world.call("publish", body.clone()).await;
    assert_eq!(world.call("publish", body).await, first);
    let history = world.call("history", json!({"channel": "chat:1"})).await;
    assert_eq!(history["publications"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_unknown_namespace_is_404() {
    let world = World::new().await;
    for (command, body) in [
        ("publish", json!({"channel": "nowhere:1", "data": 1})),
        ("history", json!({"channel": "nowhere:1"})),
        ("presence", json!({"channel": "nowhere:1"})),
    ] {
        let message = world.post(command, body).await.failure(404, "unknown_namespace");
        assert!(message.contains("nowhere"), "{message}");
    }
}

#[tokio::test]
async fn a_broadcast_answers_for_each_channel() {
    let world = World::new().await;
    let mut subscribers = [world.session(&["chat:1"]).await, world.session_of("alice", &["@alice"]).await];
    let channels = json!(["chat:1", "nowhere:1", "no channel", "@alice"]);
    let answer = world.call("broadcast", json!({"channels": channels, "data": [1, 2], "key": "k"})).await;
    let results = answer["results"].as_array().unwrap();
    let names: Value = results.iter().map(|result| result["channel"].clone()).collect();
    assert_eq!(names, channels);
    assert_eq!((&results[0]["offset"], &results[3]["offset"]), (&json!(1), &json!(1)));
    assert_eq!(results[1]["error"]["reason"], "unknown_namespace");
    assert_eq!(results[2]["error"]["reason"], "bad_request");
    assert!(results[0].get("error").is_none() && results[1].get("offset").is_none());
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.receive("publication").await["data"], json!([1, 2]));
    }
}

#[tokio::test]
async fn a_broadcast_takes_a_thousand_channels() {
    let world = World::new().await;
    let channels: Vec<_> = (0..1000).map(|number| format!("chat:{number:0>250}")).collect();
    let answer = world.call("broadcast", json!({"channels": channels, "data": "x".repeat(60_000)})).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 1000);
    assert!(results.iter().all(|result| result["offset"] == 1));
}

#[tokio::test]
async fn history_is_read_forwards_from_a_position_and_backwards_by_cursor() {
    let world = World::new().await;
    let mut points = Vec::new();
    for number in 1..=5 {
        points.push(world.call("publish", json!({"channel": "chat:1", "data": number})).await);
    }
    let data = |page: &Value| -> Vec<Value> {
        page["publications"]
            .as_array()
            .unwrap()
            .iter()
            .map(|publication| publication["data"].clone())
            .collect()
    };
    let last = world.call("history", json!({"channel": "chat:1", "limit": 2})).await;
    assert_eq!(data(&last), [4, 5]);
    let before =
        world.call("history", json!({"channel": "chat:1", "limit": 3, "before": last["cursor"]})).await;
    assert_eq!(data(&before), [1, 2, 3]);
    assert!(before.get("cursor").is_none());
    let after = json!({"local": {"epoch": points[1]["epoch"], "offset": 2}});
    let page = world.call("history", json!({"channel": "chat:1", "limit": 2, "after": after})).await;
    assert_eq!(data(&page), [3, 4]);
}

#[tokio::test]
async fn presence_lists_who_is_there() {
    let world = World::new().await;
    let alice = world.session_of("alice", &["chat:1"]).await;
    let somebody = world.session(&["chat:1"]).await;
    let presence = world.call("presence", json!({"channel": "chat:1"})).await;
    assert_eq!(presence["count"], 2);
    let mut users: Vec<_> = presence["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| (member["session"].as_str().unwrap(), member.get("user").and_then(Value::as_str)))
        .collect();
    let mut expected = [(alice.id.as_str(), Some("alice")), (somebody.id.as_str(), None)];
    users.sort_unstable();
    expected.sort_unstable();
    assert_eq!(users, expected);
    let empty = world.call("presence", json!({"channel": "chat:2"})).await;
    assert_eq!(empty, json!({"count": 0, "members": []}));
}

#[tokio::test]
async fn presence_of_a_namespace_without_it_is_not_available() {
    let world = World::new().await;
    world.post("presence", json!({"channel": "feed:1"})).await.failure(409, "not_available");
}

#[tokio::test]
async fn channels_are_listed_by_their_subscribers() {
    let world = World::new().await;
    let _sessions = [
        world.session(&["chat:a", "chat:b", "chat:b:c", "feed:a"]).await,
        world.session(&["chat:b", "chat:b:c", "feed:a"]).await,
        world.session(&["chat:b"]).await,
    ];
    let all = world.call("channels", json!({})).await;
    let expected = json!([
        {"channel": "chat:b", "subscribers": 3},
        {"channel": "chat:b:c", "subscribers": 2},
        {"channel": "feed:a", "subscribers": 2},
        {"channel": "chat:a", "subscribers": 1},
    ]);
    assert_eq!(all, json!({"count": 4, "channels": expected}));
    let first = world.call("channels", json!({"limit": 1})).await;
    assert_eq!(first, json!({"count": 4, "channels": [expected[0]]}));
    let parts = world.call("channels", json!({"pattern": "chat:*"})).await;
    assert_eq!(parts, json!({"count": 2, "channels": [expected[0], expected[3]]}));
    let prefixed = world.call("channels", json!({"prefix": "chat:b"})).await;
    assert_eq!(prefixed, json!({"count": 2, "channels": [expected[0], expected[1]]}));
    let both = world.call("channels", json!({"prefix": "feed", "pattern": "**:a"})).await;
    assert_eq!(both, json!({"count": 1, "channels": [expected[2]]}));
}

#[tokio::test]
async fn sessions_are_listed_in_pages_and_by_user() {
    let world = World::new().await;
    let mut sessions = Vec::new();
    for user in ["alice", "alice", "bob"] {
        sessions.push(world.session_of(user, &[]).await);
    }
    let alices = world.call("sessions", json!({"user": "alice"})).await;
    assert_eq!(alices["count"], 2);
    let listed = &alices["sessions"][0];
    assert_eq!((&listed["user"], &listed["transport"]), (&json!("alice"), &json!("websocket")));
    assert!(listed["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(listed["connected_at_ms"].as_u64().unwrap() > 1_700_000_000_000);

    let bob = world.call("sessions", json!({"session": sessions[2].id})).await;
    assert_eq!((&bob["count"], &bob["sessions"][0]["user"]), (&json!(1), &json!("bob")));
    assert_eq!(world.call("sessions", json!({"user": "carol"})).await, json!({"count": 0, "sessions": []}));

    let mut ids: Vec<_> = sessions.iter().map(|session| session.id.clone()).collect();
    ids.sort_unstable();
    let first = world.call("sessions", json!({"limit": 2})).await;
    let second = world.call("sessions", json!({"limit": 2, "after": ids[1]})).await;
    assert_eq!((&first["count"], &second["count"]), (&json!(3), &json!(3)));
    let pages = [&first["sessions"][0], &first["sessions"][1], &second["sessions"][0]];
    assert_eq!(pages.map(|listed| listed["session"].as_str().unwrap()).to_vec(), ids);
    assert_eq!(second["sessions"].as_array().unwrap().len(), 1);
}

async fn assert_disconnected(session: &mut Session, code: u16, reason: &str) {
    let disconnect = session.receive("disconnect").await;
    let reconnect = code < 3500;
    assert_eq!(disconnect, json!({"code": code, "reason": reason, "reconnect": reconnect}));
    assert_eq!(session.close_code().await, code);
}

#[tokio::test]
async fn all_sessions_of_a_user_are_disconnected() {
    let world = World::new().await;
    let mut alices = [world.session_of("alice", &["chat:1"]).await, world.session_of("alice", &[]).await];
    let mut bob = world.session_of("bob", &["chat:1"]).await;
    let answer = world.call("disconnect", json!({"user": "alice"})).await;
    assert_eq!(answer, json!({"disconnected": 2}));
    for alice in &mut alices {
        assert_disconnected(alice, 3504, "disconnected").await;
    }
    world.call("publish", json!({"channel": "chat:1", "data": 1})).await;
    bob.receive("publication").await;
}

#[tokio::test]
async fn one_session_is_disconnected_with_the_code_that_is_asked_for() {
    let world = World::new().await;
    let mut first = world.session_of("alice", &[]).await;
    let mut second = world.session_of("alice", &[]).await;
    for (session, wanted) in [(&mut first, json!({"code": 3000})), (&mut second, json!({"reason": "drain"}))]
    {
        let mut body = wanted;
        body["session"] = session.id.as_str().into();
        assert_eq!(world.call("disconnect", body).await, json!({"disconnected": 1}));
        assert_disconnected(session, 3000, "drain").await;
    }
}

#[tokio::test]
async fn to_disconnect_nobody_is_no_failure() {
    let world = World::new().await;
    for body in [json!({"user": "nobody"}), json!({"session": "nobody"})] {
        assert_eq!(world.call("disconnect", body).await, json!({"disconnected": 0}));
    }
}
