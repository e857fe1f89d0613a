//! `pub`: publishes on a channel, or sends events to it.

use super::{
    complete,
    connection::{self, ConnectionArguments},
    terminal::{one_line, print_line},
    usage,
};
use anyhow::{Context as _, bail};
use clap::Args;
use skywave_client::{Channel, Client, HistoryRange, Json};
use skywave_protocol::{
    ErrorCode, ServerFrame,
    frame::{Key, Slot},
    payload::InvalidJson,
};
use std::{
    io::{BufRead as _, Read as _},
    time::Duration,
};
use tokio::sync::mpsc;

/// A line of stdin may be this long, in bytes; a node takes less by default.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Lines that are read ahead of what is published.
const LINES_AHEAD: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct PublishArguments {
    /// The channel: namespace:name, or @user
    #[arg(value_parser = connection::parse_channel)]
    channel: Channel,
    /// JSON; what is not JSON is taken as a JSON string. `-` reads stdin: one publication per line
    #[arg(allow_negative_numbers = true)]
    data: String,
    #[command(flatten)]
    connection: ConnectionArguments,
    /// An idempotency key: published again with the same key, it has the position that it got first
    #[arg(long, value_name = "KEY", value_parser = connection::parse_name, conflicts_with = "event")]
    key: Option<Key>,
    /// Send an event instead: to whoever is there now, without a position, never stored
    #[arg(long)]
    event: bool,
    /// What the event is about: of those with the same slot only the latest matters
    #[arg(long, value_name = "SLOT", value_parser = connection::parse_name, requires = "event")]
    slot: Option<Slot>,
    /// Give up a publication that has no answer after this long
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = skywave::config::parse_duration)]
    timeout: Duration,
    /// Print each position as JSON, one `published` frame of the protocol per line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: PublishArguments) -> anyhow::Result<()> {
    let from_stdin = arguments.data == "-";
    if from_stdin && arguments.key.is_some() {
        bail!(usage("--key is for one publication, and stdin may hold many"));
    }
    // Before anything is connected, so that bad data costs nothing.
    let first = if from_stdin { None } else { Some(payload(&arguments.data).map_err(usage)?) };
    let target = arguments.connection.target()?;
    complete(connection::runtime()?, async {
        let client = target.connect().await?;
        let outcome = match first {
            Some(data) => send(&client, &arguments, data).await,
            None => send_lines(&client, &arguments).await,
        };
        if arguments.event && outcome.is_ok() {
            settle(&client, &arguments.channel).await;
        }
        client.close().await;
        outcome
    })
}

/// JSON as it is, any other text as a JSON string.
fn payload(text: &str) -> anyhow::Result<Json> {
    match Json::parse(text) {
        Ok(json) => Ok(json),
        Err(InvalidJson::Syntax(_)) => Ok(Json::of(&text)?),
        Err(error @ InvalidJson::TooDeep) => Err(error.into()),
    }
}

/// Publishes each line, one after the other, so that they keep their order.
async fn send_lines(client: &Client, arguments: &PublishArguments) -> anyhow::Result<()> {
    let mut lines = read_lines();
    let mut number = 0u64;
    while let Some(line) = lines.recv().await {
        number += 1;
        let data = payload(&line?).with_context(|| format!("line {number} of stdin"))?;
        send(client, arguments, data).await?;
    }
    Ok(())
}

/// Reads stdin on a thread of its own: a read cannot be cancelled, and nothing waits for this one.
fn read_lines() -> mpsc::Receiver<anyhow::Result<String>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        for number in 1u64.. {
            let line = read_line(&mut stdin, number).transpose();
            let Some(line) = line else { return };
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// The next line without its end; `None` at the end of the input.
fn read_line(input: &mut impl std::io::BufRead, number: u64) -> anyhow::Result<Option<String>> {
    let mut bytes = Vec::new();
    input.take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes).context("cannot read stdin")?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() as u64 > MAX_LINE_BYTES {
        bail!("line {number} of stdin is longer than {MAX_LINE_BYTES} bytes");
    }
    let mut line =
        String::from_utf8(bytes).with_context(|| format!("line {number} of stdin is not UTF-8"))?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(Some(line))
}

async fn send(client: &Client, arguments: &PublishArguments, data: Json) -> anyhow::Result<()> {
    let PublishArguments { channel, slot, key, .. } = arguments;
    if arguments.event {
        let outcome = client.emit(channel, data, slot.as_deref()).await;
        return outcome
            .or_else(|error| connection::fail("not sent", Some(error.code), &error.reason, &error.message));
    }
    let publishing = async {
        match key {
            Some(key) => client.publish_with_key(channel, data, key).await,
            None => client.publish(channel, data).await,
        }
    };
    match tokio::time::timeout(arguments.timeout, publishing).await {
        Ok(Ok(published)) if arguments.json => {
            print_line(&one_line(&serde_json::to_string(&ServerFrame::Published(published))?))
        }
        Ok(Ok(published)) => print_line(&one_line(&format!(
            "origin={} epoch={} offset={}",
            published.origin, published.epoch, published.offset
        ))),
        Ok(Err(error)) => connection::fail("not published", Some(error.code), &error.reason, &error.message),
        Err(_) => {
            let code = ErrorCode::Timeout;
            connection::fail(
                "not known to be published",
                Some(code.code()),
                code.reason(),
                "there is no answer yet",
            )
        }
    }
}

/// Waits for two round trips. Events have no answer; but then the node has seen those that arrived, or has complained,
/// which the client logs. One would not do: over WebTransport a request may overtake an event before it.
async fn settle(client: &Client, channel: &Channel) {
    for _ in 0..2 {
        // What it answers does not matter, and neither does whether this user may ask.
        let _ = client.history(channel, HistoryRange::last(1)).await;
    }
}
