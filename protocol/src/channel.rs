//! Channel names: `namespace:name` or `@user`.

use serde::{Deserialize, Deserializer, Serialize, de};
use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

/// The most bytes that a channel's name may have.
pub const MAX_CHANNEL_BYTES: usize = 255;
/// The most bytes that a namespace may have.
pub const MAX_NAMESPACE_BYTES: usize = 32;
/// The namespace of user channels in the configuration.
pub const USER_NAMESPACE: &str = "@";

/// A valid channel name: 1 … 255 bytes of UTF-8 without control characters, compared byte by byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Channel(Arc<str>);

/// Why a text is not a channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannel {
    #[error("a channel has 1 to {MAX_CHANNEL_BYTES} bytes")]
    Length,
    #[error("a channel has no control characters")]
    Control,
    #[error("a channel is `namespace:name` with a namespace of [a-z0-9_-]{{1,32}}, or `@user`")]
    Shape,
}

impl Channel {
    /// # Errors
    /// `InvalidChannel` says which rule `name` breaks.
    pub fn new(name: &str) -> Result<Self, InvalidChannel> {
        if name.is_empty() || name.len() > MAX_CHANNEL_BYTES {
            return Err(InvalidChannel::Length);
        }
        if name.chars().any(char::is_control) {
            return Err(InvalidChannel::Control);
        }
        let well_formed = match name.strip_prefix('@') {
            Some(user) => !user.is_empty(),
            None => name
                .split_once(':')
                .is_some_and(|(namespace, rest)| is_namespace(namespace) && !rest.is_empty()),
        };
        if well_formed { Ok(Self(Arc::from(name))) } else { Err(InvalidChannel::Shape) }
    }

    /// The part before the first `:`; `@` for a user's channel.
    pub fn namespace(&self) -> &str {
        match self.user() {
            Some(_) => USER_NAMESPACE,
            None => self.0.split_once(':').map_or("", |(namespace, _)| namespace),
        }
    }

    /// The user to whom this channel belongs, for `@user`.
    pub fn user(&self) -> Option<&str> {
        self.0.strip_prefix('@')
    }
}

/// Whether `text` may name a namespace: `[a-z0-9_-]{1,32}`.
pub fn is_namespace(text: &str) -> bool {
    (1..=MAX_NAMESPACE_BYTES).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

impl Deref for Channel {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Channel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Channel;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a channel name")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Channel, E> {
                Channel::new(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaced_and_user_channels_are_valid() {
        assert_eq!(Channel::new("chat:1").unwrap().namespace(), "chat");
        assert_eq!(Channel::new("chat:a:b").unwrap().namespace(), "chat");
        assert_eq!(Channel::new("@alice").unwrap().user(), Some("alice"));
        assert_eq!(Channel::new("@alice").unwrap().namespace(), "@");
        assert!(Channel::new(&format!("a:{}", "x".repeat(253))).is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        let too_long = format!("a:{}", "x".repeat(254));
        for name in ["", "chat", "chat:", ":x", "@", "Chat:1", "chat:\u{7}", "ch at:1", &too_long] {
            assert!(Channel::new(name).is_err(), "{name:?}");
        }
    }
}
