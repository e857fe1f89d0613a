//! How `sub` and `pub` reach a node: address, token and trust.

use crate::world::{Node, refused, run, stderr, stdout, token};
use skywave_testing::Port;

const PUBLISH: [&str; 3] = ["pub", "chat:1", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn the_address_is_a_flag_or_a_variable_that_no_configuration_takes_for_its_own() {
    let node = Node::start().await;
    let (url, nowhere) = (node.url(), "https://nowhere.invalid");
    let by_flag = [&PUBLISH[..], &["--insecure", "--url", &url]].concat();
    stdout(&run(&by_flag, &[("SKYWAVE_URL", nowhere)]).await);
    stdout(&run(&[&PUBLISH[..], &["--insecure"]].concat(), &[("SKYWAVE_URL", &url)]).await);
    let environment = [("SKYWAVE_URL", nowhere), ("SKYWAVE_TOKEN", "x")];
    assert_eq!(stdout(&run(&["check", "--dev"], &environment).await), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_listener_is_reached_by_websocket() {
    let node = Node::start().await;
    let url = format!("http://{}", node.server.plain().unwrap());
    let output = run(&[&PUBLISH[..], &["--url", &url]].concat(), &[]).await;
    stdout(&output);
    assert!(stderr(&output).contains("connected over websocket"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_from_a_flag_a_file_or_the_environment_and_is_never_shown() {
    let node = Node::secured().await;
    let (url, token) = (node.url(), token());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{token}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let base = [&PUBLISH[..], &["--insecure"]].concat();
    for (more, variable) in [
        (&["--token", &token][..], None),
        (&["--token-file", path], Some(("SKYWAVE_TOKEN", "not this one"))),
        (&[], Some(("SKYWAVE_TOKEN", token.as_str()))),
    ] {
        let environment: Vec<_> =
            [("SKYWAVE_URL", url.as_str()), ("RUST_LOG", "trace")].into_iter().chain(variable).collect();
        let output = run(&[&base[..], more].concat(), &environment).await;
        stdout(&output);
        assert!(stderr(&output).contains(" as alice"), "{output:?}");
        assert!(!stderr(&output).contains(&token), "{output:?}");
    }
    let help = stdout(&run(&["pub", "--help"], &[("SKYWAVE_TOKEN", &token)]).await);
    assert!(help.contains("SKYWAVE_TOKEN") && !help.contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_wants_a_token_says_what_helps() {
    let node = Node::secured().await;
    let given = ["--token", "forged"];
    for (more, cause, expected) in [
        (&[][..], "refused: unauthenticated (3503): no token was given", "give it in SKYWAVE_TOKEN"),
        (&given[..], "refused: unauthenticated (3503): it is malformed", "does not accept this token"),
    ] {
        let output = node.run(&[&PUBLISH[..], &["--insecure"], more].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = stderr(&output);
        assert!(told.contains(cause) && told.contains(expected), "{told}");
        assert!(!told.contains("forged"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_certificate_names_the_flags_that_help() {
    let node = Node::start().await;
    for transport in ["auto", "webtransport", "websocket"] {
        let output = node.run(&[&PUBLISH[..], &["--transport", transport]].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = stderr(&output);
        assert!(told.contains("--certificate-sha256 HEX") && told.contains("--insecure"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_can_be_trusted_by_its_sha256_alone() {
    let node = Node::start().await;
    let right = node.server.certificate_sha256().unwrap();
    let upper = right.to_uppercase();
    let pairs: Vec<_> = upper.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    let with_colons = pairs.join(":");
    for transport in ["webtransport", "websocket"] {
        let base = [&PUBLISH[..], &["--transport", transport, "--certificate-sha256"]].concat();
        for digest in [&right, &with_colons] {
            stdout(&node.run(&[&base[..], &[digest]].concat()).await);
        }
        let wrong = node.run(&[&base[..], &[&"0".repeat(64)]].concat()).await;
        assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
        assert!(stderr(&wrong).contains("none of those given by --certificate-sha256"), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_address_a_token_or_a_digest_is_wrong_usage() {
    for (more, expected) in [
        (
            &["--url", "https://example.com", "--insecure"][..],
            "--insecure is only for a node on this machine",
        ),
        (&["--url", "ftp://localhost"], "is not the address of a node"),
        (&["--url", "localhost:4433"], "is not the address of a node"),
        (&["--certificate-sha256", "abc"], "64 hexadecimal digits"),
        (&["--token-file", "/nowhere/token"], "cannot read /nowhere/token"),
        (&["--transport", "pigeon"], "webtransport"),
    ] {
        for command in [&PUBLISH[..], &["sub", "chat:1"]] {
            let told = refused(&run(&[command, more].concat(), &[]).await);
            assert!(told.contains(expected), "{expected:?} not in {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_there_fails() {
    let port = Port::free();
    let url = format!("https://127.0.0.1:{}?key=hidden", port.number());
    let output = run(&[&PUBLISH[..], &["--insecure", "--url", &url]].concat(), &[]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = stderr(&output);
    assert!(
        told.contains("nothing listens on the UDP port") && told.contains("Connection refused"),
        "{told}"
    );
    assert!(told.contains("skywave doctor") && !told.contains("hidden"), "{told}");
}
