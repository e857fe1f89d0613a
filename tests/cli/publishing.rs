//! `pub` publishes, and says at which position.

use crate::world::{Node, refused, run, stderr, stdout, token};
use serde_json::Value;

/// The readable position's `offset=`.
fn offset(line: &str) -> &str {
    line.split_once("offset=").unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_is_printed() {
    let node = Node::start().await;
    let readable = stdout(&node.run(&["pub", "chat:1", "1", "--insecure"]).await);
    let json = stdout(&node.run(&["pub", "chat:1", "-5", "--insecure", "--json"]).await);
    let json: Value = serde_json::from_str(&json).unwrap();
    let published = &json["published"];
    assert_eq!((&published["channel"], &published["offset"]), (&"chat:1".into(), &2.into()));
    let epoch = published["epoch"].as_str().unwrap();
    assert_eq!(readable, format!("origin=local epoch={epoch} offset=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gets_the_position_that_it_got_first() {
    let node = Node::start().await;
    let publish = ["pub", "chat:1", "paid", "--insecure", "--key", "order-7"];
    let first = stdout(&node.run(&publish).await);
    assert_eq!(stdout(&node.run(&publish).await), first);
    assert_eq!(offset(&stdout(&node.run(&publish[..4]).await)), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_stdin_is_published_as_it_comes() {
    let node = Node::start().await;
    let mut publisher = node.start_skywave(&["pub", "chat:1", "-", "--insecure"]);
    publisher.write("{\"n\":1}\n").await;
    assert_eq!(offset(&publisher.line().await), "1");
    publisher.write("two words\r\n\nwithout an end").await;
    publisher.end_input();
    let ended = publisher.end().await;
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 3), "{ended:?}");
    let history = ["sub", "chat:1", "--insecure", "--history", "4", "--count", "4", "--json"];
    let printed = stdout(&node.run(&history).await);
    let frames = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let data: Vec<_> = frames.filter_map(|frame| frame["publication"].get("data").cloned()).collect();
    let expected = [serde_json::json!({"n": 1}), "two words".into(), "".into(), "without an end".into()];
    assert_eq!(data, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_is_not_text_is_refused_by_its_line() {
    let node = Node::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"good\nbad \xff\nnever read\n").unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_skywave"));
    command.args(["pub", "chat:1", "-", "--insecure"]).env_clear().env("SKYWAVE_URL", node.url());
    let output = command.stdin(std::fs::File::open(file.path()).unwrap()).output();
    let output = skywave_testing::soon(output).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("line 2 of stdin is not UTF-8"), "{output:?}");
    assert_eq!(offset(String::from_utf8(output.stdout).unwrap().trim_end()), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_cannot_be_published_is_no_wrong_usage_as_those_before_it_were() {
    let node = Node::start().await;
    let mut publisher = node.start_skywave(&["pub", "chat:1", "-", "--insecure"]);
    publisher.write(&format!("good\n{}{}\n", "[".repeat(200), "]".repeat(200))).await;
    publisher.end_input();
    let ended = publisher.end().await;
    assert_eq!((ended.code, ended.stdout.len()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr.contains("line 2 of stdin"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_published_fails_with_code_and_reason() {
    let node = Node::secured().await;
    let output = node.run(&["pub", "doc:1", "x", "--insecure", "--token", &token()]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("not published: forbidden (103)"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_is_told() {
    let node = Node::secured().await;
    // Also where the variable for logs is set and empty.
    for variable in [None, Some(("RUST_LOG", ""))] {
        let (url, token) = (node.url(), token());
        let environment: Vec<(&str, &str)> = [("SKYWAVE_URL", &*url)].into_iter().chain(variable).collect();
        let output =
            run(&["pub", "doc:1", "x", "--event", "--insecure", "--token", &token], &environment).await;
        assert!(stderr(&output).contains("code=103"), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    for (arguments, expected) in [
        (&["pub", "no channel", "x"][..], "CHANNEL"),
        (&["pub", "chat:1"], "DATA"),
        (&["pub", "chat:1", &deep], "deeper than"),
        (&["pub", "chat:1", "-", "--key", "k"], "--key is for one publication"),
        (&["pub", "chat:1", "x", "--key", ""], "expected 1 … 64 bytes"),
        (&["pub", "chat:1", "x", "--slot", "s"], "--event"),
        (&["pub", "chat:1", "x", "--event", "--key", "k"], "cannot be used with"),
        (&["pub", "chat:1", "x", "--transport", "webtransport", "--url", "http://localhost"], "https://"),
        (&["drain", "--to", "http://elsewhere.example.com"], "expected https://HOST"),
        (&["drain", "--api-key", "of two\nlines"], "API key"),
        (&["sub", "chat:1", "--history", "1001"], "1..=1000"),
    ] {
        let told = refused(&run(arguments, &[]).await);
        assert!(told.contains(expected), "{expected:?} not in {told}");
    }
}
