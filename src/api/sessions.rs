//! Which sessions are connected to this node, and ending them.

use super::{Api, command::Command, failure::Failure};
use crate::session::registry::{Attached, Registry};
use serde::{Deserialize, Serialize};
use skywave_protocol::{CloseCode, ErrorCode, frame::SessionId};
use std::{net::SocketAddr, sync::Arc};

/// The most sessions that one answer lists.
const MAX_LISTED: usize = 1000;
/// How many sessions are listed when it is not said.
const DEFAULT_LIMIT: usize = 100;

/// `sessions`: the sessions connected to this node.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    user: Option<String>,
    session: Option<String>,
    /// Only those whose id comes after this one: the last of the page before.
    after: Option<String>,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    DEFAULT_LIMIT
}

#[derive(Serialize)]
pub struct SessionsAnswer {
    /// How many match `user` and `session`, listed or not.
    count: usize,
    /// By id.
    sessions: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    session: SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    transport: &'static str,
    address: SocketAddr,
    connected_at_ms: u64,
}

impl Command for Sessions {
    type Answer = SessionsAnswer;

    async fn run(self, api: &Api) -> Result<SessionsAnswer, Failure> {
        if !(1..=MAX_LISTED).contains(&self.limit) {
            return Err(Failure::new(ErrorCode::BadRequest, format!("`limit` is 1 to {MAX_LISTED}")));
        }
        let mut matching = matching(&api.node.sessions, self.session.as_deref(), self.user.as_deref());
        let count = matching.len();
        if let Some(after) = self.after.as_deref() {
            matching.retain(|(id, _)| **id > *after);
        }
        matching.sort_unstable_by(|(id, _), (other, _)| id.cmp(other));
        matching.truncate(self.limit);
        let listed = |(session, attached): (SessionId, Attached)| Listed {
            session,
            user: attached.user,
            transport: attached.transport,
            address: attached.address,
            connected_at_ms: attached.connected_at_ms,
        };
        Ok(SessionsAnswer { count, sessions: matching.into_iter().map(listed).collect() })
    }
}

fn matching(registry: &Registry, session: Option<&str>, user: Option<&str>) -> Vec<(SessionId, Attached)> {
    let mut matching = Vec::new();
    registry.each(|id, attached| {
        let is_user = user.is_none_or(|user| attached.user.as_deref() == Some(user));
        if is_user && session.is_none_or(|session| **id == *session) {
            matching.push((id.clone(), attached.clone()));
        }
    });
    matching
}

/// `disconnect`: ends one session, or all of a user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    user: Option<String>,
    session: Option<String>,
    /// A close code of the protocol, by its number …
    code: Option<u16>,
    /// … or by its word.
    reason: Option<String>,
}

#[derive(Serialize)]
pub struct DisconnectAnswer {
    disconnected: usize,
}

impl Command for Disconnect {
    type Answer = DisconnectAnswer;

    async fn run(self, api: &Api) -> Result<DisconnectAnswer, Failure> {
        if self.user.is_some() == self.session.is_some() {
            return Err(Failure::new(
                ErrorCode::BadRequest,
                "either `user` or `session` says whom to disconnect",
            ));
        }
        let code = close_code(self.code, self.reason.as_deref())?;
        let matching = matching(&api.node.sessions, self.session.as_deref(), self.user.as_deref());
        for (session, attached) in &matching {
            tracing::info!(%session, code = code.code(), "disconnected by the API");
            attached.outbox.close(code);
        }
        Ok(DisconnectAnswer { disconnected: matching.len() })
    }
}

fn close_code(number: Option<u16>, word: Option<&str>) -> Result<CloseCode, Failure> {
    if number.is_none() && word.is_none() {
        return Ok(CloseCode::Disconnected);
    }
    let fits = |code: &&CloseCode| {
        number.is_none_or(|number| code.code() == number) && word.is_none_or(|word| code.reason() == word)
    };
    let known = CloseCode::ALL.iter().find(fits).copied();
    known.ok_or_else(|| {
        let message =
            "`code` and `reason` are those of one close code of the protocol, such as 3504 `disconnected`";
        Failure::new(ErrorCode::BadRequest, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_code_is_named_by_its_number_or_its_word() {
        assert_eq!(close_code(None, None).unwrap(), CloseCode::Disconnected);
        assert_eq!(close_code(Some(3000), None).unwrap(), CloseCode::Drain);
        assert_eq!(close_code(None, Some("rotate")).unwrap(), CloseCode::Rotate);
        assert_eq!(close_code(Some(3504), Some("disconnected")).unwrap(), CloseCode::Disconnected);
    }

    #[test]
    fn a_close_code_that_is_none_or_two_is_refused() {
        for (number, word) in [(Some(1000), None), (None, Some("bye")), (Some(3504), Some("rotate"))] {
            assert!(close_code(number, word).is_err(), "{number:?} {word:?}");
        }
    }
}
