//! Which sessions are connected to the nodes of the region, and ending them.

use super::{Api, command::Command, failure::Failure, limit::Limit};
use crate::cluster::questions::{self, Answer, Gathered, Listed, Question, Who};
use serde::{Deserialize, Serialize};
use skywave_protocol::{CloseCode, ErrorCode};
use std::sync::Arc;

/// `sessions`: the sessions connected to the nodes of the region.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sessions {
    user: Option<String>,
    session: Option<String>,
    /// Only those whose id comes after this one: the last of the page before.
    after: Option<String>,
    #[serde(default)]
    limit: Limit,
}

#[derive(Serialize)]
pub(crate) struct SessionsAnswer {
    /// How many match `user` and `session`, listed or not.
    count: usize,
    /// By id.
    sessions: Vec<Listed>,
    /// The nodes that did not answer in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<Arc<str>>,
}

impl Command for Sessions {
    type Answer = SessionsAnswer;

    async fn run(self, api: &Api) -> Result<SessionsAnswer, Failure> {
        let Self { user, session, after, limit } = self;
        let limit = limit.checked()?;
        let question = Question::Sessions { who: Who { user, session }, after, limit };
        let Gathered { answers, silent } = questions::ask(&api.node.cluster, question).await;
        let (mut count, mut sessions) = (0usize, Vec::new());
        for answer in answers {
            if let Answer::Sessions { count: here, listed } = answer {
                count = count.saturating_add(here);
                sessions.extend(listed);
            }
        }
        sessions.sort_unstable_by(|one, other| (&one.session, &one.node).cmp(&(&other.session, &other.node)));
        sessions.truncate(limit);
        Ok(SessionsAnswer { count, sessions, silent })
    }
}

/// `disconnect`: ends one session, or all of a user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disconnect {
    user: Option<String>,
    session: Option<String>,
    /// A close code of the protocol, by its number …
    code: Option<u16>,
    /// … or by its word.
    reason: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct DisconnectAnswer {
    disconnected: usize,
    /// The nodes that did not answer in time; their sessions may have been ended all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<Arc<str>>,
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
        let Self { user, session, .. } = self;
        let question = Question::Disconnect { who: Who { user, session }, code: code.code() };
        let Gathered { answers, silent } = questions::ask(&api.node.cluster, question).await;
        let count = |answer: &Answer| if let Answer::Disconnected(count) = answer { *count } else { 0 };
        let disconnected = answers.iter().map(count).fold(0, usize::saturating_add);
        Ok(DisconnectAnswer { disconnected, silent })
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
