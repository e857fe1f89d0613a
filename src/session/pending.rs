//! What a session waits for: it goes on meanwhile, and each kind of request has a bound of its own.

use super::{filling::Filling, joining::Joined};
use crate::auth::{AuthError, Grant};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use skywave_protocol::{ServerFrame, frame::RequestId};
use std::time::Duration;

/// What a publish takes beside its payload, in bytes.
const PUBLISH_OVERHEAD: usize = 512;
/// After this a request may find room that found none.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What came of work.
pub(crate) enum Done {
    Reply(ServerFrame),
    Answered(ServerFrame),
    Refreshed(RequestId, Result<Grant, AuthError>),
    Joined(Joined),
    Read(Filling),
}

/// What a piece of work counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// A publish with so many bytes of payload.
    Publish(usize),
    Refresh,
    /// Reading; whoever begins it bounds it.
    Reading,
}

/// Work under way. Dropped, none of it goes on.
pub(crate) struct Pending {
    work: FuturesUnordered<BoxFuture<'static, (Load, Done)>>,
    /// For all publishes together, in bytes; one may always be made.
    publish_room: usize,
    publish_bytes: usize,
    refreshes: usize,
}

impl Pending {
    /// With room for so many bytes of publishes.
    pub(crate) fn new(publish_room: usize) -> Self {
        let work = FuturesUnordered::new();
        Self { work, publish_room, publish_bytes: 0, refreshes: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// Whether more of this may begin now.
    pub(crate) fn has_room(&self, load: Load) -> bool {
        match load {
            Load::Publish(bytes) => {
                self.publish_bytes == 0 || self.publish_bytes + PUBLISH_OVERHEAD + bytes <= self.publish_room
            }
            // The later of two may be checked before the earlier.
            Load::Refresh => self.refreshes == 0,
            Load::Reading => true,
        }
    }

    /// Begins work. That it has room was asked before.
    pub(crate) fn begin(&mut self, load: Load, work: impl Future<Output = Done> + Send + 'static) {
        match load {
            Load::Publish(bytes) => self.publish_bytes += PUBLISH_OVERHEAD + bytes,
            Load::Refresh => self.refreshes += 1,
            Load::Reading => {}
        }
        self.work.push(work.map(move |done| (load, done)).boxed());
    }

    /// What is done next; `None` when nothing is under way.
    pub(crate) async fn next(&mut self) -> Option<Done> {
        let (load, done) = self.work.next().await?;
        match load {
            Load::Publish(bytes) => self.publish_bytes -= PUBLISH_OVERHEAD + bytes,
            Load::Refresh => self.refreshes -= 1,
            Load::Reading => {}
        }
        Some(done)
    }
}
