//! `doctor` tells how a node can be reached, and its exit code says it to scripts.

use crate::world::{Node, run, token};
use serde_json::Value;
use skywave_testing::{Port, Relay};
use std::process::Output;

/// What is printed, whatever the exit code is.
fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The mark of a check: `✓`, `✗` or `–`.
fn mark(report: &str, check: &str) -> char {
    let is_it = |line: &&str| line.chars().skip(2).collect::<String>().split(' ').next() == Some(check);
    let line = report.lines().find(is_it).unwrap_or_else(|| panic!("{check} is not in {report}"));
    line.chars().next().unwrap()
}

fn marks<const N: usize>(report: &str, checks: [&str; N]) -> String {
    checks.iter().map(|check| mark(report, check)).collect()
}

const TRANSPORTS: [&str; 4] = ["udp", "webtransport", "websocket", "websocket_http2"];

#[tokio::test(flavor = "multi_thread")]
async fn all_is_good_when_both_transports_work() {
    let node = Node::start().await;
    let output = node.run(&["doctor", "--insecure"]).await;
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(marks(&report, TRANSPORTS), "✓✓✓✓", "{report}");
    assert_eq!(marks(&report, ["address", "tcp", "certificate", "clock", "node"]), "✓✓✓✓✓", "{report}");
    assert!(report.contains(&node.server.certificate_sha256().unwrap()), "{report}");
    assert!(report.ends_with("Both transports work.\n"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_holds_all_that_was_found() {
    let node = Node::secured().await;
    let digest = node.server.certificate_sha256().unwrap();
    let arguments = ["doctor", &node.url(), "--json", "--certificate-sha256", &digest, "--token", &token()];
    let output = run(&arguments, &[]).await;
    let report: Value = serde_json::from_str(&printed(&output)).unwrap();
    assert_eq!((output.status.code(), &report["verdict"]), (Some(0), &"both".into()), "{report}");
    for transport in ["webtransport", "websocket", "websocket_http2"] {
        let times = &report["transports"][transport];
        assert!(times["connect_ms"].as_f64().unwrap() <= times["session_ms"].as_f64().unwrap(), "{times}");
        assert_eq!(times["round_trips_ms"].as_array().unwrap().len(), 5, "{times}");
    }
    assert_eq!(report["certificate"]["sha256"], digest.as_str());
    assert_eq!(report["certificate"]["names"][0], "localhost");
    assert!(report["clock_offset_ms"].as_i64().unwrap().abs() < 5_000, "{report}");
    let said = &report["node"];
    assert_eq!((&said["region"], &said["user"]), (&"local".into(), &"alice".into()));
    assert_eq!(said["limits"]["frame_bytes"], 65_536);
    assert!(!printed(&output).contains(&token()));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_fallback_works_where_udp_is_swallowed() {
    let node = Node::start().await;
    let relay = Relay::tcp_and_udp(node.server.public().unwrap().port()).await;
    relay.set(|weather| weather.udp = false);
    let output = run(&["doctor", &relay.url("https"), "--insecure"], &[]).await;
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(marks(&report, TRANSPORTS), "✗✗✓✓", "{report}");
    assert!(report.contains("no answer on UDP port") && report.contains("firewall"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_fallback_works_where_udp_is_not_forwarded() {
    let node = Node::start().await;
    let relay = Relay::tcp(node.server.public().unwrap().port()).await;
    let output = run(&["doctor", &relay.url("https"), "--insecure"], &[]).await;
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(marks(&report, TRANSPORTS), "✗✗✓✓", "{report}");
    assert!(report.contains("nothing listens on UDP port"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_listener_offers_the_fallback_alone() {
    let node = Node::start().await;
    let url = format!("http://{}", node.server.plain().unwrap());
    let output = run(&["doctor", &url], &[]).await;
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(marks(&report, TRANSPORTS), "––✓✓", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_works_where_nothing_listens() {
    let port = Port::free();
    let output = run(&["doctor", &format!("https://127.0.0.1:{}", port.number()), "--insecure"], &[]).await;
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(2), "{report}");
    assert_eq!(marks(&report, TRANSPORTS), "✗✗✗✗", "{report}");
    assert_eq!(marks(&report, ["tcp", "node"]), "✗–", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_is_shown_with_what_helps() {
    let node = Node::start().await;
    let output = node.run(&["doctor"]).await;
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(2), "{report}");
    assert_eq!(mark(&report, "certificate"), '✗', "{report}");
    // The packets came through, whatever they carried.
    assert_eq!(mark(&report, "udp"), '✓', "{report}");
    for expected in [
        &node.server.certificate_sha256().unwrap(),
        "--certificate-sha256 HEX",
        "--insecure",
        "UnknownIssuer",
    ] {
        assert!(report.contains(expected), "{expected} not in {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_wants_a_token_is_reached_all_the_same() {
    let node = Node::secured().await;
    let output = node.run(&["doctor", "--insecure"]).await;
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(marks(&report, TRANSPORTS), "✓✓✓✓", "{report}");
    assert_eq!(mark(&report, "node"), '✗', "{report}");
    assert!(
        report.contains("unauthenticated (3503): no token was given") && report.contains("SKYWAVE_TOKEN"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_that_of_the_transports_though_nobody_reads_the_report() {
    let node = Node::start().await;
    let (code, told) = node.start_skywave(&["doctor", "--insecure"]).close_output().end().await;
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn a_report_that_cannot_be_written_is_not_that_one_transport_works() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut doctor = std::process::Command::new(env!("CARGO_BIN_EXE_skywave"));
    doctor.args(["doctor", "https://127.0.0.1:1", "--insecure"]).env_clear().stdout(full);
    assert_eq!(doctor.output().unwrap().status.code(), Some(2));
}
