//! What an operator can rely on when configuring a node.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use skywave::auth::rights::{Right, Rights};
use skywave::config::{BrokerKind, Config, ConfigError, Isolated, ListenAddress, LogFormat, Order};

const EXAMPLE: &str = include_str!("../config/skywave.toml");
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NO_ENVIRONMENT: [(&str, &str); 0] = [];

/// The least that a node starts with.
const MINIMAL: [(&str, &str); 3] = [
    ("SKYWAVE_AUTH__HMAC_SECRET", SECRET),
    ("SKYWAVE_TLS__CERTIFICATE", "certificate.pem"),
    ("SKYWAVE_TLS__KEY", "key.pem"),
];

fn write(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, dev: bool) -> Result<Config, ConfigError> {
    Config::load(Some(write(text).path()), dev, NO_ENVIRONMENT)
}

/// Loads with what a node needs and, on top, the given variables.
fn load_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(None, false, MINIMAL.iter().chain(variables).copied())
}

fn messages(result: Result<Config, ConfigError>) -> Vec<String> {
    let error = result.expect_err("the configuration is wrong");
    error.problems.iter().map(|problem| problem.message.clone()).collect()
}

fn refused_with(result: Result<Config, ConfigError>, expected: &str) {
    let messages = messages(result);
    assert!(messages.iter().any(|message| message.contains(expected)), "{expected:?} not in {messages:#?}");
}

#[test]
fn dev_starts_alone_on_loopback_and_open_to_this_machine() {
    let config = Config::load(None, true, NO_ENVIRONMENT).unwrap();
    assert_eq!(config.listen.public, Some(ListenAddress::Localhost(4433)));
    assert_eq!(config.listen.plain.unwrap().to_string(), "127.0.0.1:8081");
    assert_eq!(config.listen.admin.unwrap().to_string(), "127.0.0.1:8080");
    assert!(
        [config.listen.public, config.listen.plain, config.listen.admin]
            .iter()
            .all(|address| address.unwrap().is_loopback())
    );
    assert_eq!(config.broker.kind, BrokerKind::Memory);
    assert!(config.auth.anonymous);
    assert!(config.auth.api_key.is_none());
    assert!(config.tls.is_none());
    let chat = config.namespace("chat").unwrap();
    assert_eq!((chat.history, chat.presence), (100, true));
    for (name, options) in &config.channels {
        assert_eq!(options.allow, Rights::ALL, "{name}");
    }
    for name in ["@", "doc", "presence", "typing", "call"] {
        assert!(config.namespace(name).is_some(), "{name}");
    }
    assert!(config.namespace("nowhere").is_none());
}

#[test]
fn localhost_listens_on_both_loopback_addresses_with_one_port() {
    let address: ListenAddress = "localhost:4433".parse().unwrap();
    let sockets: Vec<_> = address.sockets().iter().map(ToString::to_string).collect();
    assert_eq!(sockets, ["127.0.0.1:4433", "[::1]:4433"]);
}

#[test]
fn dev_leaves_what_is_written_alone() {
    let text = r#"
        [listen]
        public = "127.0.0.1:0"
        plain = ""
        [auth]
        anonymous = false
        [channels.chat]
        history = 7
        allow = ["subscribe"]
    "#;
    let config = load(text, true).unwrap();
    assert_eq!(config.listen.public.unwrap().to_string(), "127.0.0.1:0");
    assert_eq!(config.listen.plain, None);
    assert!(!config.auth.anonymous);
    let chat = config.namespace("chat").unwrap();
    assert_eq!((chat.history, chat.presence, chat.allow), (7, false, Right::Subscribe.into()));
}

#[test]
fn session_secrets_are_random_for_a_node_that_is_alone() {
    let secret = || {
        let config = Config::load(None, true, NO_ENVIRONMENT).unwrap();
        config.auth.session_secret.expose().to_owned()
    };
    assert!(secret().len() >= 32);
    assert_ne!(secret(), secret());
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = load_environment(&[]).unwrap();
    assert_eq!(config.listen.public.unwrap().to_string(), "0.0.0.0:4433");
    assert_eq!(config.listen.plain, None);
    assert_eq!(config.node.region, "local");
    assert!(!config.auth.anonymous);
    let limits = &config.limits;
    assert_eq!((limits.sessions, limits.frame_bytes, limits.channels_per_session), (100_000, 65_536, 128));
    assert_eq!((limits.requests_per_second, limits.publishes_per_second), (50, 20));
    assert_eq!((limits.outbox_bytes, limits.connect_timeout), (1_048_576, Duration::from_secs(5)));
    assert_eq!((config.broker.partitions, config.broker.log_age), (16, Duration::from_secs(600)));
    assert_eq!(config.broker.prefix, "sky");
    assert_eq!(config.failover.isolated, Isolated::Serve);
    assert_eq!(config.heartbeat.max, Duration::from_secs(300));
    assert_eq!(config.drain.deadline, Duration::from_secs(30));
    assert_eq!((config.log.level.as_str(), config.log.format), ("info", LogFormat::Text));
    assert_eq!(config.channels.keys().collect::<Vec<_>>(), ["@"]);
    assert!(config.namespace("@").unwrap().allow.is_empty());
}

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
        ("[node]\nurl = \"https://example.com/path\"", "node.url: expected https://HOST"),
        ("[auth]\nallowed_origins = [\"app.example.com\"]", "expected the origin of a page"),
        ("[auth]\nalgorithms = [\"none\"]", "expected HS256, RS256, ES256 or EdDSA"),
        ("[auth]\nalgorithms = []", "must name at least one"),
        ("[auth]\njwks_url = \"http://example.com/keys\"", "plain http from loopback only"),
        ("[heartbeat]\nmin = \"2m\"\nmax = \"1m\"", "min must not be longer than max"),
        ("[heartbeat]\nmax = \"20s\"\ntcp_start = \"30s\"", "tcp_start: must lie between min and max"),
        ("[limits]\noutbox_bytes = 4096", "outbox_bytes must not be less than frame_bytes"),
    ] {
        let messages = messages(load(text, true));
        assert!(messages.iter().any(|message| message.contains(expected)), "{text:?}: {messages:?}");
    }
}

#[test]
fn a_default_gives_way_to_a_bound_that_was_written() {
    let config = load("[heartbeat]\nmax = \"20s\"\n", true).unwrap();
    assert_eq!(config.heartbeat.tcp_start, Duration::from_secs(20));
}

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
fn a_region_is_set_or_completed_by_the_environment() {
    let file = write(
        "[broker]\nkind = \"redis\"\nurl = \"redis://localhost\"\n[auth]\nsession_secret = \
         \"0123456789abcdef0123456789abcdef\"\n[[regions]]\nname = \"us\"\nurl = \"https://us.example.com\"\n",
    );
    let config = Config::load(
        Some(file.path()),
        true,
        [
            ("SKYWAVE_REGIONS__US__REDIS", "redis://us.internal"),
            ("SKYWAVE_REGIONS__AP__REDIS", "redis://ap.internal"),
            ("SKYWAVE_REGIONS__AP__URL", "https://ap.example.com"),
        ],
    )
    .unwrap();
    let regions: Vec<_> =
        config.regions.iter().map(|region| (region.name.as_str(), region.redis.expose())).collect();
    assert_eq!(regions, [("us", "redis://us.internal"), ("ap", "redis://ap.internal")]);
}

#[test]
fn a_secret_is_read_from_a_file_without_its_last_newline() {
    for ending in ["", "\n", "\r\n"] {
        let file = write(&format!("{SECRET}{ending}"));
        let path = file.path().to_str().unwrap();
        let config = Config::load(None, true, [("SKYWAVE_AUTH__API_KEY_FILE", path)]).unwrap();
        assert_eq!(config.auth.api_key.unwrap().expose(), SECRET);
    }
}

#[test]
fn a_secret_given_twice_or_too_short_or_in_no_file_is_refused() {
    let file = write(SECRET);
    let path = file.path().to_str().unwrap();
    refused_with(
        Config::load(None, true, [("SKYWAVE_AUTH__API_KEY", SECRET), ("SKYWAVE_AUTH__API_KEY_FILE", path)]),
        "give either api_key or api_key_file",
    );
    refused_with(
        Config::load(None, true, [("SKYWAVE_AUTH__HMAC_SECRET", "short")]),
        "auth.hmac_secret: must be at least 32 bytes long",
    );
    refused_with(
        Config::load(None, true, [("SKYWAVE_AUTH__HMAC_SECRET_FILE", "/nowhere/secret")]),
        "cannot read /nowhere/secret",
    );
}

#[test]
fn no_secret_shows_in_debug_output_or_in_an_error() {
    let secret = "a-very-secret-secret-of-32-bytes-or-more";
    let redis = format!("redis://:{secret}@localhost");
    let variables = [
        ("SKYWAVE_AUTH__HMAC_SECRET", secret),
        ("SKYWAVE_AUTH__SESSION_SECRET", secret),
        ("SKYWAVE_AUTH__API_KEY", secret),
        ("SKYWAVE_BROKER__KIND", "redis"),
        ("SKYWAVE_BROKER__URL", &redis),
        ("SKYWAVE_REGIONS__US__REDIS", &redis),
        ("SKYWAVE_REGIONS__US__URL", "https://us.example.com"),
    ];
    let config = Config::load(None, true, variables).unwrap();
    assert_eq!(config.auth.hmac_secret.as_ref().unwrap().expose(), secret);
    let shown = format!("{config:?}");
    assert!(shown.contains("***"));
    assert!(!shown.contains(secret));

    let wrong = format!("http://:{secret}@localhost");
    let error =
        Config::load(None, true, [("SKYWAVE_BROKER__KIND", "redis"), ("SKYWAVE_BROKER__URL", &wrong)]);
    assert!(!error.unwrap_err().to_string().contains(secret));
}

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
fn a_redis_broker_needs_its_url_and_a_shared_session_secret() {
    let messages = messages(load("[broker]\nkind = \"redis\"\n", true));
    assert!(messages.iter().any(|message| message.contains("broker.url: is missing")), "{messages:?}");
    assert!(
        messages.iter().any(|message| message.contains("auth.session_secret: is missing")),
        "{messages:?}"
    );
}

#[test]
fn a_memory_broker_has_neither_url_nor_regions() {
    let text = "[broker]\nurl = \"redis://localhost\"\n[[regions]]\nname = \"us\"\nredis = \"redis://us\"\nurl = \
                \"https://us.example.com\"\n";
    let messages = messages(load(text, true));
    assert!(messages.iter().any(|message| message.contains("of no use to a memory broker")), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains("has no other regions")), "{messages:?}");
}

#[test]
fn regions_are_named_once_and_a_home_is_one_of_them() {
    let text = format!(
        "[node]\nregion = \"eu\"\n[broker]\nkind = \"redis\"\nurl = \"redis://localhost\"\n[auth]\nsession_secret = \
         \"{SECRET}\"\n[[regions]]\nname = \"us\"\nredis = \"redis://us\"\nurl = \"https://us.example.com\"\n\
         [channels.bank]\norder = \"home\"\nhome = \"us\"\n"
    );
    let config = load(&text, true).unwrap();
    let bank = config.namespace("bank").unwrap();
    assert_eq!((bank.order, bank.home.as_deref()), (Order::Home, Some("us")));
    refused_with(load(&text.replace("home = \"us\"", "home = \"ap\""), true), "there is no region \"ap\"");
    refused_with(load(&text.replace("home = \"us\"", ""), true), "home: is missing");
    refused_with(load(&text.replace("name = \"us\"", "name = \"eu\""), true), "is named twice");
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

/// The example with every `# key = value` brought to life, and the secret files left out.
fn example_with_every_key() -> String {
    EXAMPLE
        .lines()
        .map(|line| {
            let body = line.strip_prefix("# ").unwrap_or(line);
            let is_setting = body.starts_with("[[")
                || body.split_once(" = ").is_some_and(|(key, _)| {
                    key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                });
            if is_setting { body } else { line }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_example_is_accepted_but_for_files_that_an_operator_has_to_make() {
    let messages = messages(load(EXAMPLE, false));
    assert!(
        messages.iter().all(|message| message.contains("cannot read certs/hmac_secret")),
        "{messages:#?}"
    );
}

#[test]
fn the_example_shows_known_keys_only() {
    let messages = messages(load(&example_with_every_key(), false));
    assert!(!messages.iter().any(|message| message.contains("unknown key")), "{messages:#?}");
}

#[test]
fn the_example_shows_every_key() {
    let example = example_with_every_key();
    let sections = [
        "node",
        "listen",
        "tls",
        "auth",
        "broker",
        "failover",
        "heartbeat",
        "limits",
        "channels.x",
        "drain",
        "log",
    ];
    let probes = sections.map(|section| format!("[{section}]\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n"));
    let known = messages(load(
        &format!("{}[[regions]]\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n", probes.concat()),
        true,
    ));
    let keys: Vec<_> = known
        .iter()
        .filter_map(|message| message.split_once("; known are "))
        .flat_map(|(_, keys)| keys.split(", "))
        .collect();
    assert!(keys.len() > 50, "{known:#?}");
    for key in keys {
        let shown = |key: &str| example.lines().any(|line| line.starts_with(&format!("{key} = ")));
        let other = key.strip_suffix("_file").map_or_else(|| format!("{key}_file"), str::to_owned);
        assert!(shown(key) || shown(&other), "{key} is not in the example");
    }
}

#[test]
fn the_regions_of_the_example_name_each_other_and_agree_on_all_that_they_must() {
    let regions = ["eu", "us", "ap"].map(|region| {
        let file = format!("{}/config/regions/{region}.toml", env!("CARGO_MANIFEST_DIR"));
        // The secrets stand in files that the example does not bring along.
        let text = std::fs::read_to_string(file).unwrap().replace("_secret_file = \"certs/", "_secret = \"");
        let text = text.replace("\"hmac_secret\"", &format!("{SECRET:?}"));
        load(&text.replace("\"session_secret\"", &format!("{SECRET:?}")), false).unwrap()
    });
    for config in &regions {
        let (one, broker) = (&regions[0], &config.broker);
        assert_eq!((broker.partitions, &broker.prefix), (one.broker.partitions, &one.broker.prefix));
        assert_eq!(format!("{:?}", config.channels), format!("{:?}", one.channels));
        for other in regions.iter().filter(|other| other.node.region != config.node.region) {
            let named = config.regions.iter().find(|region| region.name == other.node.region).unwrap();
            assert_eq!(named.redis.expose(), other.broker.url.as_ref().unwrap().expose());
        }
        assert_eq!(config.regions.len(), 2);
    }
}
