//! Text from outside with an upper bound on its length.

use serde::{Deserialize, Deserializer, Serialize, de};
use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

/// A shared string of at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Text<const MAX: usize>(Arc<str>);

/// The text has more bytes than its field allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("text of {length} bytes, at most {maximum} allowed")]
pub struct TooLong {
    pub length: usize,
    pub maximum: usize,
}

impl<const MAX: usize> Text<MAX> {
    /// # Errors
    /// `TooLong` when `text` has more than `MAX` bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TooLong> {
        let text = text.as_ref();
        if text.len() > MAX {
            return Err(TooLong { length: text.len(), maximum: MAX });
        }
        Ok(Self(Arc::from(text)))
    }

    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Borrow<str> for Text<MAX> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const MAX: usize>;
        impl<const MAX: usize> de::Visitor<'_> for Visitor<MAX> {
            type Value = Text<MAX>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a string of at most {MAX} bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<MAX>, E> {
                Text::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor::<MAX>)
    }
}
