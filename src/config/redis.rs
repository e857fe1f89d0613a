//! Where the Redis of each region is.

use super::{BrokerConfig, Config, section::Section};
use crate::redis::{Address, RedisUrl, Scripts, Secret};
use skywave_protocol::{Text, text::TooLong};
use std::path::PathBuf;

/// Where the Redis of each region is, as the configuration names them.
pub struct Addresses {
    /// Of this node's region; `None` where it does without.
    pub own: Option<Address>,
    /// Of the others, in the order of the configuration.
    pub others: Vec<Address>,
}

impl Addresses {
    /// Where nodes run these scripts.
    ///
    /// # Errors
    /// When a region's name is too long.
    pub fn of(config: &Config, scripts: Scripts) -> Result<Self, TooLong> {
        let BrokerConfig { prefix, partitions, .. } = &config.broker;
        let address = |region: &str, url: &Secret, ca: &Option<PathBuf>| {
            let (url, ca, prefix) = (url.clone(), ca.clone(), prefix.clone());
            Ok(Address { url, ca, prefix, partitions: *partitions, region: Text::new(region)?, scripts })
        };
        let own = config.broker.url.as_ref();
        let own = own.map(|url| address(&config.node.region, url, &config.broker.ca)).transpose()?;
        let others = config.regions.iter().map(|region| address(&region.name, &region.redis, &region.ca));
        Ok(Self { own, others: others.collect::<Result<_, _>>()? })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.own.iter().chain(&self.others)
    }
}

/// The URL of a Redis, which may hold a password.
pub(super) fn url(section: &mut Section<'_>, key: &str) -> Option<Secret> {
    let url = section.secret(key, 1)?;
    match RedisUrl::parse(url.expose()) {
        Ok(_) => Some(url),
        Err(message) => {
            section.add(key, message);
            None
        }
    }
}

/// Who names authorities means to have TLS.
pub(super) fn check_authorities(section: &mut Section<'_>, url: Option<&Secret>) {
    if section.is_set("ca") && url.is_some_and(|url| !RedisUrl::is_over_tls(url.expose())) {
        section.add("ca", "is of no use without TLS, which the URL has that begins with rediss");
    }
}
