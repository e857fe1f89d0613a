//! The configuration: a TOML file, the environment and `--dev`, read once and checked as a whole.

mod auth;
mod broker;
mod channels;
mod checks;
mod drain;
mod duration;
mod failover;
mod heartbeat;
mod limits;
mod listen;
mod log;
mod node;
mod problem;
mod redis;
mod regions;
mod section;
mod source;
mod tls;

pub use auth::{ALGORITHMS, AuthConfig};
pub use broker::{BrokerConfig, BrokerKind};
pub use channels::USER_NAMESPACE;
pub use checks::nodes_url;
pub use drain::DrainConfig;
pub use duration::{DurationError, parse_duration};
pub use failover::{FailoverConfig, Isolated};
pub use limits::LimitsConfig;
pub use listen::{ListenAddress, ListenConfig};
pub use log::{LogConfig, LogFormat};
pub use node::NodeConfig;
pub use problem::{Place, Problem};
pub use redis::Addresses;
pub use regions::RegionConfig;
pub use tls::TlsConfig;

// What the configuration is made of, though others own it.
pub use crate::{
    namespace::{NamespaceConfig, Namespaces, Order},
    redis::Secret,
};

use problem::Report;
use section::Section;
use skywave_protocol::heartbeat::HeartbeatConfig;
use source::Table;
use std::{collections::BTreeSet, ffi::OsString, fmt, path::Path};

/// Everything that can be configured. Secrets do not show in its `Debug`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether `--dev` filled what was left out.
    pub dev: bool,
    pub node: NodeConfig,
    pub listen: ListenConfig,
    /// `[tls]`. Absent: a fresh certificate (with `--dev`), or no public listener.
    pub tls: Option<TlsConfig>,
    pub auth: AuthConfig,
    pub broker: BrokerConfig,
    /// `[[regions]]`: the other regions.
    pub regions: Vec<RegionConfig>,
    pub failover: FailoverConfig,
    pub heartbeat: HeartbeatConfig,
    pub limits: LimitsConfig,
    /// `[channels.<namespace>]`, always with [`USER_NAMESPACE`].
    pub channels: Namespaces,
    pub drain: DrainConfig,
    pub log: LogConfig,
}

/// Everything that is wrong with a configuration, one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one, sorted by place.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { problems }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(formatter, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the file, if one is given, lays the environment over it, and checks the whole.
    ///
    /// Of `environment`, the variables `SKYWAVE_<SECTION>__<KEY>` count. With `dev`, what is left out is filled so that
    /// the node starts alone, on loopback, open to anyone on this machine. The error holds all problems at once.
    pub fn load(
        path: Option<&Path>,
        dev: bool,
        environment: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Result<Self, ConfigError> {
        let mut tree = path.map_or_else(|| Ok(Table::new()), source::read_file).map_err(ConfigError::new)?;
        let variables = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        let leftovers = source::overlay_environment(&mut tree, variables);
        let mut report = Report::new(path, leftovers);
        let mut root = Section::new("", tree, &mut report);
        let config = Self::read(&mut root, dev);
        root.finish();
        if !dev {
            config.check_closed(&mut report);
        }
        config.check_regions(&mut report);
        if report.problems.is_empty() { Ok(config) } else { Err(ConfigError::new(report.problems)) }
    }

    /// The options of a namespace; `None` when there is no such namespace.
    pub fn namespace(&self, name: &str) -> Option<&NamespaceConfig> {
        self.channels.get(name)
    }

    fn read(root: &mut Section<'_>, dev: bool) -> Self {
        Self {
            dev,
            node: read_section(root, "node", NodeConfig::read),
            listen: read_section(root, "listen", |section| ListenConfig::read(section, dev)),
            tls: read_section(root, "tls", TlsConfig::read),
            auth: read_section(root, "auth", |section| AuthConfig::read(section, dev)),
            broker: read_section(root, "broker", BrokerConfig::read),
            regions: root.tables("regions", RegionConfig::read),
            failover: read_section(root, "failover", FailoverConfig::read),
            heartbeat: read_section(root, "heartbeat", heartbeat::read),
            limits: read_section(root, "limits", |section| LimitsConfig::read(section, dev)),
            channels: read_section(root, "channels", |section| channels::read(section, dev)),
            drain: read_section(root, "drain", |section| DrainConfig::read(section, dev)),
            log: read_section(root, "log", LogConfig::read),
        }
    }

    /// Refuses a node that would be open to anyone, or could not be reached by anyone.
    fn check_closed(&self, report: &mut Report) {
        let is_any_key_set = ["hmac_secret", "hmac_secret_file", "public_key", "jwks_url"]
            .iter()
            .any(|key| report.is_set(&format!("auth.{key}")));
        if !is_any_key_set && !self.auth.anonymous {
            report.add(
                "auth",
                "auth: there is no key to check tokens with: set hmac_secret, public_key or jwks_url, or say \
                 anonymous = true to let anyone in (or start with --dev)",
            );
        }
        let is_admin_open = self.listen.admin.is_some_and(|address| !address.is_loopback());
        let is_api_key_set = report.is_set("auth.api_key") || report.is_set("auth.api_key_file");
        if is_admin_open && !is_api_key_set {
            report.add(
                "listen.admin",
                "listen.admin: is reachable from other machines and auth.api_key is missing: anyone could \
                 publish and disconnect",
            );
        }
        let is_tls_set = ["certificate", "key"].iter().any(|key| report.is_set(&format!("tls.{key}")));
        if self.listen.public.is_some() && !is_tls_set {
            report.add(
                "tls",
                "tls: certificate and key are missing: the public listener speaks TLS only (listen.public = \"\" \
                 turns it off)",
            );
        }
        if self.listen.public.is_none() && self.listen.plain.is_none() {
            report.add("listen.public", "listen: public and plain are both off: no client could connect");
        }
    }

    /// Checks what the nodes of a deployment must agree on.
    fn check_regions(&self, report: &mut Report) {
        let is_alone = self.broker.kind == BrokerKind::Memory;
        let is_secret_set = report.is_set("auth.session_secret") || report.is_set("auth.session_secret_file");
        if !is_alone && !is_secret_set {
            report.add(
                "auth.session_secret",
                "auth.session_secret: is missing: nodes that share a broker must share it, so that a session can \
                 go on at another",
            );
        }
        if is_alone && !self.regions.is_empty() {
            report.add(
                "regions[0]",
                "regions: a memory broker has no other regions: set broker.kind = \"redis\"",
            );
        }
        let mut names = BTreeSet::from([self.node.region.as_str()]);
        for region in &self.regions {
            if !names.insert(&region.name) {
                let message =
                    format!("regions: {:?} is named twice, or is this node's own region", region.name);
                report.add("regions", message);
            }
        }
        for (name, options) in self.channels.iter() {
            if let Some(home) = options.home.as_deref().filter(|home| !names.contains(home)) {
                let key = format!("channels.{name}.home");
                report.add(&key, format!("{key}: there is no region {home:?}"));
            }
        }
    }
}

fn read_section<T>(root: &mut Section<'_>, name: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
    let mut section = root.section(name);
    let value = read(&mut section);
    section.finish();
    value
}
