//! Who is on a channel, and which channels are in use.

use super::{Api, command::Command, failure::Failure, limit::Limit};
use crate::{
    auth::pattern::{MAX_PATTERN_BYTES, Pattern},
    cluster::questions::{self, Answer, Gathered, Question, sort_by_subscribers},
};
use serde::{Deserialize, Serialize};
use skywave_protocol::{Channel, ErrorCode, frame::Members};
use std::{collections::HashMap, sync::Arc};

/// `presence`: who is on a channel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Presence {
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

/// `channels`: the channels with subscribers in the region.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Channels {
    /// `*` stands for any characters but `:`, `**` for any.
    pattern: Option<String>,
    prefix: Option<String>,
    #[serde(default)]
    limit: Limit,
}

#[derive(Serialize)]
pub(crate) struct ChannelsAnswer {
    /// How many match, listed or not.
    count: usize,
    /// Those with the most subscribers first.
    channels: Vec<Listed>,
    /// Some node has more than it lists: there may be more channels, and more subscribers of these.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    /// The nodes that did not answer in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<Arc<str>>,
}

#[derive(Serialize)]
struct Listed {
    channel: Channel,
    /// Sessions of all nodes.
    subscribers: usize,
}

impl Command for Channels {
    type Answer = ChannelsAnswer;

    async fn run(self, api: &Api) -> Result<ChannelsAnswer, Failure> {
        let Self { pattern, prefix, limit } = self;
        let limit = limit.checked()?;
        if pattern.as_deref().is_some_and(|text| Pattern::new(text).is_none()) {
            let message = format!("`pattern` has 1 to {MAX_PATTERN_BYTES} bytes");
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
        let question = Question::Channels { pattern, prefix: prefix.unwrap_or_default() };
        let Gathered { answers, silent } = questions::ask(&api.node.cluster, question).await;
        Ok(list(answers, silent, limit))
    }
}

/// Adds up what the nodes listed.
fn list(answers: Vec<Answer>, silent: Vec<Arc<str>>, limit: usize) -> ChannelsAnswer {
    let mut subscribers: HashMap<Channel, usize> = HashMap::new();
    let (mut most, mut partial) = (0, false);
    for answer in answers {
        let Answer::Channels { count, listed } = answer else { continue };
        most = most.max(count);
        partial |= count > listed.len();
        for (channel, here) in listed {
            let sum = subscribers.entry(channel).or_default();
            *sum = sum.saturating_add(here);
        }
    }
    let count = subscribers.len().max(most);
    let mut channels: Vec<_> = subscribers.into_iter().collect();
    sort_by_subscribers(&mut channels);
    channels.truncate(limit);
    let channels =
        channels.into_iter().map(|(channel, subscribers)| Listed { channel, subscribers }).collect();
    ChannelsAnswer { count, channels, partial, silent }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(count: usize, listed: &[(&str, usize)]) -> Answer {
        let listed = listed.iter().map(|(name, subscribers)| (Channel::new(name).unwrap(), *subscribers));
        Answer::Channels { count, listed: listed.collect() }
    }

    #[test]
    fn the_subscribers_of_all_nodes_add_up() {
        let answers =
            vec![answer(2, &[("chat:1", 3), ("chat:2", 1)]), answer(2, &[("chat:2", 4), ("chat:3", 1)])];
        let ChannelsAnswer { count, channels, partial, .. } = list(answers, Vec::new(), 2);
        let channels: Vec<_> = channels.iter().map(|listed| (&*listed.channel, listed.subscribers)).collect();
        assert_eq!((count, channels, partial), (3, vec![("chat:2", 5), ("chat:1", 3)], false));
    }

    #[test]
    fn it_is_told_when_a_node_lists_less_than_it_has() {
        let answers = vec![answer(2_000, &[("chat:1", 3)]), answer(1, &[("chat:2", 4)])];
        let ChannelsAnswer { count, partial, .. } = list(answers, Vec::new(), 10);
        assert_eq!((count, partial), (2_000, true));
    }
}
