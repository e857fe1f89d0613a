//! The broker, and the other regions.

use crate::loading::{SECRET, load, messages, refused_with, write};
use skywave::config::{Config, Order};

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
fn nodes_may_be_under_a_path_and_one_place_is_always_written_alike() {
    for (given, expected) in [
        ("https://Example.com:443", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com:4433/v1/connect", "https://example.com:4433"),
        ("https://example.com/realtime", "https://example.com/realtime"),
        ("https://example.com/realtime//", "https://example.com/realtime"),
        ("https://example.com/apps/realtime/v1/connect/", "https://example.com/apps/realtime"),
        ("https://[::1]:4433/realtime/", "https://[::1]:4433/realtime"),
    ] {
        let text = format!(
            "[node]\nurl = \"{given}\"\n[broker]\nkind = \"redis\"\nurl = \"redis://localhost\"\n[auth]\n\
             session_secret = \"{SECRET}\"\n[[regions]]\nname = \"us\"\nredis = \"redis://us\"\nurl = \"{given}\"\n"
        );
        let config = load(&text, true).unwrap();
        assert_eq!(config.node.url.as_deref(), Some(expected), "{given}");
        assert_eq!(config.regions[0].url, expected, "{given}");
    }
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
