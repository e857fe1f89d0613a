//! The address of a node: which transports its scheme allows, and where they connect.

use crate::TransportKind;
use http::Uri;
use skywave_protocol::{CONNECT_PATH, Encoding};
use std::{fmt, net::IpAddr, str::FromStr};

/// Where a node is reached.
///
/// `https://` allows both transports: WebTransport on UDP, and WebSocket over TLS on TCP of the same port. `wss://` is
/// WebSocket over TLS only. `ws://` and `http://` are plain WebSocket only. A path is what a reverse proxy has nodes
/// under: sessions are at `/v1/connect` below it, said or left out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NodeUrl {
    scheme: Scheme,
    host: String,
    port: u16,
    path_and_query: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scheme {
    Https,
    Wss,
    Ws,
}

/// Why a text is not the address of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    #[error("not a URL: {0}")]
    Syntax(String),
    #[error("the scheme is `https`, `wss`, `ws` or `http`")]
    Scheme,
    #[error("the URL has no host")]
    NoHost,
}

impl FromStr for NodeUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = text.parse().map_err(|error| InvalidUrl::Syntax(format!("{error}")))?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("https") => (Scheme::Https, 443),
            Some("wss") => (Scheme::Wss, 443),
            Some("ws" | "http") => (Scheme::Ws, 80),
            _ => return Err(InvalidUrl::Scheme),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(InvalidUrl::NoHost)?;
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = uri.path().trim_end_matches('/');
        let base = path.strip_suffix(CONNECT_PATH).unwrap_or(path);
        Ok(Self {
            scheme,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(default_port),
            path_and_query: format!("{base}{CONNECT_PATH}{query}"),
        })
    }
}

impl NodeUrl {
    /// The host without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn is_tls(&self) -> bool {
        self.scheme != Scheme::Ws
    }

    /// Whether the scheme allows this transport.
    pub fn allows(&self, kind: TransportKind) -> bool {
        match kind {
            TransportKind::WebTransport => self.scheme == Scheme::Https,
            TransportKind::WebSocket => true,
        }
    }

    /// Whether the host is this machine: `localhost` (RFC 6761) or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Host and port, as in a `host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Where sessions are, without the query.
    pub fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }

    /// The URL of a WebTransport session; the encoding stands in its query, MessagePack is the default.
    pub fn webtransport(&self, encoding: Encoding) -> String {
        let parameter = match encoding {
            Encoding::MessagePack => "",
            Encoding::Json if self.path_and_query.contains('?') => "&encoding=json",
            Encoding::Json => "?encoding=json",
        };
        format!("https://{}{}{parameter}", self.authority(), self.path_and_query)
    }

    /// The URL of a WebSocket with the given scheme (`wss` and `ws` for the HTTP/1.1 upgrade, `https`
    /// and `http` for HTTP/2).
    pub fn websocket(&self, tls_scheme: &str, plain_scheme: &str) -> String {
        let scheme = if self.is_tls() { tls_scheme } else { plain_scheme };
        format!("{scheme}://{}{}", self.authority(), self.path_and_query)
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Wss => "wss",
            Scheme::Ws => "ws",
        };
        // The query may carry what is nobody else's business.
        write!(formatter, "{scheme}://{}{}", self.authority(), self.path())
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> NodeUrl {
        text.parse().unwrap()
    }

    #[test]
    fn the_path_and_the_port_have_defaults() {
        assert_eq!(url("https://example.com").to_string(), "https://example.com:443/v1/connect");
        assert_eq!(url("http://example.com/").to_string(), "ws://example.com:80/v1/connect");
        assert_eq!(url("https://[::1]:4433").authority(), "[::1]:4433");
    }

    #[test]
    fn the_path_is_a_base_with_and_without_what_is_below_it() {
        for tail in ["", "/", "//", "/v1/connect", "/v1/connect/"] {
            let address = url(&format!("https://example.com/rt{tail}"));
            assert_eq!(address.to_string(), "https://example.com:443/rt/v1/connect", "{tail}");
            let bare = url(&format!("https://example.com{tail}"));
            assert_eq!(bare.to_string(), "https://example.com:443/v1/connect", "{tail}");
        }
        assert_eq!(url("wss://a:9/x/?a=b").websocket("wss", "ws"), "wss://a:9/x/v1/connect?a=b");
    }

    #[test]
    fn only_https_allows_webtransport() {
        assert!(url("https://a").allows(TransportKind::WebTransport));
        for text in ["wss://a", "ws://a", "http://a"] {
            assert!(!url(text).allows(TransportKind::WebTransport), "{text}");
            assert!(url(text).allows(TransportKind::WebSocket), "{text}");
        }
    }

    #[test]
    fn the_encoding_joins_the_query() {
        assert_eq!(url("https://a").webtransport(Encoding::MessagePack), "https://a:443/v1/connect");
        assert_eq!(url("https://a").webtransport(Encoding::Json), "https://a:443/v1/connect?encoding=json");
        assert_eq!(
            url("https://a/?q=1").webtransport(Encoding::Json),
            "https://a:443/v1/connect?q=1&encoding=json"
        );
    }

    #[test]
    fn loopback_is_known_by_name_and_address() {
        for text in ["ws://localhost", "ws://127.0.0.1", "ws://127.8.8.8:1", "ws://[::1]"] {
            assert!(url(text).is_loopback(), "{text}");
        }
        for text in ["ws://example.com", "ws://10.0.0.1", "ws://localhost.example.com", "ws://[::2]"] {
            assert!(!url(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn other_schemes_and_texts_are_refused() {
        assert_eq!("ftp://a".parse::<NodeUrl>(), Err(InvalidUrl::Scheme));
        assert_eq!("example.com".parse::<NodeUrl>(), Err(InvalidUrl::Scheme));
        assert!(matches!("https://a b".parse::<NodeUrl>(), Err(InvalidUrl::Syntax(_))));
    }
}
