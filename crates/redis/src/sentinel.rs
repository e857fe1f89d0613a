//! Asks sentinels which server is the master of a service: another one after each failover.

use crate::{
    dialling::{Contact, Dialling},
    errors::ConnectError,
    hedging,
    reply::{self, Malformed},
    secret::Secret,
};
use futures_util::FutureExt;
use redis::Value;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The sentinels of a service.
#[derive(Debug)]
pub(crate) struct Sentinels {
    sentinels: Vec<Contact>,
    service: String,
    /// As the master is reached, but for its host and port.
    master: Contact,
    /// Who is asked next, so that one who knows less than others is not asked for ever.
    next: AtomicUsize,
}

impl Sentinels {
    /// # Errors
    /// When a URL cannot be read.
    pub(crate) fn new(
        dialling: &Dialling,
        sentinels: &[Secret],
        service: String,
        master: &Secret,
    ) -> Result<Self, ConnectError> {
        let sentinels = sentinels.iter().map(|url| dialling.server(url)).collect::<Result<_, _>>()?;
        Ok(Self { sentinels, service, master: dialling.server(master)?, next: AtomicUsize::new(0) })
    }

    /// The present master. It has said itself that it is one, since what a sentinel knows may be out of date.
    ///
    /// # Errors
    /// `NoMaster` when no sentinel knows one that answers.
    pub(crate) async fn master(&self) -> Result<Contact, ConnectError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.sentinels.len();
        let (before, after) = self.sentinels.split_at(first);
        let mut questions = Vec::with_capacity(self.sentinels.len());
        for sentinel in after.iter().chain(before) {
            questions.push(self.ask(sentinel).boxed());
        }
        let asked = hedging::ask(questions).await;
        asked
            .map_err(|error| ConnectError::NoMaster { service: self.service.clone(), why: error.to_string() })
    }

    async fn ask(&self, sentinel: &Contact) -> Result<Contact, ConnectError> {
        let mut sentinel = sentinel.commands().await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.service);
        let (host, port) = address(question.query_async(&mut sentinel.commands).await?)?;
        let master = self.master.at(host, port);
        let mut connection = master.commands().await?;
        let role = redis::cmd("ROLE").query_async(&mut connection.commands).await?;
        if reply::is_of_master(&role) { Ok(master) } else { Err(ConnectError::Replica) }
    }
}

/// What a sentinel answers: nothing when it does not know the service.
fn address(answer: Value) -> Result<(String, u16), ConnectError> {
    let Value::Array(parts) = answer else { return Err(Malformed("answer of a sentinel").into()) };
    let Ok([host, port]) = <[Value; 2]>::try_from(parts) else {
        return Err(Malformed("answer of a sentinel").into());
    };
    let port = reply::text(port)?.parse().map_err(|_| Malformed("port"))?;
    Ok((reply::text(host)?, port))
}
