//! The configurations that are shown as examples.

use crate::loading::{SECRET, load, messages};

const EXAMPLE: &str = include_str!("../../config/skywave.toml");

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
