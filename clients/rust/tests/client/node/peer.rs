//! One connection of a client, as the node sees it.

use super::soon;
use skywave_client::TransportKind;
use skywave_protocol::{
    ClientFrame, ServerFrame,
    frame::{self, Connect, Disconnect, Publish},
};
use tokio::sync::mpsc;

pub(super) enum Out {
    Frame(ServerFrame),
    /// On the stream of that name, which the first frame begins.
    Stream(String, ServerFrame),
    Datagram(ServerFrame),
    Raw(Vec<u8>),
    Close(u16),
}

/// One connection as the node sees it.
pub struct Peer {
    pub kind: TransportKind,
    pub(super) frames: mpsc::UnboundedReceiver<ClientFrame>,
    pub(super) out: mpsc::UnboundedSender<Out>,
}

impl Peer {
    pub async fn next(&mut self) -> Option<ClientFrame> {
        soon(self.frames.recv()).await
    }

    /// Waits for anything at all: a frame or the end.
    pub async fn heard(&mut self) -> Option<ClientFrame> {
        self.frames.recv().await
    }

    /// The next frame that is no `pong`.
    pub async fn frame(&mut self) -> ClientFrame {
        loop {
            match self.next().await.expect("the connection ended") {
                ClientFrame::Pong(_) => {}
                frame => return frame,
            }
        }
    }

    pub async fn connect(&mut self) -> Connect {
        match self.frame().await {
            ClientFrame::Connect(connect) => connect,
            other => panic!("{other:?}"),
        }
    }

    /// Reads `connect` and refuses it.
    pub async fn refuse(mut self, code: skywave_protocol::CloseCode) -> Connect {
        let connect = self.connect().await;
        self.disconnect(code);
        self.ended().await;
        connect
    }

    pub async fn publish(&mut self) -> Publish {
        match self.frame().await {
            ClientFrame::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    pub async fn subscribe(&mut self) -> frame::Subscribe {
        match self.frame().await {
            ClientFrame::Subscribe(subscribe) => subscribe,
            other => panic!("{other:?}"),
        }
    }

    pub async fn unsubscribe(&mut self) -> frame::Unsubscribe {
        match self.frame().await {
            ClientFrame::Unsubscribe(unsubscribe) => unsubscribe,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the client has closed the connection; what it sends before is dropped.
    pub async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }

    fn out(&self, out: Out) {
        // A client that has gone is what some tests are about.
        let _ = self.out.send(out);
    }

    pub fn send(&self, frame: ServerFrame) {
        self.out(Out::Frame(frame));
    }

    /// On WebTransport on a stream of its own, one for each `stream`: usually a channel's name.
    pub fn send_on_stream(&self, stream: &str, frame: ServerFrame) {
        self.out(Out::Stream(stream.to_owned(), frame));
    }

    pub fn send_datagram(&self, frame: ServerFrame) {
        self.out(Out::Datagram(frame));
    }

    /// Bytes as a frame.
    pub fn send_raw(&self, bytes: &[u8]) {
        self.out(Out::Raw(bytes.to_vec()));
    }

    /// Closes with a code, without a `disconnect` frame.
    pub fn close(&self, code: u16) {
        self.out(Out::Close(code));
    }

    pub fn disconnect(&self, code: skywave_protocol::CloseCode) {
        self.send(ServerFrame::Disconnect(Disconnect::from(code)));
        self.close(code.code());
    }
}
