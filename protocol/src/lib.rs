//! The `skywave.v1` wire protocol: frames, encodings, framing, positions, codes, heartbeats. No IO, no clock.

#![warn(unreachable_pub)]

pub mod channel;
pub mod codec;
pub mod codes;
pub mod form;
pub mod frame;
pub mod framing;
pub mod heartbeat;
pub mod payload;
pub mod position;
pub mod salvage;
pub mod text;

pub use channel::Channel;
pub use codec::{DecodeError, Encoding};
pub use codes::{CloseCode, ErrorCode};
pub use form::Form;
pub use frame::{ClientFrame, RequestId, ServerFrame};
pub use payload::{Json, Payload};
pub use position::{Admission, Point, Position};
pub use text::Text;

/// The path of the one endpoint that both transports share.
pub const CONNECT_PATH: &str = "/v1/connect";
/// WebSocket subprotocol with JSON text frames; the default when a client offers none.
pub const SUBPROTOCOL_JSON: &str = "skywave.v1.json";
/// WebSocket subprotocol with MessagePack binary frames.
pub const SUBPROTOCOL_MSGPACK: &str = "skywave.v1.msgpack";
