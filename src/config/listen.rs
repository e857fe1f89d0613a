//! `[node]`, `[listen]`, `[tls]`, `[drain]` and `[log]`: the process and its sockets.

use super::{
    checks::{base_path, identifier, nodes_url},
    section::{Section, is_loopback},
};
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

/// `[node]`: who this node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// `id`: names this process among the nodes of all regions. Each has its own; 1 … 64 of `A-Z a-z 0-9 . _ -`.
    /// Default: random.
    pub id: String,
    /// `region`: the region of this node; 1 … 32 of `a-z 0-9 _ -`. Default: `local`.
    pub region: String,
    /// `url`: where clients reach this node, `https://HOST[:PORT][/PATH]`. Absent: no client is ever told to come here.
    pub url: Option<String>,
}

impl NodeConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            id: section.parsed("id", |text| identifier(text, 64, true)).unwrap_or_else(random_id),
            region: section
                .parsed("region", |text| identifier(text, 32, false))
                .unwrap_or_else(|| "local".to_owned()),
            url: section.parsed("url", nodes_url),
        }
    }

    /// A request's path, as far as it is below the path of [`Self::url`]: a proxy may pass the whole path on, or take
    /// that part off.
    pub fn path_below<'p>(&self, path: &'p str) -> &'p str {
        let base = self.url.as_deref().map_or("", base_path);
        path.strip_prefix(base).filter(|below| below.starts_with('/')).unwrap_or(path)
    }
}

#[allow(clippy::disallowed_methods, reason = "whoever runs a node can name it")]
fn random_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Where a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// One address. Port 0 takes a free one.
    Socket(SocketAddr),
    /// `[::]:PORT`: all addresses of this machine, those of IPv4 as well; they alone where it has no IPv6.
    Any(u16),
    /// `localhost:PORT`: both loopback addresses, with one port, because clients resolve `localhost` to either. An
    /// address family that the machine lacks is left out.
    Localhost(u16),
}

impl ListenAddress {
    /// The addresses to bind, the preferred one first.
    pub fn sockets(self) -> Vec<SocketAddr> {
        match self {
            Self::Socket(address) => vec![address],
            Self::Any(port) => {
                vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
            }
            Self::Localhost(port) => {
                vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
            }
        }
    }

    /// Whether the first of [`Self::sockets`] that can be bound is all that is needed.
    pub(crate) fn is_one_socket(self) -> bool {
        !matches!(self, Self::Localhost(_))
    }

    pub fn port(self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Any(port) | Self::Localhost(port) => port,
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(self) -> bool {
        match self {
            Self::Socket(address) => is_loopback(address.ip()),
            Self::Any(_) => false,
            Self::Localhost(_) => true,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected an address such as \"[::]:4433\", \"192.0.2.1:4433\" or \"localhost:4433\"";
        if let Some(port) = text.strip_prefix("localhost:") {
            return port.parse().map(Self::Localhost).map_err(|_| expected);
        }
        let address: SocketAddr = text.parse().map_err(|_| expected)?;
        let is_any = address.ip() == Ipv6Addr::UNSPECIFIED;
        Ok(if is_any { Self::Any(address.port()) } else { Self::Socket(address) })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(formatter),
            Self::Any(port) => write!(formatter, "[::]:{port}"),
            Self::Localhost(port) => write!(formatter, "localhost:{port}"),
        }
    }
}

/// `[listen]`: the listeners. An empty text turns one off.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// `public`: WebTransport on UDP and WebSocket over TLS on TCP. Default: `[::]:4433`, with `--dev`
    /// `localhost:4433`.
    pub public: Option<ListenAddress>,
    /// `plain`: WebSocket without TLS, for a balancer that ends it. Default: none, with `--dev` `localhost:8081`.
    pub plain: Option<ListenAddress>,
    /// `admin`: the HTTP API, metrics and health. Default: `localhost:8080`.
    pub admin: Option<ListenAddress>,
}

impl ListenConfig {
    pub(super) fn read(section: &mut Section<'_>, dev: bool) -> Self {
        let public = if dev { ListenAddress::Localhost(4433) } else { ListenAddress::Any(4433) };
        Self {
            public: address(section, "public", Some(public)),
            plain: address(section, "plain", dev.then_some(ListenAddress::Localhost(8081))),
            admin: address(section, "admin", Some(ListenAddress::Localhost(8080))),
        }
    }
}

fn address(section: &mut Section<'_>, key: &str, default: Option<ListenAddress>) -> Option<ListenAddress> {
    section
        .parsed(key, |text| if text.is_empty() { Ok(None) } else { text.parse().map(Some) })
        .unwrap_or(default)
}

/// `[tls]`: the certificate of the public listener, reloaded when the files change.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// `certificate`: a PEM file with the chain, the node's own certificate first. Relative to the working directory.
    pub certificate: PathBuf,
    /// `key`: a PEM file with the private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

impl TlsConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let (certificate, key) = (section.text("certificate"), section.text("key"));
        for (given, missing) in [("certificate", "key"), ("key", "certificate")] {
            if section.is_set(given) && !section.is_set(missing) {
                section.add(missing, format!("is missing beside {given}"));
            }
        }
        Some(Self { certificate: certificate?.into(), key: key?.into() })
    }
}

/// `[drain]`: how the node leaves.
#[derive(Clone, Debug)]
pub struct DrainConfig {
    /// `deadline`: how long sessions have to move elsewhere; 0s … 1h. Default: 30s, with `--dev` 1s: there is nowhere
    /// to move to.
    pub deadline: Duration,
    /// `rebalance`: whether a node with many more sessions than its peers (a fifth, and 50) sheds the surplus to those
    /// that have another `node.url`. Default: `true`.
    pub(crate) rebalance: bool,
    /// `rebalance_percent_per_second`: how many of its sessions it sheds a second; 1 … 100. Default: 1.
    pub(crate) rebalance_percent_per_second: u8,
}

impl DrainConfig {
    pub(super) fn read(section: &mut Section<'_>, dev: bool) -> Self {
        let hour = Duration::from_secs(3_600);
        let default = Duration::from_secs(if dev { 1 } else { 30 });
        Self {
            deadline: section.duration("deadline", default, Duration::ZERO..=hour),
            rebalance: section.boolean("rebalance").unwrap_or(true),
            rebalance_percent_per_second: section.integer("rebalance_percent_per_second", 1, 1..=100),
        }
    }
}

/// `[log]`: what goes to stderr.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `level`: `off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,skywave::session=debug`.
    /// Default: `info`.
    pub level: String,
    /// `format`: `text` or `json`. Default: `text`.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            level: section.parsed("level", log_level).unwrap_or_else(|| "info".to_owned()),
            format: section.choice(
                "format",
                LogFormat::Text,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
        }
    }
}

fn log_level(text: &str) -> Result<String, String> {
    for directive in text.split(',') {
        // A bare word would be taken for the name of a module, which hides a misspelt level.
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !["off", "error", "warn", "info", "debug", "trace"].contains(&level) {
            return Err(format!("{level:?} is no level: off, error, warn, info, debug or trace"));
        }
    }
    let filter = tracing_subscriber::EnvFilter::builder().parse(text);
    filter.map(|_| text.to_owned()).map_err(|error| error.to_string())
}
