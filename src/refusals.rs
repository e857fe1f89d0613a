//! Logs what is not accepted (tokens, secrets, origins, keys): the first of a cause at once, then one line for a while.

use crate::{
    auth::{AuthError, resume::ResumeError},
    limits::Limit,
};
use parking_lot::Mutex;
use std::{collections::HashMap, net::IpAddr, time::Duration};
use tokio::time::Instant;

/// A cause is logged no more often than this.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The most of an origin that is logged, in characters.
const MAX_ORIGIN: usize = 128;

/// What is not accepted. Nothing secret is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// Of a session: its token.
    Token(AuthError),
    /// Of a session that goes on as another one: its resume secret.
    Resume(ResumeError),
    /// Of a session: the web page that asks for it.
    Origin(&'a str),
    /// Of a session: it would be one too many.
    Limit(Limit),
    /// Of a session: what came is no upgrade to WebSocket, as where a proxy does not pass that on.
    Upgrade,
    /// Of a connection: the process may not have many more open files.
    OpenFiles,
    /// Of a request to the API: its key.
    ApiKey,
    /// Of a request to the API: the host that it is for.
    Host,
}

impl Refusal<'_> {
    /// A few words, out of a fixed number, for logs and metrics.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Token(error) => error.cause(),
            Self::Resume(error) => error.cause(),
            Self::Origin(_) => "the page's origin is not allowed",
            Self::Limit(limit) => limit.cause(),
            Self::Upgrade => {
                "it was not asked for as a WebSocket: does a proxy pass on Upgrade and Connection, over HTTP/1.1?"
            }
            Self::OpenFiles => "the limit of open files is reached (LimitNOFILE)",
            Self::ApiKey => "the API key is missing or another one",
            Self::Host => "the API is for this machine alone",
        }
    }

    fn outcome(self) -> &'static str {
        match self {
            Self::Token(_) | Self::Origin(_) | Self::Limit(_) | Self::Upgrade => "a session was refused",
            Self::OpenFiles => "a connection was refused",
            Self::Resume(_) => "a session was not resumed and begins anew",
            Self::ApiKey | Self::Host => "a request to the API was refused",
        }
    }

    /// What an operator may want to allow. It is the peer's own text.
    fn origin(self) -> Option<String> {
        match self {
            Self::Origin(origin) => Some(origin.chars().take(MAX_ORIGIN).collect()),
            _ => None,
        }
    }

    /// Whose limit may be too low: behind a proxy all sessions are of its address.
    fn address(self) -> Option<IpAddr> {
        match self {
            Self::Limit(Limit::Address(address) | Limit::Newcomers(address)) => Some(address),
            _ => None,
        }
    }
}

/// By cause, of which there are few: when it was logged last, and how often it happened since.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<HashMap<&'static str, (Instant, u64)>>);

impl Refusals {
    /// Logs a refusal, now or with a later one of its cause.
    pub(crate) fn log(&self, refusal: Refusal<'_>) {
        let cause = refusal.cause();
        if let Some(more) = self.due(cause, Instant::now()) {
            let (origin, address) = (refusal.origin(), refusal.address().map(tracing::field::display));
            tracing::warn!(cause, more, origin, address, "{}", refusal.outcome());
        }
    }

    /// How many were passed over before this one; none if it is passed over itself.
    fn due(&self, cause: &'static str, now: Instant) -> Option<u64> {
        let mut causes = self.0.lock();
        match causes.get_mut(cause) {
            Some((logged, more)) if now.saturating_duration_since(*logged) < LOG_INTERVAL => {
                *more += 1;
                None
            }
            Some(last) => Some(std::mem::replace(last, (now, 0)).1),
            None => {
                causes.insert(cause, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn each_cause_is_logged_at_once_and_then_no_more_often_than_the_log_bears() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.due("one", now), Some(0));
        for _ in 0..1_000 {
            assert_eq!(refusals.due("one", now), None);
        }
        assert_eq!(refusals.due("another", now), Some(0));
        assert_eq!(refusals.due("one", now + LOG_INTERVAL), Some(1_000));
    }

    #[test]
    fn the_log_tells_the_cause_and_which_origin_to_allow_and_nothing_that_is_secret() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || Writer(writer.clone())).finish();
        tracing::subscriber::with_default(subscriber, || {
            let refusals = Refusals::default();
            refusals.log(Refusal::Origin("https://evil.example\n"));
            refusals.log(Refusal::Resume(ResumeError::Invalid));
            refusals.log(Refusal::ApiKey);
            refusals.log(Refusal::ApiKey);
            refusals.log(Refusal::Limit(Limit::Address([192, 0, 2, 1].into())));
        });
        let log = String::from_utf8(log.lock().clone()).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 4, "{log}");
        assert!(
            lines[0].contains("a session was refused") && lines[0].contains(r"https://evil.example\n"),
            "{log}"
        );
        assert!(lines[1].contains("begins anew") && lines[1].contains(ResumeError::Invalid.cause()), "{log}");
        assert!(lines[2].contains("a request to the API was refused"), "{log}");
        assert!(lines[3].contains("limits.sessions_per_address") && lines[3].contains("192.0.2.1"), "{log}");
    }

    struct Writer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
