//! How many sessions a node, an address and a user may have, and which of them are there.

use crate::limits::{AddressBlock, Limit, Place, Quota};
use std::{net::IpAddr, sync::Arc};

/// The most of each kind.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub sessions: usize,
    pub sessions_per_address: usize,
    pub(crate) sessions_per_user: usize,
    /// Transports of an address on which nobody has said yet who comes.
    pub(crate) newcomers_per_address: usize,
}

/// The places that sessions take.
pub struct Quotas {
    /// All sessions, counted under one key.
    node: Arc<Quota<()>>,
    addresses: Arc<Quota<AddressBlock>>,
    users: Arc<Quota<Arc<str>>>,
    newcomers: Arc<Quota<AddressBlock>>,
}

/// A session's places in the limits of the node, its address and its user; given back when dropped.
pub struct Places {
    _node: Place<()>,
    address: Place<AddressBlock>,
    _user: Option<Place<Arc<str>>>,
}

impl Quotas {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            node: Quota::new(bounds.sessions),
            addresses: Quota::new(bounds.sessions_per_address),
            users: Quota::new(bounds.sessions_per_user),
            newcomers: Quota::new(bounds.newcomers_per_address),
        }
    }

    /// A place for a transport on which nobody has said yet who comes.
    ///
    /// # Errors
    /// When this address has too many of them.
    pub fn newcomer(&self, address: IpAddr) -> Result<Place<AddressBlock>, Limit> {
        self.newcomers.take(AddressBlock::of(address)).ok_or(Limit::Newcomers(address))
    }

    /// The places of a session.
    ///
    /// # Errors
    /// Which limit it would go beyond.
    pub fn take(&self, address: IpAddr, user: Option<Arc<str>>) -> Result<Places, Limit> {
        Ok(Places {
            _node: self.node.take(()).ok_or(Limit::Node)?,
            address: self.addresses.take(AddressBlock::of(address)).ok_or(Limit::Address(address))?,
            _user: user.map(|user| self.users.take(user).ok_or(Limit::User)).transpose()?,
        })
    }

    /// The places of a session that takes over from a transport of its own, which still has them.
    pub fn take_over(&self, address: IpAddr, user: Option<Arc<str>>) -> Places {
        Places {
            _node: self.node.take_beyond(()),
            address: self.addresses.take_beyond(AddressBlock::of(address)),
            _user: user.map(|user| self.users.take_beyond(user)),
        }
    }
}

impl Places {
    /// The session goes on from another address, and counts there, even if it is one too many.
    pub fn moved(&mut self, quotas: &Quotas, address: IpAddr) {
        self.address = quotas.addresses.take_beyond(AddressBlock::of(address));
    }
}
