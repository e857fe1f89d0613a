//! Who waits for what comes of a request: the session knows them by their tickets.

use crate::error::RequestError;
use skywave_client_session::Ticket;
use skywave_protocol::ServerFrame;
use std::collections::HashMap;
use tokio::sync::oneshot;

type Reply = oneshot::Sender<Result<ServerFrame, RequestError>>;

#[derive(Debug, Default)]
pub(super) struct Answers {
    waiting: HashMap<Ticket, Reply>,
    last: u64,
}

impl Answers {
    /// Gives a ticket to somebody who waits.
    pub(crate) fn wait(&mut self, reply: Reply) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.waiting.insert(ticket, reply);
        ticket
    }

    pub(crate) fn give(&mut self, ticket: Ticket, answer: Result<ServerFrame, RequestError>) {
        if let Some(reply) = self.waiting.remove(&ticket) {
            // Nobody may wait any more: then it came too late.
            let _ = reply.send(answer);
        }
    }

    /// Lets those go who wait no more.
    pub(crate) fn take_gone(&mut self) -> Vec<Ticket> {
        self.waiting.extract_if(|_, reply| reply.is_closed()).map(|(ticket, _)| ticket).collect()
    }
}
