//! Mistakes: each is told, with its place and what was meant.

use crate::loading::{NO_ENVIRONMENT, load, messages, refused_with, write};
use skywave::config::Config;
use std::path::Path;

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_key() {
    let file = write("[node]\nregion = \"eu\"\n\n[limits]\nsesions = 5\n");
    let error = Config::load(Some(file.path()), true, NO_ENVIRONMENT).unwrap_err();
    let expected =
        format!("{}:5: unknown key \"limits.sesions\"; did you mean \"sessions\"?", file.path().display());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn unknown_sections_and_keys_of_namespaces_and_regions_are_refused() {
    refused_with(load("[limit]\nsessions = 5\n", true), "unknown key \"limit\"; did you mean \"limits\"?");
    refused_with(
        load("[channels.chat]\nhistroy = 5\n", true),
        "unknown key \"channels.chat.histroy\"; did you mean \"history\"?",
    );
    refused_with(
        load("[[regions]]\nname = \"us\"\nuri = \"x\"\n", true),
        "unknown key \"regions[0].uri\"; did you mean \"url\"?",
    );
}

#[test]
fn an_unknown_key_that_resembles_none_is_answered_with_all_of_them() {
    refused_with(load("[drain]\ncolour = 5\n", true), "unknown key \"drain.colour\"; known are deadline");
}

#[test]
fn a_syntax_error_is_told_with_its_line() {
    let error = load("[node]\nregion = \"eu\n", true).unwrap_err();
    assert!(error.problems[0].place.to_string().ends_with(".toml:2"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/skywave.toml")), true, NO_ENVIRONMENT).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/skywave.toml: cannot read"), "{error}");
}

#[test]
fn wrong_types_and_values_out_of_range_are_told_with_their_lines_all_together() {
    let text = "[limits]\nsessions = \"many\"\nframe_bytes = 12\nconnect_timeout = \"5 seconds\"\n\
                [drain]\ndeadline = \"2h\"\n[channels.chat]\nallow = [\n\"subscribe\",\n\"fly\"]\n[log]\nlevel = \"inof\"\n";
    let error = load(text, true).unwrap_err();
    let lines: Vec<_> = error
        .problems
        .iter()
        .map(|problem| {
            let place = problem.place.to_string();
            let line = place.rsplit_once(':').unwrap().1;
            format!("{line}: {}", problem.message)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "2: limits.sessions: expected an integer, found a string",
            "3: limits.frame_bytes: must be within 1024 … 16777216",
            "4: limits.connect_timeout: expected a duration such as \"500ms\", \"30s\", \"10m\", \"1h30m\" or \"7d\"",
            "6: drain.deadline: must be within 0s … 1h",
            "10: channels.chat.allow: \"fly\": expected subscribe, publish, emit, presence or history",
            "12: log.level: \"inof\" is no level: off, error, warn, info, debug or trace",
        ]
    );
}

#[test]
fn every_kind_of_wrong_type_is_refused() {
    for (text, expected) in [
        ("limits = 5", "limits: expected a table, found an integer"),
        ("regions = 5", "regions: expected a list of tables, found an integer"),
        ("regions = [5]", "regions: expected a table, found an integer"),
        ("[node]\nid = 5", "node.id: expected a string, found an integer"),
        ("[auth]\nanonymous = \"yes\"", "auth.anonymous: expected true or false, found a string"),
        ("[auth]\naudience = 5", "auth.audience: expected a list of strings, found an integer"),
        ("[auth]\naudience = [5]", "auth.audience: expected a string, found an integer"),
        ("[limits]\nsessions = 1.5", "limits.sessions: expected an integer, found a float"),
        ("[limits]\nsessions = -1", "limits.sessions: must be within"),
        ("[channels]\nchat = 5", "channels.chat: expected a table, found an integer"),
        ("[broker]\nkind = \"kafka\"", "broker.kind: expected \"memory\" or \"redis\""),
        ("[listen]\npublic = \"4433\"", "listen.public: expected an address"),
        ("[channels.\"No Space\"]", "a namespace is"),
        ("[node]\nurl = \"http://example.com\"", "node.url: expected https://HOST"),
        ("[node]\nurl = \"https://example.com/path?token=a\"", "node.url: expected https://HOST"),
        ("[node]\nurl = \"https://user@example.com\"", "node.url: expected https://HOST"),
        ("[auth]\nallowed_origins = [\"app.example.com\"]", "expected the origin of a page"),
        ("[auth]\nalgorithms = [\"none\"]", "expected HS256, RS256, ES256 or EdDSA"),
        ("[auth]\nalgorithms = []", "must name at least one"),
        ("[auth]\njwks_url = \"http://example.com/keys\"", "plain http from loopback only"),
        ("[heartbeat]\nmin = \"2m\"\nmax = \"1m\"", "min must not be longer than max"),
        ("[heartbeat]\nmax = \"20s\"\ntcp_start = \"30s\"", "tcp_start: must lie between min and max"),
        ("[limits]\noutbox_bytes = 4096", "outbox_bytes must not be less than frame_bytes"),
        (
            "[broker]\nkind = \"redis\"\nurl = \"redis://a\"\nca = \"ca.pem\"",
            "broker.ca: is of no use without TLS",
        ),
        (
            "[[regions]]\nredis = \"redis+sentinel://a/main\"\nca = \"ca.pem\"",
            "regions[0].ca: is of no use without TLS",
        ),
    ] {
        let messages = messages(load(text, true));
        assert!(messages.iter().any(|message| message.contains(expected)), "{text:?}: {messages:?}");
    }
}
