//! `sub` prints what happens on a channel.

use crate::world::{Node, Running, token};
use skywave_client::{Json, TransportKind};
use skywave_protocol::CloseCode;
use skywave_testing::{Relay, soon};

/// A subscriber that prints readable lines, once it is subscribed.
async fn subscriber(node: &Node, more: &[&str]) -> Running {
    let mut running = node.start_skywave(&[&["sub", "chat:1", "--insecure"], more].concat());
    running.told("subscribed to chat:1").await;
    running
}

async fn prints_what_is_published(kind: TransportKind) {
    let node = Node::start().await;
    let transport = ["--transport", kind.name()];
    let mut sub =
        node.start_skywave(&[&["sub", "chat:1", "--insecure", "--count", "2"], &transport[..]].concat());
    sub.told(&format!("connected over {kind} to node ")).await;
    sub.told("subscribed to chat:1").await;
    for data in ["{\"text\": \"hi\"}", "not JSON"] {
        let output = node.run(&[&["pub", "chat:1", data, "--insecure"], &transport[..]].concat()).await;
        assert!(output.status.success(), "{output:?}");
    }
    let ended = sub.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let [first, second] = &ended.stdout[..] else { panic!("{ended:?}") };
    let (time, first) = first.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(first, "local/1 - {\"text\": \"hi\"}");
    assert!(second.ends_with(" local/2 - \"not JSON\""), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_over_webtransport_is_printed() {
    prints_what_is_published(TransportKind::WebTransport).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_over_websocket_is_printed() {
    prints_what_is_published(TransportKind::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_the_protocols_frames_one_a_line() {
    let node = Node::start().await;
    let mut sub = node.start_skywave(&["sub", "chat:1", "--insecure", "--json", "--presence"]);
    let subscribed = &sub.json().await["subscribed"];
    assert_eq!((&subscribed["channel"], &subscribed["presence"]["count"]), (&"chat:1".into(), &1.into()));
    let data = "{\n\"lines\":\n2}";
    for arguments in
        [&["pub", "chat:1", data, "--key", "k1"][..], &["pub", "chat:1", "[1]", "--event", "--slot", "s"]]
    {
        assert!(node.run(&[arguments, &["--insecure"]].concat()).await.status.success());
    }
    let line = sub.json().await;
    let publication = &line["publication"];
    assert_eq!(publication["data"]["lines"], 2);
    assert_eq!((&publication["origin"], &publication["offset"]), (&"local".into(), &1.into()));
    assert_eq!(publication["key"], "k1");
    assert!(publication["epoch"].is_string() && publication["time_ms"].is_u64(), "{publication}");
    let line = sub.json().await;
    assert_eq!((&line["event"]["data"][0], &line["event"]["slot"]), (&1.into(), &"s".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_presence_are_printed_beside_publications() {
    let node = Node::start().await;
    let mut sub = subscriber(&node, &["--presence"]).await;
    assert!(sub.line().await.starts_with("presence 1 "));
    let other = node.client().await;
    let session = other.connected().unwrap().session.clone();
    let _staying = soon(other.subscribe("chat:1", Default::default())).await.unwrap();
    let changed = sub.line().await;
    // Changes are told in batches, and the subscriber's own arrival is one.
    assert!(changed.starts_with("presence 2 ") && changed.contains(&format!(" +{session}")), "{changed}");
    soon(other.emit("chat:1", Json::of(&[1, 2]).unwrap(), Some("cursor"))).await.unwrap();
    assert_eq!(sub.line().await, "event - cursor [1,2]");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_first() {
    let node = Node::start().await;
    let client = node.client().await;
    for number in 1..=3 {
        soon(client.publish("chat:1", Json::of(&number).unwrap())).await.unwrap();
    }
    let output = node.run(&["sub", "chat:1", "--insecure", "--history", "2", "--count", "2"]).await;
    let printed = crate::world::stdout(&output);
    let data: Vec<_> = printed.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(data, ["2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_during_a_break_is_printed_once_and_in_order() {
    let node = Node::start().await;
    let port = node.server.public().unwrap().port();
    let relay = Relay::tcp(port).await;
    let arguments = ["sub", "chat:1", "--insecure", "--transport", "websocket", "--count", "5"];
    let mut sub = Running::start(&arguments, &[("SKYWAVE_URL", &relay.url("https"))]);
    sub.told("subscribed to chat:1").await;
    let client = node.client().await;
    let publish = async |number: u32| {
        soon(client.publish("chat:1", Json::of(&number).unwrap())).await.unwrap();
    };
    publish(1).await;
    assert!(sub.line().await.ends_with(" local/1 - 1"));
    // Nobody listens there.
    relay.lead_to(1);
    sub.told("not connected: ").await;
    for number in 2..=4 {
        publish(number).await;
    }
    relay.lead_to(port);
    sub.told("resumed over websocket").await;
    publish(5).await;
    let ended = sub.end().await;
    let data: Vec<_> = ended.stdout.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!((ended.code, &data[..]), (Some(0), &["2", "3", "4", "5"][..]), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_well() {
    let node = Node::start().await;
    let sub = subscriber(&node, &[]).await;
    sub.interrupt();
    assert_eq!(sub.end().await.code, Some(0));
    while !node.server.node().sessions.is_empty() {
        soon(tokio::task::yield_now()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_told_to_although_nobody_reads_what_it_prints() {
    let node = Node::start().await;
    let client = node.client().await;
    for signal in ["-INT", "-TERM"] {
        let mut sub = subscriber(&node, &[]).await;
        for _ in 0..4 {
            soon(client.publish("chat:1", Json::of(&"x".repeat(60_000)).unwrap())).await.unwrap();
        }
        sub.is_stuck().await;
        sub.signal(signal);
        assert_eq!(sub.end_unread().await, Some(0), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_it_quietly() {
    let node = Node::start().await;
    let sub = subscriber(&node, &[]).await.close_output();
    let client = node.client().await;
    soon(client.publish("chat:1", Json::of(&1).unwrap())).await.unwrap();
    assert_eq!(sub.end().await, (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_channel_fails_with_code_and_reason() {
    let node = Node::secured().await;
    for (channel, expected) in [
        ("doc:1", "cannot subscribe to doc:1: forbidden (103)"),
        ("nowhere:1", "cannot subscribe to nowhere:1: unknown_namespace (102)"),
    ] {
        let arguments = ["sub", channel, "--insecure", "--token", &token()];
        let ended = node.start_skywave(&arguments).end().await;
        assert_eq!((ended.code, &ended.stdout[..]), (Some(1), &[][..]), "{ended:?}");
        assert!(ended.stderr.contains(expected), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_node_ends_for_good_fails_with_code_and_reason() {
    let node = Node::start().await;
    let sub = subscriber(&node, &[]).await;
    for (_, attached) in node.server.node().sessions.all() {
        attached.outbox.close(CloseCode::Disconnected);
    }
    let ended = sub.end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the session has ended: disconnected (3504)"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_published_can_command_the_terminal() {
    let node = Node::start().await;
    for flags in [&[][..], &["--json"]] {
        let history = ["sub", "chat:1", "--insecure", "--history", "1", "--count", "1"];
        // CSI 2 J, which clears the screen, in its one-character form, which JSON need not escape.
        let output = node.run(&["pub", "chat:1", "a\u{9b}2Jb", "--insecure"]).await;
        assert!(output.status.success(), "{output:?}");
        let printed = crate::world::stdout(&node.run(&[&history, flags].concat()).await);
        assert!(printed.contains("a\\u009b2Jb") && !printed.contains('\u{9b}'), "{printed}");
    }
}
