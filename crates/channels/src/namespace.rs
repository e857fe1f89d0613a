//! What the channels of each namespace can do.

use crate::rights::Rights;
use skywave_protocol::Channel;
use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

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

/// What a namespace is that has a name and nothing else.
impl Default for NamespaceConfig {
    fn default() -> Self {
        Self {
            history: 0,
            history_age: Duration::from_secs(600),
            presence: false,
            presence_batch: Duration::from_secs(2),
            presence_grace: Duration::from_secs(10),
            order: Order::Origin,
            home: None,
            allow: Rights::NONE,
        }
    }
}

/// All namespaces by name. Clones share one list; who changes one changes none of the others.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Arc<BTreeMap<String, NamespaceConfig>>);

impl Namespaces {
    /// That of a channel; `None` when it is not configured.
    pub fn of(&self, channel: &Channel) -> Option<&NamespaceConfig> {
        self.0.get(channel.namespace())
    }

    /// Whether any of them has presence.
    pub fn have_presence(&self) -> bool {
        self.0.values().any(|namespace| namespace.presence)
    }
}

impl From<BTreeMap<String, NamespaceConfig>> for Namespaces {
    fn from(by_name: BTreeMap<String, NamespaceConfig>) -> Self {
        Self(Arc::new(by_name))
    }
}

impl Deref for Namespaces {
    type Target = BTreeMap<String, NamespaceConfig>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Namespaces {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}
