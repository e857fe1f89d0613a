//! How many sessions or channels an answer lists.

use super::failure::Failure;
use crate::cluster::questions::MAX_LISTED;
use serde::Deserialize;
use skywave_protocol::ErrorCode;

/// As it was asked for; 100 when it was not said.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Limit(usize);

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl Limit {
    /// # Errors
    /// `bad_request` when it is not 1 … [`MAX_LISTED`].
    pub(crate) fn checked(self) -> Result<usize, Failure> {
        if (1..=MAX_LISTED).contains(&self.0) {
            Ok(self.0)
        } else {
            Err(Failure::new(ErrorCode::BadRequest, format!("`limit` is 1 to {MAX_LISTED}")))
        }
    }
}
