//! What stands where nothing is written.

use crate::loading::{NO_ENVIRONMENT, load, load_environment};
use skywave::{
    config::{BrokerKind, Config, Isolated, ListenAddress, LogFormat},
    rights::{Right, Rights},
};
use std::time::Duration;

#[test]
fn dev_starts_alone_on_loopback_and_open_to_this_machine() {
    let config = Config::load(None, true, NO_ENVIRONMENT).unwrap();
    assert_eq!(config.listen.public, Some(ListenAddress::Localhost(4433)));
    assert_eq!(config.listen.plain, Some(ListenAddress::Localhost(8081)));
    assert_eq!(config.listen.admin, Some(ListenAddress::Localhost(8080)));
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
    for (name, options) in config.channels.iter() {
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
fn all_addresses_are_those_of_ipv6_and_ipv4_and_are_no_loopback() {
    let address: ListenAddress = "[::]:4433".parse().unwrap();
    assert_eq!(address, ListenAddress::Any(4433));
    assert_eq!(address.to_string(), "[::]:4433");
    assert!(!address.is_loopback());
    let ipv4: ListenAddress = "0.0.0.0:4433".parse().unwrap();
    assert_eq!(ipv4.sockets(), ["0.0.0.0:4433".parse().unwrap()]);
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
fn defaults_are_the_documented_ones() {
    let config = load_environment(&[]).unwrap();
    assert_eq!(config.listen.public, Some(ListenAddress::Any(4433)));
    assert_eq!(config.listen.plain, None);
    assert_eq!(config.listen.admin, Some(ListenAddress::Localhost(8080)));
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
fn a_default_gives_way_to_a_bound_that_was_written() {
    let config = load("[heartbeat]\nmax = \"20s\"\n", true).unwrap();
    assert_eq!(config.heartbeat.tcp_start, Duration::from_secs(20));
}
