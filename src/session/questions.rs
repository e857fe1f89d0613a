//! What a client asks that may have a large answer: one is answered after the other, as fast as the client reads.

use super::{
    Session,
    connection::Connection,
    pending::{Done, Load, RETRY_AFTER},
    refusal::Refusal,
    subscriptions::{require, require_presence},
};
use crate::{
    broker::{Page, PageLimit, PageOf},
    rights::Right,
};
use skywave_protocol::{
    Channel, CloseCode, ErrorCode, ServerFrame,
    frame::{History, HistoryRequest, MAX_HISTORY_LIMIT, Members, Presence, PresenceRequest, RequestId},
};
use std::collections::VecDeque;

/// The most questions of one session that wait for their turn.
const MAX_WAITING: usize = 64;

pub(crate) enum Question {
    History(HistoryRequest),
    Presence(PresenceRequest),
}

/// A session's questions, in the order in which they came.
#[derive(Default)]
pub(crate) struct Questions {
    waiting: VecDeque<Question>,
    /// One is being answered.
    busy: bool,
}

impl Questions {
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// Whether one waits whose turn it is.
    pub(crate) fn is_due(&self) -> bool {
        !self.busy && !self.waiting.is_empty()
    }

    /// The one that was being answered is done with.
    pub(crate) fn answered(&mut self) {
        self.busy = false;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }
}

impl<C: Connection> Session<C> {
    pub(super) fn ask(&mut self, question: Question) -> Result<(), Refusal> {
        if !self.questions.has_room() {
            return Err(Refusal::later(RETRY_AFTER));
        }
        self.questions.waiting.push_back(question);
        Ok(())
    }

    /// Begins to answer the next question.
    pub(super) fn begin_answer(&mut self) -> Result<(), CloseCode> {
        let Some(question) = self.questions.waiting.pop_front() else { return Ok(()) };
        let (id, begun) = match question {
            Question::History(request) => (request.id, self.history(request)),
            Question::Presence(request) => (request.id, self.presence(request)),
        };
        self.questions.busy = begun.is_ok();
        self.settle(Some(id), begun)
    }

    fn history(&mut self, request: HistoryRequest) -> Result<(), Refusal> {
        require(&self.node, &self.grant, &request.channel, Right::History)?;
        let HistoryRequest { id, channel, limit, after, before } = request;
        if !(1..=MAX_HISTORY_LIMIT).contains(&limit) {
            let message = format!("`limit` is 1 to {MAX_HISTORY_LIMIT}");
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        let page = match (after, before) {
            (Some(_), Some(_)) => {
                return Err(Refusal::new(ErrorCode::BadRequest, "`after` and `before` exclude each other"));
            }
            (Some(position), None) => PageOf::After(position),
            (None, Some(cursor)) => PageOf::Before(cursor),
            (None, None) => PageOf::Last,
        };
        let limit = PageLimit { publications: limit as usize, bytes: self.outbox.max_bytes() / 4 };
        let read = self.node.broker.history(&channel, page, limit);
        self.pending.begin(Load::Reading, async move {
            Done::Answered(match read.await {
                Ok(page) => ServerFrame::History(history(id, channel, page)),
                Err(error) => Refusal::from(error).into_reply(id),
            })
        });
        Ok(())
    }

    fn presence(&mut self, request: PresenceRequest) -> Result<(), Refusal> {
        require_presence(&self.node, &self.grant, &request.channel)?;
        let PresenceRequest { id, channel } = request;
        let asked = self.node.presence.members(&channel);
        self.pending.begin(Load::Reading, async move {
            Done::Answered(match asked.await {
                Ok(Members { count, members }) => {
                    ServerFrame::Presence(Presence { id, channel, count, members })
                }
                Err(error) => Refusal::from(error).into_reply(id),
            })
        });
        Ok(())
    }
}

fn history(id: RequestId, channel: Channel, page: Page) -> History {
    let publications = page.publications.iter().map(|publication| publication.frame().clone()).collect();
    History { id, channel, publications, cursor: page.cursor, more: page.more }
}
