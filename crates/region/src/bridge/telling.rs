//! What a node's log says of leading a link.

use super::course::Interruption;
use std::time::Duration;
use tokio::time::Instant;

/// What is in the way of a link is told again this often.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// What is logged of leading. Nothing more while nodes try in turn and the other region stays away; little of a link
/// that begins anew again and again.
pub(crate) struct Telling<'a> {
    region: &'a str,
    leads: bool,
    is_away: bool,
    /// Of a link that did not hold: what was told last, and when.
    interruption: Option<(String, Instant)>,
}

impl<'a> Telling<'a> {
    pub(crate) fn new(region: &'a str) -> Self {
        Self { region, leads: false, is_away: false, interruption: None }
    }

    /// The link has both its ends.
    pub(crate) fn leads(&mut self, token: u64) {
        self.is_away = false;
        if !std::mem::replace(&mut self.leads, true) {
            tracing::info!(region = self.region, token, "this node leads the link");
        }
    }

    pub(crate) fn is_away(&mut self) {
        if !std::mem::replace(&mut self.is_away, true) {
            tracing::warn!(
                region = self.region,
                "the Redis at an end of the link is away or refused; the nodes of this region try it in turn"
            );
        }
    }

    /// It held for long enough: whatever ends it is news.
    pub(crate) fn holds_well(&mut self) {
        self.interruption = None;
    }

    /// Told at once when the reason changes, and from time to time.
    pub(crate) fn begins_anew(&mut self, interruption: &Interruption) {
        let reason = interruption.to_string();
        let is_told = |(told, at): &(String, Instant)| *told == reason && at.elapsed() < TOLD_AGAIN;
        if self.interruption.as_ref().is_some_and(is_told) {
            tracing::debug!(region = self.region, reason, "the link begins anew again");
        } else {
            tracing::warn!(region = self.region, interruption = reason, "the link begins anew");
            self.interruption = Some((reason, Instant::now()));
        }
    }

    pub(crate) fn yields(&mut self) {
        if std::mem::take(&mut self.leads) {
            tracing::info!(region = self.region, "this node leads the link no more");
        }
    }
}
