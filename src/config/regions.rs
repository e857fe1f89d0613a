//! `[[regions]]`: the other regions.

use super::{
    checks::{identifier, nodes_url},
    redis,
    section::Section,
};
use crate::redis::Secret;
use std::path::PathBuf;

/// `[[regions]]`: one of the other regions.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// `name`: as that region's nodes call it; 1 … 32 of `a-z 0-9 _ -`.
    pub name: String,
    /// `redis` or `redis_file`: that region's Redis.
    pub redis: Secret,
    /// `ca`: a PEM file with the authorities that vouch for it over TLS. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// `url`: where clients reach that region, `https://HOST[:PORT][/PATH]`.
    pub url: String,
}

impl RegionConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let name = section.parsed("name", |text| identifier(text, 32, false));
        let redis = redis::url(section, "redis");
        let ca = section.text("ca").map(PathBuf::from);
        redis::check_authorities(section, redis.as_ref());
        let url = section.parsed("url", nodes_url);
        for (key, is_set) in [
            ("name", section.is_set("name")),
            ("redis", section.is_set("redis") || section.is_set("redis_file")),
            ("url", section.is_set("url")),
        ] {
            if !is_set {
                section.add(key, "is missing");
            }
        }
        Some(Self { name: name?, redis: redis?, ca, url: url? })
    }
}
