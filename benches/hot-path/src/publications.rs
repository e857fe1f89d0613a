//! Publications as a chat has them.

use skywave_channels::broadcast::{Broadcast, Publication};
use skywave_protocol::{Channel, Json, Payload, Text, frame};
use std::sync::Arc;

pub(crate) fn channel() -> Channel {
    Channel::new("chat:bench").unwrap_or_else(|error| unreachable!("{error}"))
}

pub(crate) fn payload() -> Payload {
    let text = r#"{"text":"The quick brown fox jumps over the lazy dog","mood":"calm"}"#;
    Json::parse(text).unwrap_or_else(|error| unreachable!("{error}")).into()
}

/// A bounded text of a literal that fits.
pub(crate) fn short<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).unwrap_or_else(|error| unreachable!("{error}"))
}

pub(crate) fn frame(offset: u64) -> frame::Publication {
    frame::Publication {
        channel: channel(),
        origin: short("eu"),
        epoch: short("e"),
        offset,
        time_ms: 1_700_000_000_000,
        key: None,
        user: None,
        data: payload(),
    }
}

pub(crate) fn publication(offset: u64) -> Arc<Publication> {
    Broadcast::new(frame(offset))
}
