//! The node seen from outside: each scenario over WebTransport, and over WebSocket in both encodings and on HTTP/2.

mod channels;
mod peer;
mod resume;
mod sessions;
mod world;
