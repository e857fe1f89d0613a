//! A connection that carries the session, or did until it was left; and how one ends.

use crate::{ConnectError, Connection, ConnectionId, Time, TransportKind, url::NodeUrl};
use skywave_protocol::{codes::should_reconnect, frame::Disconnect};
use std::{borrow::Cow, time::Duration};

/// A connection that held so long was a good one: the next failure begins with the shortest wait.
const STABLE: Duration = Duration::from_secs(5);

/// A connection on which `connected` has come.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) connection: Connection,
    /// That of its `connect`.
    pub(crate) attempt: u64,
    pub(crate) url: NodeUrl,
    pub(crate) kind: TransportKind,
    /// When it will have held for so long that it was a good one.
    steady_at: Time,
    /// What the node directs is not followed sooner.
    pub(crate) stays_until: Time,
    /// Whether its node has said that it drains.
    pub(crate) is_drained: bool,
}

impl Carrier {
    pub(crate) fn new(
        connection: Connection,
        attempt: u64,
        url: NodeUrl,
        kind: TransportKind,
        now: Time,
    ) -> Self {
        Self { connection, attempt, url, kind, steady_at: now + STABLE, stays_until: now, is_drained: false }
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.connection.id
    }

    /// Whether it has held for so long that it was a good one.
    pub(crate) fn is_steady(&self, now: Time) -> bool {
        now >= self.steady_at
    }

    /// Is not left for so long by the node's word alone; what it is held for is not its merit.
    pub(crate) fn stay(&mut self, pace: Duration, now: Time) {
        self.steady_at = self.steady_at + pace;
        self.stays_until = now + pace;
    }
}

/// How a connection ended, as the node's last frame or the transport says.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) code: Option<u16>,
    pub(crate) reason: Cow<'static, str>,
    pub(crate) message: Option<Cow<'static, str>>,
    pub(crate) reconnect: bool,
    pub(crate) retry_after: Option<Duration>,
}

impl Ending {
    /// Nobody has said why.
    pub(crate) fn lost(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: None, reason: reason.into(), message: None, reconnect: true, retry_after: None }
    }

    /// By the transport's own close.
    pub(crate) fn closed(code: Option<u16>, reason: &str) -> Self {
        let reconnect = code.is_none_or(should_reconnect);
        Self { code, reconnect, ..Self::lost(reason.to_owned()) }
    }

    /// All that the node says of why it ends a connection.
    pub(crate) fn told(self) -> Cow<'static, str> {
        match &self.message {
            Some(message) => format!("{}: {message}", self.reason).into(),
            None => self.reason,
        }
    }

    /// What it means before `connected` has come.
    pub(crate) fn refusal(self) -> ConnectError {
        match self.code {
            Some(code) if (3000..4000).contains(&code) => ConnectError::Refused {
                code,
                reason: self.reason,
                message: self.message,
                reconnect: self.reconnect,
                retry_after: self.retry_after,
            },
            _ => ConnectError::Lost(self.reason.into_owned()),
        }
    }
}

impl From<Disconnect> for Ending {
    fn from(last: Disconnect) -> Self {
        Self {
            code: Some(last.code),
            reason: last.reason,
            message: last.message,
            reconnect: last.reconnect,
            retry_after: last.retry_after_ms.map(Duration::from_millis),
        }
    }
}
