//! The Rust client of Skywave: one session over WebTransport or WebSocket, resumed by itself.
//!
//! ```no_run
//! use skywave_client::{ChannelEvent, Client, ClientOptions, Json, SubscribeOptions};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientOptions::new("https://localhost:4433")).await?;
//! let mut room = client.subscribe("chat:1", SubscribeOptions::default()).await?;
//! client.publish("chat:1", Json::of(&"hello")?).await?;
//! while let Some(event) = room.next().await {
//!     if let ChannelEvent::Publication(publication) = event {
//!         println!("{:?}", publication.data);
//!         break;
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! What the client does by itself:
//! - **Transport**: WebTransport with a head start, WebSocket beside it; whichever connects first.
//! - **Breaks**: reconnects with full jitter and resumes every subscription from its position: each
//!   publication once, in order, and a [`Gap`](ChannelEvent::Gap) where some are lost for good.
//! - **Nodes that are gone**: when the last node does not answer at once, handshakes with the others begin
//!   as well, those given and those that nodes told of, the fastest known first; the first that completes
//!   gets the session, and there it stays.
//! - **Publishes** are kept until answered and sent again with the same idempotency key.
//! - **Moves** (a drain, another transport): the new connection is opened before the old one is closed.
//! - **Tokens** are fetched anew ahead of their expiry.
//!
//! Everything is bounded; see [`Subscription`] for what happens to a reader that is too slow.

#![warn(unreachable_pub)]

mod client;
mod engine;
mod error;
mod options;
mod orders;
mod race;
mod readers;
mod staggered;
mod subscription;
pub mod tls;
pub mod transport;
pub use skywave_client_session::url;

pub use client::{Client, HistoryRange};
pub use error::{ConnectError, DialErrors, DialFailure, RequestError, TokenError};
pub use options::{ClientOptions, TokenSource};
pub use skywave_client_session::{Backoff, Connected, Status, TransportChoice};
pub use skywave_protocol as protocol;
pub use skywave_protocol::{
    Channel, Encoding, Json, Payload, Position,
    frame::{
        Event, Gap, GapReason, History, Member, Members, Network, Presence, PresenceChanged, Publication,
        Published, SubscribeOptions,
    },
};
pub use subscription::{ChannelEvent, Subscribed, Subscription};
pub use tls::CertificateCheck;
pub use transport::TransportKind;
