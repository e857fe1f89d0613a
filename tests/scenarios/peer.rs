//! A client that speaks the protocol frame by frame: it shows what the node sends, and can misbehave.

use crate::world::World;
use skywave_client::{
    Channel, Position, SubscribeOptions,
    transport::{Closed, Connection, Control, Lane, Received, Receiver, Sender, TransportKind, Via},
};
use skywave_protocol::{
    ClientFrame, Encoding, RequestId, ServerFrame,
    frame::{Connect, Connected, Disconnect, Error, Publication, Subscribed},
};
use skywave_testing::soon;
use std::collections::BTreeMap;

pub struct Peer {
    pub sender: Sender,
    pub receiver: Receiver,
    pub control: Control,
    pub encoding: Encoding,
}

/// A request id; not 0.
pub fn id(number: u32) -> RequestId {
    RequestId::new(number).unwrap()
}

pub fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

/// A `connect` with id 1 that asks for nothing.
pub fn connect() -> Connect {
    Connect {
        id: id(1),
        token: None,
        resume: None,
        attempt: None,
        subscriptions: BTreeMap::new(),
        client: None,
        network: None,
    }
}

/// A `connect` with some subscriptions.
pub fn connect_to<const COUNT: usize>(channels: [(&str, SubscribeOptions); COUNT]) -> Connect {
    let subscriptions = channels.into_iter().map(|(name, options)| (channel(name), options)).collect();
    Connect { subscriptions, ..connect() }
}

impl Peer {
    /// A transport on which nothing has been sent.
    pub async fn dial(world: &World) -> Self {
        Self::dial_on(world, world.way.kind()).await
    }

    async fn dial_on(world: &World, kind: TransportKind) -> Self {
        Self::over(world.dial(kind).await)
    }

    pub fn over(connection: Connection) -> Self {
        let Connection { encoding, sender, receiver, control, .. } = connection;
        Self { sender, receiver, control, encoding }
    }

    /// A session of its own.
    pub async fn connected(world: &World) -> (Self, Connected) {
        Self::open(world, connect()).await
    }

    /// A transport on which `connect` has been answered.
    pub async fn open(world: &World, connect: Connect) -> (Self, Connected) {
        Self::open_on(world, world.way.kind(), connect).await
    }

    /// As [`Peer::open`], over this transport.
    pub async fn open_on(world: &World, kind: TransportKind, connect: Connect) -> (Self, Connected) {
        let mut peer = Self::dial_on(world, kind).await;
        peer.send(ClientFrame::Connect(connect)).await;
        let connected = peer
            .until(|frame| match frame {
                ServerFrame::Connected(connected) => Some(connected),
                _ => None,
            })
            .await;
        (peer, connected)
    }

    pub async fn send(&mut self, frame: ClientFrame) {
        self.send_on(Lane::Reliable, frame).await;
    }

    pub async fn send_on(&mut self, lane: Lane, frame: ClientFrame) {
        let encoded = self.encoding.encode(&frame).unwrap();
        soon(self.sender.send(&encoded, lane)).await.unwrap();
    }

    /// Sends anything as if it were a frame.
    pub async fn send_value(&mut self, value: &serde_json::Value) {
        let encoded = self.encoding.encode(value).unwrap();
        // The node may have ended the session already; what it says of that is to be read.
        let _ = soon(self.sender.send(&encoded, Lane::Reliable)).await;
    }

    /// The next frame, or the end.
    pub async fn next(&mut self) -> Result<ServerFrame, Closed> {
        self.next_via().await.map(|(frame, _)| frame)
    }

    /// The next frame and on what it came. What a stream begins with is passed over: other ways have none.
    pub async fn next_via(&mut self) -> Result<(ServerFrame, Via), Closed> {
        loop {
            let Received { frame, via } = soon(self.receiver.receive()).await?;
            match self.encoding.decode_server(&frame).unwrap() {
                ServerFrame::Stream(_) => {}
                frame => return Ok((frame, via)),
            }
        }
    }

    /// The next frame that `pick` takes; the others are passed over.
    pub async fn until<T>(&mut self, mut pick: impl FnMut(ServerFrame) -> Option<T>) -> T {
        loop {
            let frame = self.next().await.unwrap();
            if let ServerFrame::Disconnect(disconnect) = &frame {
                panic!("{disconnect:?}");
            }
            if let Some(picked) = pick(frame) {
                return picked;
            }
        }
    }

    pub async fn subscribed(&mut self, name: &str) -> Subscribed {
        self.until(|frame| match frame {
            ServerFrame::Subscribed(subscribed) if &*subscribed.channel == name => Some(subscribed),
            _ => None,
        })
        .await
    }

    pub async fn publication(&mut self, name: &str) -> Publication {
        self.until(|frame| match frame {
            ServerFrame::Publication(publication) if &*publication.channel == name => Some(publication),
            ServerFrame::Gap(gap) if &*gap.channel == name => panic!("{gap:?}"),
            _ => None,
        })
        .await
    }

    pub async fn error(&mut self) -> Error {
        self.until(|frame| match frame {
            ServerFrame::Error(error) => Some(error),
            _ => None,
        })
        .await
    }

    /// Ends the transport as a client does that is done.
    pub async fn close(self) {
        soon(self.sender.close(0, "")).await;
    }

    /// Reads to the end of the transport: the code of the `disconnect` that came last.
    pub async fn end(&mut self) -> u16 {
        self.disconnected().await.code
    }

    /// Reads to the end of the transport: the `disconnect` that came last.
    pub async fn disconnected(&mut self) -> Disconnect {
        let mut last = None;
        loop {
            match self.next().await {
                Ok(frame) => last = Some(frame),
                Err(closed) => {
                    let Some(ServerFrame::Disconnect(disconnect)) = last else {
                        panic!("{closed:?} after {last:?}")
                    };
                    assert_eq!(closed.code.unwrap_or(disconnect.code), disconnect.code);
                    return disconnect;
                }
            }
        }
    }
}

/// From the beginning of every origin.
pub fn from_the_beginning() -> SubscribeOptions {
    SubscribeOptions { position: Some(Position::new()), ..SubscribeOptions::default() }
}
