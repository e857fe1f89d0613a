//! What lies beneath an error: many of those of HTTP say nothing but that a request failed.

use std::error::Error;

/// The cause that has none itself.
pub fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root
}
