//! `[channels.<namespace>]`: what the channels of a namespace can do.
use std::collections::BTreeMap;
use std::time::Duration;

use super::checks::identifier;
use super::section::Section;
use crate::rights::{Right, Rights};

/// The namespace of user channels, which exists without being configured.
pub const USER_NAMESPACE: &str = "@";

/// Where the publications of a namespace get their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In the region that accepts them: one order per origin.
    Origin,
    /// In the home region: one order for all.
    Home,
}

/// `[channels.<namespace>]`.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// `history`: publications retained per channel; 0 … 100,000. Default: 0, none.
    pub history: usize,
    /// `history_age`: how long they are retained; 1s … 30d. Default: 10m.
    pub history_age: Duration,
    /// `presence`: whether sessions can see each other. Default: false.
    pub presence: bool,
    /// `presence_batch`: joins and leaves are told together, once in this time; 0s … 1m. Default: 2s.
    pub presence_batch: Duration,
    /// `presence_grace`: a session whose transport broke is present for so long; 0s … 10m. Default: 10s.
    pub presence_grace: Duration,
    /// `order`: `origin` or `home`. Default: `origin`.
    pub order: Order,
    /// `home`: the region that orders; needed with `order = "home"`.
    pub home: Option<String>,
    /// `allow`: what every session may do, on top of its token's rights: `subscribe`, `publish`, `emit`, `presence`,
    /// `history`. Default: nothing, with `--dev` everything.
    pub allow: Rights,
}

impl NamespaceConfig {
    fn read(section: &mut Section<'_>, dev: bool) -> Self {
        let second = Duration::from_secs(1);
        let right = |text: &str| {
            Right::from_name(text).ok_or("expected subscribe, publish, emit, presence or history")
        };
        let default_allow = if dev { Rights::ALL } else { Rights::NONE };
        let config = Self {
            history: section.integer("history", 0, 0..=100_000),
            history_age: section.duration("history_age", 600 * second, second..=30 * 86_400 * second),
            presence: section.boolean("presence").unwrap_or(false),
            presence_batch: section.duration("presence_batch", 2 * second, Duration::ZERO..=60 * second),
            presence_grace: section.duration("presence_grace", 10 * second, Duration::ZERO..=600 * second),
            order: section.choice(
                "order",
                Order::Origin,
                &[("origin", Order::Origin), ("home", Order::Home)],
            ),
            home: section.parsed("home", |text| identifier(text, 32, false)),
            allow: section
                .list_or_none("allow", right)
                .map_or(default_allow, |rights| rights.into_iter().collect()),
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
    fn plain(dev: bool) -> Self {
        Self {
            history: 0,
            history_age: Duration::from_secs(600),
            presence: false,
            presence_batch: Duration::from_secs(2),
            presence_grace: Duration::from_secs(10),
            order: Order::Origin,
            home: None,
            allow: if dev { Rights::ALL } else { Rights::NONE },
        }
    }
}

/// Reads every namespace; with `--dev`, those that an application usually has are added.
pub(super) fn read(section: &mut Section<'_>, dev: bool) -> BTreeMap<String, NamespaceConfig> {
    let mut namespaces = BTreeMap::new();
    for name in section.remaining_keys() {
        let mut options = section.section(&name);
        let config = NamespaceConfig::read(&mut options, dev);
        options.finish();
        if name == USER_NAMESPACE || identifier(&name, 32, false).is_ok() {
            namespaces.insert(name, config);
        } else {
            section.add(&name, "a namespace is \"@\" or 1 … 32 of a-z 0-9 _ -");
        }
    }
    namespaces.entry(USER_NAMESPACE.to_owned()).or_insert_with(|| NamespaceConfig::plain(dev));
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
            let config = || NamespaceConfig { history, presence, ..NamespaceConfig::plain(true) };
            namespaces.entry(name.to_owned()).or_insert_with(config);
        }
    }
    namespaces
}
