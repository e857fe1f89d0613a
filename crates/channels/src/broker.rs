//! What carries publications between the nodes of a region, keeps their history and gives them positions.

mod clock;
pub mod memory;

pub use clock::HybridClock;

use crate::{
    broadcast::{Event, Publication},
    namespace::NamespaceConfig,
};
use futures_util::future::BoxFuture;
use skywave_protocol::{
    Channel, ErrorCode, Payload, Point, Position, Text,
    frame::{GapReason, Key},
    position::{Epoch, Origin},
};
use std::{sync::Arc, time::Duration};

/// The most publications in one [`Chunk`].
pub const MAX_CHUNK: usize = 256;

/// For how long an idempotency key is remembered at least, in every broker: what clients are told.
pub const IDEMPOTENCY: Duration = Duration::from_secs(5 * 60);
/// For how much longer it is, since a publish that was sent in time may be long under way.
const UNDER_WAY: Duration = Duration::from_secs(60);
/// The longest for which one is remembered.
const MAX_KEY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long an idempotency key is remembered: as long as history is, within bounds.
pub fn key_age(namespace: Option<&NamespaceConfig>) -> Duration {
    let history_age = namespace.map_or(Duration::ZERO, |namespace| namespace.history_age);
    history_age.clamp(IDEMPOTENCY + UNDER_WAY, MAX_KEY_AGE)
}

/// A publication to be accepted.
#[derive(Debug, Clone)]
pub struct Publish {
    pub channel: Channel,
    pub data: Payload,
    pub key: Option<Key>,
    pub user: Option<Arc<str>>,
}

/// Where an accepted publication stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub origin: Origin,
    pub epoch: Epoch,
    pub offset: u64,
    /// Its key was known: this is the position of the first one, and nothing new was published.
    pub duplicate: bool,
}

/// Where reading a channel begins.
#[derive(Debug, Clone)]
pub enum ReadFrom {
    /// Now: nothing is read, only the head is told.
    Head,
    /// With the last so many publications.
    Latest(usize),
    /// After a position.
    Position(Position),
}

/// Publications that can never be had; reading goes on after `point`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub origin: Origin,
    pub reason: GapReason,
    pub point: Point,
}

/// A part of a channel's history, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    /// The position before the first publication, and before what is lost.
    pub start: Position,
    pub lost: Vec<Lost>,
    pub publications: Vec<Arc<Publication>>,
    /// More is lost behind these publications, for this reason; the chunk ends before it, and the next one tells it.
    pub loss_ahead: Option<GapReason>,
    /// Origins whose earlier publications are still being brought to the region. What is missing of them is not lost:
    /// subscribers are [uncertain](Delivery::uncertain) once all has come.
    pub coming: Vec<Origin>,
    /// Nothing more was there when it was read.
    pub complete: bool,
    /// How many publications follow on `start` and what is lost, as far as all of them are known to be retained.
    pub follows: Option<u64>,
}

impl Chunk {
    /// Why not all that followed the asked position can be had, as far as it is known.
    pub fn loss(&self) -> Option<GapReason> {
        self.lost.first().map(|lost| lost.reason).or(self.loss_ahead)
    }
}

/// A page of a channel's history, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub publications: Vec<Arc<Publication>>,
    /// Leads further back.
    pub cursor: Option<Text<128>>,
    /// More is retained in the direction that was asked for.
    pub more: bool,
}

/// Which page of a channel's history.
#[derive(Debug, Clone)]
pub enum PageOf {
    Last,
    After(Position),
    Before(Text<128>),
}

/// How large a page may be.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    pub publications: usize,
    /// Of their payloads.
    pub bytes: usize,
}

impl PageLimit {
    /// Takes from `publications` while they fit.
    pub fn take<'a>(self, publications: impl Iterator<Item = &'a Arc<Publication>>) -> Vec<Arc<Publication>> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        for publication in publications.take(self.publications) {
            bytes += publication.frame().data.size();
            if bytes > self.bytes && !taken.is_empty() {
                break;
            }
            taken.push(publication.clone());
        }
        taken
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The namespace is not configured.
    #[error("no namespace `{0}`")]
    UnknownNamespace(String),
    /// A cursor that this broker did not give out.
    #[error("not a cursor")]
    BadCursor,
    /// No more idempotency keys can be remembered for now; try again.
    #[error("too many idempotency keys are remembered just now")]
    TooManyKeys,
    /// The broker cannot be reached now, or cannot do this now; try again.
    #[error("the broker cannot do this now")]
    Unavailable,
}

impl BrokerError {
    /// What clients and operators are told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownNamespace(_) => ErrorCode::UnknownNamespace,
            Self::BadCursor => ErrorCode::BadRequest,
            Self::TooManyKeys => ErrorCode::RateLimited,
            Self::Unavailable => ErrorCode::Unavailable,
        }
    }
}

/// Takes what the broker delivers to this node. Called in order per (channel, origin); never blocks.
pub trait Delivery: Send + Sync {
    fn publication(&self, publication: &Arc<Publication>);
    fn event(&self, event: &Arc<Event>);
    /// Positions on these channels may have another epoch. Their subscribers read on from where they stand, so that
    /// they are told now, not with the next publication.
    fn uncertain(&self, is_affected: &dyn Fn(&Channel) -> bool);
    /// Whether anybody is subscribed to the channel here.
    fn is_followed(&self, channel: &Channel) -> bool;
}

/// Carries publications and events, and remembers publications.
///
/// What is published and emitted takes effect in the order of the calls, even if their futures are awaited later. What
/// is read is as it is when it is read: with all that was accepted before it was asked for.
pub trait Broker: Send + Sync {
    /// Accepts a publication: gives it the next offset, remembers it, delivers it everywhere.
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>>;

    /// Delivers an event everywhere; nothing is stored, and nobody waits: it may be lost.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be sent now.
    fn emit(&self, event: Arc<Event>) -> Result<(), BrokerError>;

    /// Reads at most [`MAX_CHUNK`] publications.
    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>>;

    /// How many partitions there are, at least one.
    fn partitions(&self) -> u16 {
        1
    }

    /// Which channels fail together: what does not answer for one of another partition may answer for this one. Less
    /// than [`Self::partitions`].
    fn partition(&self, _channel: &Channel) -> u16 {
        0
    }

    /// A page within `limit`, and with one publication at least if there is one.
    fn history(
        &self,
        channel: &Channel,
        page: PageOf,
        limit: PageLimit,
    ) -> BoxFuture<'static, Result<Page, BrokerError>>;

    /// Whether calls can succeed now, as far as is known.
    fn is_available(&self) -> bool {
        true
    }

    /// For how long what it is built on has been silent; zero while that answers.
    fn away_for(&self) -> Duration {
        Duration::ZERO
    }

    /// For how long nothing of what others publish or emit can have come; zero while it comes.
    fn deaf_for(&self) -> Duration {
        Duration::ZERO
    }
}
