//! Who is on a channel, and which channels are in use.

use super::{Api, command::Command, failure::Failure};
use crate::auth::pattern::{MAX_PATTERN_BYTES, Pattern};
use serde::{Deserialize, Serialize};
use skywave_protocol::{Channel, ErrorCode, frame::Members};

/// The most channels that one answer lists.
const MAX_LISTED: usize = 1000;
/// How many channels are listed when it is not said.
const DEFAULT_LIMIT: usize = 100;

/// `presence`: who is on a channel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    channel: Channel,
}

impl Command for Presence {
    type Answer = Members;

    async fn run(self, api: &Api) -> Result<Members, Failure> {
        let name = self.channel.namespace();
        let namespace = api
            .node
            .config
            .namespace(name)
            .ok_or_else(|| Failure::new(ErrorCode::UnknownNamespace, format!("no namespace `{name}`")))?;
        if !namespace.presence {
            return Err(Failure::new(ErrorCode::NotAvailable, "this namespace has no presence"));
        }
        Ok(api.node.presence.members(&self.channel).await?)
    }
}

/// `channels`: the channels with subscribers on this node.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// `*` stands for any characters but `:`, `**` for any.
    pattern: Option<String>,
    prefix: Option<String>,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    DEFAULT_LIMIT
}

#[derive(Serialize)]
pub struct ChannelsAnswer {
    /// How many match, listed or not.
    count: usize,
    /// Those with the most subscribers first.
    channels: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    channel: Channel,
    /// Sessions of this node.
    subscribers: usize,
}

impl Command for Channels {
    type Answer = ChannelsAnswer;

    async fn run(self, api: &Api) -> Result<ChannelsAnswer, Failure> {
        if !(1..=MAX_LISTED).contains(&self.limit) {
            return Err(Failure::new(ErrorCode::BadRequest, format!("`limit` is 1 to {MAX_LISTED}")));
        }
        let bad_pattern =
            || Failure::new(ErrorCode::BadRequest, format!("`pattern` has 1 to {MAX_PATTERN_BYTES} bytes"));
        let pattern =
            self.pattern.as_deref().map(|text| Pattern::new(text).ok_or_else(bad_pattern)).transpose()?;
        let prefix = self.prefix.unwrap_or_default();
        let hub = api.node.hub.clone();
        // A node may have a million channels: their sorting must not hold up sessions.
        let listing = tokio::task::spawn_blocking(move || {
            let mut channels = hub.channels();
            channels.retain(|(channel, _)| {
                channel.starts_with(&prefix)
                    && pattern.as_ref().is_none_or(|pattern| pattern.matches(channel))
            });
            list(channels, self.limit)
        });
        listing.await.map_err(|_| Failure::new(ErrorCode::Internal, "the channels could not be listed"))
    }
}

fn list(mut channels: Vec<(Channel, usize)>, limit: usize) -> ChannelsAnswer {
    let count = channels.len();
    channels.sort_unstable_by(|(name, subscribers), (other_name, other)| {
        other.cmp(subscribers).then_with(|| name.cmp(other_name))
    });
    channels.truncate(limit);
    let channels =
        channels.into_iter().map(|(channel, subscribers)| Listed { channel, subscribers }).collect();
    ChannelsAnswer { count, channels }
}
