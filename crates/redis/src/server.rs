//! A server that has keys: the only one, one of a cluster's masters, or whoever is the master at the time.

use crate::{
    connection::Connection, dialling::Contact, errors::ConnectError, ownership::Ownership,
    sentinel::Sentinels,
};
use skywave_host::Host;
use std::sync::Arc;

/// A server as it is connected to.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its host and port in a cluster; elsewhere there is but one.
    pub name: Arc<str>,
    place: Place,
    /// From where it is connected to.
    pub(crate) host: Host,
    /// Whose it is to be.
    pub(crate) ownership: Arc<Ownership>,
}

#[derive(Debug, Clone)]
pub(crate) enum Place {
    Alone(Contact),
    /// One of a cluster's.
    Member(Contact),
    /// Another server after each failover.
    Sentinel(Arc<Sentinels>),
}

impl Server {
    pub(crate) fn new(name: Arc<str>, place: Place, host: Host, ownership: Arc<Ownership>) -> Self {
        Self { name, place, host, ownership }
    }

    /// Where it is now.
    pub(crate) async fn contact(&self) -> Result<Contact, ConnectError> {
        match &self.place {
            Place::Alone(contact) | Place::Member(contact) => Ok(contact.clone()),
            Place::Sentinel(sentinels) => sentinels.master().await,
        }
    }

    /// Connects, loads the scripts and learns whom it talks to. `name` is shown by `CLIENT LIST`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn connect(&self, name: &str) -> Result<Connection, ConnectError> {
        let dialled = self.contact().await?.commands().await?;
        let alone = !matches!(self.place, Place::Member(_));
        Connection::introduce(dialled, name, (&self.ownership, &self.host.chance), alone).await
    }
}
