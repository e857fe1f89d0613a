//! Who can reach a node, and who is let in.

use crate::loading::{SECRET, load, messages, refused_with};
use skywave::{config::Config, rights::Rights};

#[test]
fn a_node_that_would_be_open_to_anyone_is_refused_with_every_reason() {
    let messages = messages(load("[listen]\nadmin = \"0.0.0.0:8080\"\n", false));
    for expected in
        ["there is no key to check tokens with", "auth.api_key is missing", "certificate and key are missing"]
    {
        assert!(messages.iter().any(|message| message.contains(expected)), "{expected}: {messages:?}");
    }
}

#[test]
fn anonymous_sessions_without_any_key_are_let_in_where_that_is_written() {
    let text = "[auth]\nanonymous = true\n[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n\
                [channels.news]\nallow = [\"subscribe\"]\n";
    let config = load(text, false).unwrap();
    assert!(config.auth.anonymous && !config.auth.has_key());
}

#[test]
fn a_node_behind_a_balancer_needs_no_certificate() {
    let text =
        format!("[listen]\npublic = \"\"\nplain = \"0.0.0.0:8081\"\n[auth]\nhmac_secret = \"{SECRET}\"\n");
    let config = load(&text, false).unwrap();
    assert!(config.tls.is_none() && config.listen.public.is_none());
    let neither = text.replace("plain = \"0.0.0.0:8081\"", "");
    refused_with(load(&neither, false), "no client could connect");
}

#[test]
fn half_a_certificate_is_refused() {
    refused_with(load("[tls]\nkey = \"k.pem\"\n", true), "tls.certificate: is missing beside key");
}

#[test]
fn only_listed_pages_may_connect_and_clients_without_an_origin_always() {
    let config = load("[auth]\nallowed_origins = [\"https://App.example.com/\"]\n", true).unwrap();
    assert!(config.auth.allows_origin(Some("https://app.example.com")));
    assert!(!config.auth.allows_origin(Some("https://app.example.com.evil.com")));
    assert!(!config.auth.allows_origin(Some("http://app.example.com")));
    assert!(!config.auth.allows_origin(Some("null")));
    assert!(config.auth.allows_origin(None));
    let any = load("", true).unwrap();
    assert!(any.auth.allows_origin(Some("https://anywhere.example")));
}

#[test]
fn an_empty_list_opens_no_check_and_is_refused() {
    for (key, variable) in [
        ("audience", "SKYWAVE_AUTH__AUDIENCE"),
        ("issuer", "SKYWAVE_AUTH__ISSUER"),
        ("allowed_origins", "SKYWAVE_AUTH__ALLOWED_ORIGINS"),
        ("public_key", "SKYWAVE_AUTH__PUBLIC_KEY"),
        ("algorithms", "SKYWAVE_AUTH__ALGORITHMS"),
    ] {
        let expected = format!("auth.{key}: must name at least one");
        refused_with(load(&format!("[auth]\n{key} = []\n"), true), &expected);
        for empty in ["", " , ", "[]"] {
            refused_with(Config::load(None, true, [(variable, empty)]), &expected);
        }
        messages(load(&format!("[auth]\n{key} = \"\"\n"), true));
    }
}

#[test]
fn a_namespace_may_allow_nothing() {
    for config in [
        load("[channels.chat]\nallow = []\n", true),
        Config::load(None, true, [("SKYWAVE_CHANNELS__CHAT__ALLOW", "")]),
    ] {
        assert_eq!(config.unwrap().namespace("chat").unwrap().allow, Rights::NONE);
    }
}
