//! `[channels.<namespace>]`: what the channels of a namespace can do.

use super::{checks::identifier, section::Section};
use crate::{
    namespace::{NamespaceConfig, Namespaces, Order},
    rights::{Right, Rights},
};
use std::{collections::BTreeMap, time::Duration};

/// The namespace of user channels, which exists without being configured.
pub const USER_NAMESPACE: &str = "@";

fn read_one(section: &mut Section<'_>, dev: bool) -> NamespaceConfig {
    let second = Duration::from_secs(1);
    let right =
        |text: &str| Right::from_name(text).ok_or("expected subscribe, publish, emit, presence or history");
    let default = plain(dev);
    let config = NamespaceConfig {
        history: section.integer("history", default.history, 0..=100_000),
        history_age: section.duration("history_age", default.history_age, second..=30 * 86_400 * second),
        presence: section.boolean("presence").unwrap_or(default.presence),
        presence_batch: section.duration(
            "presence_batch",
            default.presence_batch,
            Duration::ZERO..=60 * second,
        ),
        presence_grace: section.duration(
            "presence_grace",
            default.presence_grace,
            Duration::ZERO..=600 * second,
        ),
        order: section.choice("order", default.order, &[("origin", Order::Origin), ("home", Order::Home)]),
        home: section.parsed("home", |text| identifier(text, 32, false)),
        allow: section
            .list_or_none("allow", right)
            .map_or(default.allow, |rights| rights.into_iter().collect()),
    };
    match config.order {
        Order::Home if !section.is_set("home") => section.add("home", "is missing: order is \"home\""),
        Order::Origin if section.is_set("home") => {
            section.add("home", "is of no use without order = \"home\"");
        }
        _ => {}
    }
    config
}

/// What a namespace is that has a name and nothing else.
fn plain(dev: bool) -> NamespaceConfig {
    let allow = if dev { Rights::ALL } else { Rights::NONE };
    NamespaceConfig { allow, ..NamespaceConfig::default() }
}

/// Reads every namespace; with `--dev`, those that an application usually has are added.
pub(super) fn read(section: &mut Section<'_>, dev: bool) -> Namespaces {
    let mut namespaces = BTreeMap::new();
    for name in section.remaining_keys() {
        let mut options = section.section(&name);
        let config = read_one(&mut options, dev);
        options.finish();
        if name == USER_NAMESPACE || identifier(&name, 32, false).is_ok() {
            namespaces.insert(name, config);
        } else {
            section.add(&name, "a namespace is \"@\" or 1 … 32 of a-z 0-9 _ -");
        }
    }
    namespaces.entry(USER_NAMESPACE.to_owned()).or_insert_with(|| plain(dev));
    if dev {
        for (name, history, presence) in [
            ("bench", 0, false),
            ("call", 0, true),
            ("chat", 100, true),
            ("cursor", 0, false),
            ("doc", 1_000, true),
            ("feed", 100, false),
            ("presence", 0, true),
            ("room", 100, true),
            ("test", 100, true),
            ("typing", 0, false),
        ] {
            let config = || NamespaceConfig { history, presence, ..plain(true) };
            namespaces.entry(name.to_owned()).or_insert_with(config);
        }
    }
    namespaces.into()
}
