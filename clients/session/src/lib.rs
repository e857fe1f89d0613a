//! A client's session with a Skywave node, without IO: whoever drives it hands in what happened and the time, and carries
//! out what it says.
//!
//! There is no clock, no socket, no task and no source of chance in here: each call is told the [`Time`], [`Chance`] is
//! given, frames go out as [`Output`], and [`Session::deadline`] says when to call again. So a session can be run in virtual
//! time; `protocol/vectors/sessions/` does that with this one and with that of the TypeScript client.

#![warn(unreachable_pub)]

pub mod backoff;
mod candidates;
mod carrier;
mod channel_event;
mod connect_error;
mod connecting;
mod connection;
mod error;
mod heartbeat;
mod living;
mod moving;
mod opening;
mod output;
mod pacer;
mod phase;
mod publishes;
mod race_memory;
mod receiving;
mod requests;
mod round_trips;
mod route;
mod session;
mod status;
mod subscribing;
mod subscription;
mod time;
mod tokens;
mod traffic;
mod transport_kind;
pub mod url;

pub use backoff::Backoff;
use carrier::Carrier;
pub use channel_event::{ChannelEvent, Full, Reader, Subscribed};
pub use connect_error::{ConnectError, DialFailure, TokenError};
use connection::Connection;
pub use connection::ConnectionId;
pub use error::RequestError;
pub use opening::Dialed;
pub use output::{Dial, Lane, Output, Ticket};
use phase::{Arrival, Held};
pub use publishes::Publish;
pub use race_memory::Plan;
use requests::Waiter;
use route::{Route, Wish};
pub use route::{RouteOptions, STAGGER, Target};
pub use session::{Session, SessionOptions, Surroundings, Tokens};
pub use status::{Connected, Status};
use subscribing::Wanted;
pub use subscription::SubscriptionId;
pub use time::Time;
use tokens::TokenSchedule;
use traffic::Settled;
pub use traffic::{Traffic, TrafficOptions};
pub use transport_kind::{TransportChoice, TransportKind};

/// Gives a number from 0 on and below 1 each time, all of them alike.
pub type Chance = Box<dyn FnMut() -> f64 + Send>;
