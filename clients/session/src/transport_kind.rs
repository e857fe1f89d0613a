//! By which of its transports a node is reached, and by which it may be.

use std::fmt;

/// How bytes reach a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    WebTransport,
    WebSocket,
}

impl TransportKind {
    /// All of them, the best first.
    pub const ALL: &'static [Self] = &[Self::WebTransport, Self::WebSocket];

    /// The name as in metrics and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
        }
    }

    /// Whether its path is one that a NAT may forget while nothing is sent.
    pub fn is_over_udp(self) -> bool {
        self == Self::WebTransport
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Which transport to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransportChoice {
    /// WebTransport where it works, WebSocket where it does not; whichever connects first, with a
    /// head start for WebTransport.
    #[default]
    Auto,
    WebTransport,
    WebSocket,
}

impl TransportChoice {
    /// The one that is wanted, whatever else there is.
    pub fn only(self) -> Option<TransportKind> {
        match self {
            Self::Auto => None,
            Self::WebTransport => Some(TransportKind::WebTransport),
            Self::WebSocket => Some(TransportKind::WebSocket),
        }
    }
}

impl From<TransportKind> for TransportChoice {
    fn from(kind: TransportKind) -> Self {
        match kind {
            TransportKind::WebTransport => Self::WebTransport,
            TransportKind::WebSocket => Self::WebSocket,
        }
    }
}
