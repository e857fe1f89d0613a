//! Publishing on one channel or many, and reading back what was published.

use super::{
    Api,
    command::Command,
    failure::{Failure, Problem},
};
use crate::{
    broker::{self, Accepted, PageLimit, PageOf},
    node::Node,
};
use futures_util::future::{Either, join_all, ready};
use serde::{Deserialize, Serialize};
use skywave_protocol::{
    Channel, ErrorCode, Payload, Position, Text,
    frame::{Key, MAX_HISTORY_LIMIT, Publication},
    payload::{Base64, Data, present},
    position::{Epoch, Origin},
};
use std::collections::HashSet;

/// The most channels of one broadcast.
const MAX_CHANNELS: usize = 1000;
/// Room for the names of so many channels, with escapes.
const CHANNELS_BYTES: usize = 512 * 1024;
/// How many publications `history` gives when it is not said.
const DEFAULT_HISTORY_LIMIT: u32 = 100;

/// In whose name something is published; as long as a user's name may be.
type UserName = Text<254>;

/// `publish`: a publication on one channel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    channel: Channel,
    #[serde(default, deserialize_with = "present")]
    data: Option<Data>,
    data_b64: Option<Base64>,
    key: Option<Key>,
    user: Option<UserName>,
}

/// Where a publication stands.
#[derive(Serialize)]
pub(crate) struct Published {
    origin: Origin,
    epoch: Epoch,
    offset: u64,
}

impl From<Accepted> for Published {
    fn from(accepted: Accepted) -> Self {
        let Accepted { origin, epoch, offset, .. } = accepted;
        Self { origin, epoch, offset }
    }
}

impl Command for Publish {
    type Answer = Published;

    fn max_body_bytes(node: &Node) -> usize {
        node.config.limits.frame_bytes
    }

    async fn run(self, api: &Api) -> Result<Published, Failure> {
        let publish = broker::Publish {
            channel: self.channel,
            data: payload(self.data, self.data_b64, &api.node)?,
            key: self.key,
            user: self.user.map(|user| user.shared()),
        };
        Ok(api.node.publish(publish).await?.into())
    }
}

/// The payload, which has to fit into a frame.
fn payload(data: Option<Data>, data_b64: Option<Base64>, node: &Node) -> Result<Payload, Failure> {
    let payload = Payload::from_fields(data, data_b64)
        .map_err(|message| Failure::new(ErrorCode::BadRequest, message))?;
    let max_bytes = node.config.limits.frame_bytes;
    if payload.size() > max_bytes {
        let message = format!("the payload has more than {max_bytes} bytes");
        return Err(Failure::new(ErrorCode::LimitReached, message));
    }
    Ok(payload)
}

/// `broadcast`: the same publication on many channels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Broadcast {
    /// Names, each of which may turn out to be none.
    channels: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Data>,
    data_b64: Option<Base64>,
    key: Option<Key>,
    user: Option<UserName>,
}

#[derive(Serialize)]
pub(crate) struct BroadcastAnswer {
    /// In the order of the channels.
    results: Vec<ChannelResult>,
}

/// What became of a broadcast on one channel.
#[derive(Serialize)]
struct ChannelResult {
    channel: String,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Published(Published),
    Failed { error: Problem },
}

impl Command for Broadcast {
    type Answer = BroadcastAnswer;

    fn max_body_bytes(node: &Node) -> usize {
        node.config.limits.frame_bytes.saturating_add(CHANNELS_BYTES)
    }

    async fn run(self, api: &Api) -> Result<BroadcastAnswer, Failure> {
        check_channels(&self.channels)?;
        let data = payload(self.data, self.data_b64, &api.node)?;
        let user = self.user.map(|user| user.shared());
        let accepting = self.channels.iter().map(|name| match Channel::new(name) {
            Ok(channel) => {
                let (data, key, user) = (data.clone(), self.key.clone(), user.clone());
                let publishing = api.node.publish(broker::Publish { channel, data, key, user });
                Either::Left(async move { publishing.await.map_err(Failure::from) })
            }
            Err(error) => Either::Right(ready(Err(Failure::new(ErrorCode::BadRequest, error.to_string())))),
        });
        let outcomes = join_all(accepting).await;
        let results = self.channels.into_iter().zip(outcomes).map(|(channel, outcome)| {
            let outcome = match outcome {
                Ok(accepted) => Outcome::Published(accepted.into()),
                Err(failure) => Outcome::Failed { error: failure.into_problem() },
            };
            ChannelResult { channel, outcome }
        });
        Ok(BroadcastAnswer { results: results.collect() })
    }
}

fn check_channels(channels: &[String]) -> Result<(), Failure> {
    if !(1..=MAX_CHANNELS).contains(&channels.len()) {
        return Err(Failure::new(ErrorCode::BadRequest, format!("`channels` names 1 to {MAX_CHANNELS}")));
    }
    let mut names = HashSet::new();
    match channels.iter().find(|name| !names.insert(name.as_str())) {
        Some(name) => Err(Failure::new(ErrorCode::BadRequest, format!("`channels` names {name:?} twice"))),
        None => Ok(()),
    }
}

/// `history`: retained publications of a channel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct History {
    channel: Channel,
    #[serde(default = "default_history_limit")]
    limit: u32,
    after: Option<Position>,
    before: Option<Text<128>>,
}

fn default_history_limit() -> u32 {
    DEFAULT_HISTORY_LIMIT
}

#[derive(Serialize)]
pub(crate) struct HistoryAnswer {
    /// Oldest first, in the region's order.
    publications: Vec<Publication>,
    /// Leads further back, as `before`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Text<128>>,
    /// More is retained in the direction that was asked for.
    more: bool,
}

impl Command for History {
    type Answer = HistoryAnswer;

    async fn run(self, api: &Api) -> Result<HistoryAnswer, Failure> {
        if !(1..=MAX_HISTORY_LIMIT).contains(&self.limit) {
            return Err(Failure::new(ErrorCode::BadRequest, format!("`limit` is 1 to {MAX_HISTORY_LIMIT}")));
        }
        let page = match (self.after, self.before) {
            (Some(_), Some(_)) => {
                return Err(Failure::new(ErrorCode::BadRequest, "`after` and `before` exclude each other"));
            }
            (Some(position), None) => PageOf::After(position),
            (None, Some(cursor)) => PageOf::Before(cursor),
            (None, None) => PageOf::Last,
        };
        let limit =
            PageLimit { publications: self.limit as usize, bytes: api.node.config.limits.outbox_bytes };
        let page = api.node.broker.history(&self.channel, page, limit).await?;
        let publications = page.publications.iter().map(|publication| publication.frame().clone()).collect();
        Ok(HistoryAnswer { publications, cursor: page.cursor, more: page.more })
    }
}
