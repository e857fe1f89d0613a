//! Moving a node's sessions elsewhere, as an operator orders it.

use super::{Api, command::Command, failure::Failure};
use crate::{
    cluster::moving::{self, MAX_PER_SECOND, Order},
    config::nodes_url,
};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use skywave_protocol::ErrorCode;
use std::{num::NonZeroU32, sync::Arc};

/// The longest address, in bytes.
const MAX_URL_BYTES: usize = 1_024;

/// `drain`: asks sessions to move to other nodes; without `sessions` all of them, and takes no new ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    /// How many.
    sessions: Option<usize>,
    /// How many of them are asked within a second; by default all are asked at once, each to go at its own time.
    sessions_per_second: Option<u32>,
    /// Where to; by default to the nodes that suit them.
    url: Option<String>,
    /// The process ends once all have gone.
    #[serde(default)]
    exit: bool,
}

#[derive(Serialize)]
pub(crate) struct DrainAnswer {
    /// Those that are to move.
    sessions: usize,
}

impl Command for Drain {
    type Answer = DrainAnswer;

    async fn run(self, api: &Api) -> Result<DrainAnswer, Failure> {
        let exit = self.exit;
        let order = self.order()?;
        let drains = order.sessions.is_none();
        let sessions = moving::begin(&api.node.cluster, order).map_err(|nowhere| {
            Failure::new(ErrorCode::NotAvailable, nowhere.to_string()).with_status(StatusCode::CONFLICT)
        })?;
        if exit && drains {
            api.node.cluster.moving.exit.notify_one();
        }
        Ok(DrainAnswer { sessions })
    }
}

impl Drain {
    fn order(self) -> Result<Order, Failure> {
        let bad = |message: String| Failure::new(ErrorCode::BadRequest, message);
        if self.sessions == Some(0) {
            return Err(bad("`sessions` is 1 or more".to_owned()));
        }
        if self.exit && self.sessions.is_some() {
            return Err(bad("`exit` is for a node that all sessions leave, without `sessions`".to_owned()));
        }
        let rate = |rate: u32| {
            let rate = NonZeroU32::new(rate).filter(|rate| rate.get() <= MAX_PER_SECOND);
            rate.ok_or_else(|| bad(format!("`sessions_per_second` is 1 to {MAX_PER_SECOND}")))
        };
        let url = |url: String| match nodes_url(&url) {
            Ok(url) if url.len() <= MAX_URL_BYTES => Ok(Arc::from(url)),
            Ok(_) => Err(bad(format!("`url` has more than {MAX_URL_BYTES} bytes"))),
            Err(expected) => Err(bad(format!("`url`: {expected}"))),
        };
        Ok(Order {
            sessions: self.sessions,
            per_second: self.sessions_per_second.map(rate).transpose()?,
            url: self.url.map(url).transpose()?,
        })
    }
}
