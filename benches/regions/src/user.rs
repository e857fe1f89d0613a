//! Somebody on a channel, by a client of either kind: the Rust one, or the TypeScript one in a tab of Chromium.

use crate::{browsers::Tab, checker::Place};
use skywave_client::{
    CertificateCheck, Channel, ChannelEvent, Client, ClientOptions, HistoryRange, Json, Network, Payload,
    SubscribeOptions, Subscription, TransportChoice, TransportKind,
};
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};

const TRANSPORTS: [TransportKind; 2] = [TransportKind::WebTransport, TransportKind::WebSocket];
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a client runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The Rust client, in this process.
    Rust,
    /// The TypeScript client, in a tab.
    Chromium,
}

impl Runtime {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Chromium => "chromium",
        }
    }

    /// The two kinds that it has.
    pub fn kinds(self) -> [Kind; 2] {
        TRANSPORTS.map(|transport| Kind { runtime: self, transport })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub runtime: Runtime,
    pub transport: TransportKind,
}

/// Who is to come: what they know, and what they listen to.
#[derive(Debug, Clone)]
pub struct Invitation {
    pub kind: Kind,
    pub urls: Vec<String>,
    pub certificate_sha256: [u8; 32],
    pub channels: Vec<Channel>,
}

/// What is published: by whom, which of theirs, and when, in microseconds since the beginning.
pub type Message = (u32, u64, u64);

/// What a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Publication(Message, Place),
    /// What stands up to here will not come.
    Gap(Place),
    /// There will be no more, or something that nobody published.
    Wrong(String),
}

pub enum User {
    Rust(Client),
    Chromium(Tab),
}

/// A user's subscription.
pub struct Ear {
    pub channel: Channel,
    source: Source,
}

enum Source {
    Rust(Subscription),
    Chromium(mpsc::Receiver<Heard>),
}

impl User {
    /// A Rust client, with all its subscriptions.
    ///
    /// # Errors
    /// When there is no session within 20 s.
    pub async fn of_rust(invitation: Invitation) -> anyhow::Result<(Self, Vec<Ear>)> {
        let Invitation { kind, urls, certificate_sha256, channels } = invitation;
        let options = ClientOptions {
            urls,
            transport: match kind.transport {
                TransportKind::WebTransport => TransportChoice::WebTransport,
                TransportKind::WebSocket => TransportChoice::WebSocket,
            },
            certificate: CertificateCheck::Sha256(vec![certificate_sha256]),
            network: Network { background: Some(false), ..Network::default() },
            ..ClientOptions::new("")
        };
        let client = timeout(START_TIMEOUT, Client::connect(options)).await??;
        let mut ears = Vec::new();
        for channel in channels {
            let subscription = client.subscribe(&channel, SubscribeOptions::default()).await?;
            ears.push(Ear { channel, source: Source::Rust(subscription) });
        }
        Ok((Self::Rust(client), ears))
    }

    /// A tab, which tells what it hears on each channel.
    pub fn of_chromium(tab: Tab, heard: Vec<(Channel, mpsc::Receiver<Heard>)>) -> (Self, Vec<Ear>) {
        let ear = |(channel, heard)| Ear { channel, source: Source::Chromium(heard) };
        (Self::Chromium(tab), heard.into_iter().map(ear).collect())
    }

    /// Who serves it now.
    pub fn node(&self) -> Option<String> {
        match self {
            Self::Rust(client) => client.connected().map(|connected| connected.node.to_string()),
            Self::Chromium(tab) => tab.node(),
        }
    }

    /// Publishes, and waits for the answer however long that takes.
    ///
    /// # Errors
    /// When it is refused for good.
    pub async fn publish(&self, channel: &Channel, message: Message) -> anyhow::Result<Place> {
        match self {
            Self::Rust(client) => Ok((&client.publish(channel, Json::of(&message)?).await?).into()),
            Self::Chromium(tab) => tab.publish(channel, message).await,
        }
    }

    /// Reads the last publication that is retained; of a tab this is not asked.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_back(&self, channel: &Channel) -> anyhow::Result<()> {
        if let Self::Rust(client) = self {
            client.history(channel, HistoryRange::last(1)).await?;
        }
        Ok(())
    }

    /// A tab is closed with its browser.
    pub async fn close(&self) {
        if let Self::Rust(client) = self {
            client.close().await;
        }
    }
}

impl Ear {
    /// What comes next; `None` when the client has ended.
    pub async fn next(&mut self) -> Option<Heard> {
        match &mut self.source {
            Source::Chromium(heard) => heard.recv().await,
            Source::Rust(subscription) => loop {
                if let Some(heard) = heard(subscription.next().await?) {
                    return Some(heard);
                }
            },
        }
    }
}

fn heard(event: ChannelEvent) -> Option<Heard> {
    match event {
        ChannelEvent::Publication(publication) => {
            let message = match &publication.data {
                Payload::Json(json) => serde_json::from_str(json.get()).ok(),
                _ => None,
            };
            let (origin, epoch, offset) = (publication.origin, publication.epoch, publication.offset);
            Some(match message {
                Some(message) => Heard::Publication(message, Place { origin, epoch, offset }),
                None => Heard::Wrong(format!("{:?} is no message", publication.data)),
            })
        }
        ChannelEvent::Gap(gap) => {
            Some(Heard::Gap(Place { origin: gap.origin, epoch: gap.epoch, offset: gap.offset }))
        }
        ChannelEvent::Unsubscribed { code, reason } => Some(Heard::Wrong(format!("{reason} ({code:?})"))),
        _ => None,
    }
}
