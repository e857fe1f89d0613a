//! `sub`: prints what happens on a channel.

use super::{
    complete,
    connection::{self, ConnectionArguments, Target},
    terminal::{is_closed_pipe, one_line, print_line, tell, timestamp},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::{Args, value_parser};
use skywave_client::{
    Channel, ChannelEvent, Client, Member, Payload, PresenceChanged, SubscribeOptions, Subscription,
};
use skywave_protocol::{ServerFrame, frame};
use std::pin::pin;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};

#[derive(Debug, Args)]
pub(crate) struct SubscribeArguments {
    /// The channel: namespace:name, or @user
    #[arg(value_parser = connection::parse_channel)]
    channel: Channel,
    #[command(flatten)]
    connection: ConnectionArguments,
    /// Begin with the last N publications (1 … 1,000)
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1000))]
    history: Option<u32>,
    /// Tell who is there, now and as it changes
    #[arg(long)]
    presence: bool,
    /// End after N publications
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print all that happens on the channel as JSON, one frame of the protocol per line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &SubscribeArguments) -> anyhow::Result<()> {
    let target = arguments.connection.target()?;
    complete(connection::runtime()?, async {
        // From the beginning, so that a Ctrl-C while connecting is as good as a later one.
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut told_to_end = pin!(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let opened = tokio::select! {
            opened = open(arguments, target) => opened,
            () = &mut told_to_end => return Ok(()),
        };
        let (client, mut subscription) = opened?;
        let outcome = tokio::select! {
            outcome = follow(arguments, &mut subscription) => outcome,
            () = &mut told_to_end => Ok(()),
        };
        client.close().await;
        match outcome {
            // Whoever read has seen enough.
            Err(error) if is_closed_pipe(&error) => Ok(()),
            outcome => outcome,
        }
    })
}

async fn open(arguments: &SubscribeArguments, target: Target) -> anyhow::Result<(Client, Subscription)> {
    let client = target.connect().await?;
    let options =
        SubscribeOptions { position: None, history: arguments.history, presence: arguments.presence };
    match client.subscribe(&arguments.channel, options).await {
        Ok(subscription) => Ok((client, subscription)),
        Err(error) => {
            client.close().await;
            let what = format!("cannot subscribe to {}", arguments.channel);
            connection::fail(&what, Some(error.code), &error.reason, &error.message)
        }
    }
}

/// Prints until the count is reached or the subscription has ended.
async fn follow(arguments: &SubscribeArguments, subscription: &mut Subscription) -> anyhow::Result<()> {
    let mut left = arguments.count;
    while let Some(event) = subscription.next().await {
        let event = print(arguments, event).await?;
        match (event, &mut left) {
            (ChannelEvent::Unsubscribed { code, reason }, _) => {
                return connection::fail("unsubscribed", code, &reason, "");
            }
            (ChannelEvent::Publication(_), Some(left)) => {
                *left -= 1;
                if *left == 0 {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
    connection::fail("unsubscribed", None, "the subscription has ended", "")
}

/// Prints an event, on a thread of its own: its reader may take as long as it likes, and nobody waits for it at the
/// end.
async fn print(arguments: &SubscribeArguments, event: ChannelEvent) -> anyhow::Result<ChannelEvent> {
    let (channel, as_json) = (arguments.channel.clone(), arguments.json);
    let printing = spawn_blocking(move || {
        if as_json { print_json(&channel, &event) } else { print_readable(&channel, &event) }.map(|()| event)
    });
    printing.await?
}

fn print_json(channel: &Channel, event: &ChannelEvent) -> anyhow::Result<()> {
    print_line(&one_line(&serde_json::to_string(&to_frame(channel, event.clone()))?))
}

/// The frame of the protocol that says what `event` says.
fn to_frame(channel: &Channel, event: ChannelEvent) -> ServerFrame {
    match event {
        ChannelEvent::Subscribed(subscribed) => ServerFrame::Subscribed(frame::Subscribed {
            id: None,
            channel: channel.clone(),
            subscription: None,
            position: subscribed.position,
            recovered: subscribed.recovered,
            reason: subscribed.reason,
            recovers: subscribed.recovers,
            presence: subscribed.presence,
        }),
        ChannelEvent::Publication(publication) => ServerFrame::Publication(publication),
        ChannelEvent::Event(event) => ServerFrame::Event(event),
        ChannelEvent::Gap(gap) => ServerFrame::Gap(gap),
        ChannelEvent::PresenceChanged(changed) => ServerFrame::PresenceChanged(changed),
        ChannelEvent::Unsubscribed { code, reason } => ServerFrame::Unsubscribed(frame::Unsubscribed {
            id: None,
            channel: channel.clone(),
            code,
            reason: Some(reason),
        }),
    }
}

/// What was sent goes to stdout, what happened to the subscription to stderr.
fn print_readable(channel: &Channel, event: &ChannelEvent) -> anyhow::Result<()> {
    match event {
        ChannelEvent::Publication(publication) => print_line(&one_line(&format!(
            "{} {}/{} {} {}",
            timestamp(publication.time_ms),
            publication.origin,
            publication.offset,
            publication.user.as_deref().unwrap_or("-"),
            readable(&publication.data),
        ))),
        ChannelEvent::Event(event) => print_line(&one_line(&format!(
            "event {} {} {}",
            event.user.as_deref().unwrap_or("-"),
            event.slot.as_deref().unwrap_or("-"),
            readable(&event.data),
        ))),
        ChannelEvent::PresenceChanged(changed) => print_line(&one_line(&presence(changed))),
        ChannelEvent::Subscribed(subscribed) => {
            if let Some(members) = &subscribed.presence {
                let names: Vec<&str> = members.members.iter().map(name).collect();
                print_line(&one_line(&format!("presence {} {}", members.count, names.join(" "))))?;
            }
            let lost = subscribed.reason.map(|reason| format!(", but not all: {reason:?}"));
            let how = match (subscribed.recovered, lost) {
                (None, _) => String::new(),
                (Some(_), lost) => {
                    let count = subscribed.recovers.map(|count| format!(" {count}"));
                    format!(" again, and recovered{}{}", count.unwrap_or_default(), lost.unwrap_or_default())
                }
            };
            tell(&one_line(&format!("subscribed to {channel}{how}")));
            Ok(())
        }
        ChannelEvent::Gap(gap) => {
            tell(&one_line(&format!(
                "gap: publications of {} up to offset {} are lost ({:?})",
                gap.origin, gap.offset, gap.reason
            )));
            Ok(())
        }
        // Told as the command's own end.
        ChannelEvent::Unsubscribed { .. } => Ok(()),
    }
}

fn readable(data: &Payload) -> String {
    match data {
        Payload::Json(json) => json.get().to_owned(),
        Payload::Binary(bytes) => format!("base64:{}", BASE64_STANDARD.encode(bytes)),
    }
}

fn presence(changed: &PresenceChanged) -> String {
    let joined = changed.joined.iter().map(|member| format!(" +{}", name(member)));
    let left = changed.left.iter().map(|member| format!(" -{}", name(member)));
    format!("presence {}{}", changed.count, joined.chain(left).collect::<String>())
}

/// A member's user, or the session of one without.
fn name(member: &Member) -> &str {
    member.user.as_deref().unwrap_or(&member.session)
}
