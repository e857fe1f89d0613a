//! Keys that the environment sets.

use crate::loading::{load_environment, refused_with, write};
use skywave::{config::Config, rights::Right};
use std::time::Duration;

#[test]
fn any_key_can_be_set_by_the_environment() {
    let config = load_environment(&[
        ("SKYWAVE_LISTEN__PUBLIC", "127.0.0.1:0"),
        ("SKYWAVE_LIMITS__SESSIONS", "7"),
        ("SKYWAVE_AUTH__ANONYMOUS", "true"),
        ("SKYWAVE_AUTH__AUDIENCE", "one, two"),
        ("SKYWAVE_AUTH__ISSUER", "[\"a,b\"]"),
        ("SKYWAVE_CHANNELS__CHAT__HISTORY", "50"),
        ("SKYWAVE_CHANNELS__CHAT__ALLOW", "subscribe,publish"),
        ("SKYWAVE_CHANNELS__MY_OWN__HISTORY_AGE", "1h"),
        ("SKYWAVE_CONFIG", "of no concern"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(config.listen.public.unwrap().to_string(), "127.0.0.1:0");
    assert_eq!(config.limits.sessions, 7);
    assert!(config.auth.anonymous);
    assert_eq!(config.auth.audiences, ["one", "two"]);
    assert_eq!(config.auth.issuers, ["a,b"]);
    let chat = config.namespace("chat").unwrap();
    assert_eq!(chat.history, 50);
    assert_eq!(chat.allow, [Right::Subscribe, Right::Publish].into_iter().collect());
    assert_eq!(config.namespace("my_own").unwrap().history_age, Duration::from_secs(3_600));
}

#[test]
fn the_environment_overrides_the_file() {
    let file = write("[limits]\nsessions = 5\nframe_bytes = 2048\n");
    let config = Config::load(Some(file.path()), true, [("SKYWAVE_LIMITS__SESSIONS", "7")]).unwrap();
    assert_eq!((config.limits.sessions, config.limits.frame_bytes), (7, 2_048));
}

#[test]
fn problems_of_the_environment_name_the_variable() {
    let load = |name, value| Config::load(None, true, [(name, value)]).unwrap_err().to_string();
    assert_eq!(
        load("SKYWAVE_LIMITS__SESIONS", "7"),
        "SKYWAVE_LIMITS__SESIONS: unknown key \"limits.sesions\"; did you mean \"sessions\"?"
    );
    assert_eq!(
        load("SKYWAVE_LIMIT__SESSIONS", "7"),
        "SKYWAVE_LIMIT__SESSIONS: unknown key \"limit\"; did you mean \"limits\"?"
    );
    assert_eq!(
        load("SKYWAVE_LIMITS__SESSIONS", "many"),
        "SKYWAVE_LIMITS__SESSIONS: limits.sessions: expected an integer, found a string"
    );
    assert_eq!(
        load("SKYWAVE_AUTH__AUDIENCE", "[1]"),
        "SKYWAVE_AUTH__AUDIENCE: auth.audience: expected a list of strings"
    );
}

#[test]
fn a_variable_with_one_underscore_for_two_is_told_unless_it_is_something_elses() {
    let load = |variables: &[(&str, &str)]| Config::load(None, true, variables.iter().copied());
    let told = |name| load(&[(name, "7")]).unwrap_err().to_string();
    assert_eq!(
        told("SKYWAVE_LIMITS_SESSIONS"),
        "SKYWAVE_LIMITS_SESSIONS: has no effect: limits.sessions is set by SKYWAVE_LIMITS__SESSIONS"
    );
    let file = write("[channels.chat]\nhistory = 5\n");
    let chat = [("SKYWAVE_CHANNELS_CHAT_HISTORY", "7")];
    refused_with(Config::load(Some(file.path()), true, chat), "is set by SKYWAVE_CHANNELS__CHAT__HISTORY");
    // What a manifest makes the right one of.
    load(&[("SKYWAVE_NODE_ID", "eu-1"), ("SKYWAVE_NODE__ID", "eu-1")]).unwrap();
    load(&[("SKYWAVE_LOG", "1"), ("SKYWAVE_NODE_SERVICE_HOST", "10.0.0.1"), ("SKYWAVE_PORT", "4433")])
        .unwrap();
}

#[test]
fn a_variable_of_regions_that_names_none_is_told() {
    let file =
        write("[[regions]]\nname = \"us\"\nredis = \"redis://us\"\nurl = \"https://us.example.com\"\n");
    let variables = [("SKYWAVE_REGIONS__URL", "https://us-2.example.com")];
    refused_with(
        Config::load(Some(file.path()), true, variables),
        "names no region: expected SKYWAVE_REGIONS__<NAME>__<KEY>",
    );
}
