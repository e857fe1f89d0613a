//! `[listen]`: the listeners, and where they are bound.

use super::section::{Section, is_loopback};
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

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
