//! A client's session with a Skywave node, without IO: whoever drives it hands in what happened and the time, and carries
//! out what it says.
//!
//! There is no clock, no socket, no task and no source of chance in here: each call is told the [`Time`], [`Chance`] is
//! given, frames go out as [`Output`], and [`Traffic::deadline`] says when to call again. So a session can be run in virtual
//! time; `protocol/vectors/sessions/` does that with this one and with that of the TypeScript client.

#![warn(unreachable_pub)]

pub mod backoff;
mod candidates;
mod channel_event;
mod error;
mod heartbeat;
mod link;
mod living;
mod output;
mod pacer;
mod phase;
mod publishes;
mod race_memory;
mod requests;
mod round_trips;
mod route;
mod subscribing;
mod subscription;
mod time;
mod tokens;
mod traffic;
mod transport_kind;
pub mod url;

pub use backoff::Backoff;
pub use channel_event::{ChannelEvent, Full, Reader, Subscribed};
pub use error::RequestError;
pub use link::{ConnectionId, Link};
pub use output::{Lane, Output, Ticket};
pub use phase::{Arrival, Held};
pub use publishes::Publish;
pub use race_memory::Plan;
pub use requests::{Question, Waiter};
pub use route::{Route, RouteOptions, STAGGER, Target, Wish};
pub use subscribing::{Fault, Wanted};
pub use subscription::SubscriptionId;
pub use time::Time;
pub use tokens::TokenSchedule;
pub use traffic::{Settled, Traffic, TrafficOptions};
pub use transport_kind::{TransportChoice, TransportKind};

/// Gives a number from 0 on and below 1 each time, all of them alike.
pub type Chance = Box<dyn FnMut() -> f64 + Send>;
