//! Input that no good client sends: each attack is answered clearly, and everybody else goes on undisturbed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

mod frames;
mod http;
mod http2;
mod quic;
mod streams;
mod target;
mod websocket;
