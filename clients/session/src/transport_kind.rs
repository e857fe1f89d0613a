//! By which of its transports a node is reached, and by which it may be.

use std::fmt;

/// How bytes reach a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    WebTransport,
    WebSocket,
}

impl TransportKind {
    /// The name as in metrics and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::WebTransport => Self::WebSocket,
            Self::WebSocket => Self::WebTransport,
        }
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

impl From<TransportKind> for TransportChoice {
    fn from(kind: TransportKind) -> Self {
        match kind {
            TransportKind::WebTransport => Self::WebTransport,
            TransportKind::WebSocket => Self::WebSocket,
        }
    }
}
