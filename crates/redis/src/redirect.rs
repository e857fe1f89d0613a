//! What a server of a cluster answers when a key is not with it, or not yet or no more.

use redis::{ServerError, ServerErrorKind};
use std::sync::Arc;

/// Where to turn instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// Another server has the slot.
    Moved,
    /// The slot is moving, and the key is not here: the other server is to be asked, this once.
    Ask(Arc<str>),
    /// The slot is moving, and some of the keys are here.
    TryAgain,
}

/// The redirection that an error is, if it is one.
pub(crate) fn of(error: &ServerError) -> Option<Redirect> {
    match error.kind()? {
        ServerErrorKind::Moved => Some(Redirect::Moved),
        ServerErrorKind::TryAgain => Some(Redirect::TryAgain),
        ServerErrorKind::Ask => {
            // The slot, then host and port.
            let address = error.details().and_then(|details| details.split_ascii_whitespace().nth(1));
            Some(Redirect::Ask(address.unwrap_or_default().into()))
        }
        _ => None,
    }
}
