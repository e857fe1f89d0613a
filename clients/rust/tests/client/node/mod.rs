//! A scripted node: both transports on one port; the test decides every frame.

#![allow(clippy::expect_used, reason = "this is a test")]

mod frames;
mod peer;
mod reader;
mod websocket;
mod webtransport;
mod writer;

pub use frames::*;
pub use peer::Peer;
pub use reader::*;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use skywave_client::{Backoff, CertificateCheck, Client, ClientOptions, TransportChoice, TransportKind};
use skywave_protocol::frame::Connect;
use skywave_testing::Port;
pub use skywave_testing::{PATIENCE, soon};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use websocket::{serve_plain, serve_tls};
use webtransport::serve_webtransport;
pub use writer::*;

pub struct Node {
    pub address: SocketAddr,
    pub plain: SocketAddr,
    pub sha256: [u8; 32],
    peers: mpsc::UnboundedReceiver<Peer>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Udp {
    Served,
    /// Bound but silent, like a firewall that drops everything.
    Silent,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(Udp::Served).await
    }

    pub async fn start_with(udp: Udp) -> Self {
        let (tcp, socket) = bind_both().await;
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (certificate, key) = certificate();
        let (sender, peers) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let (address, plain_address) = (tcp.local_addr().unwrap(), plain.local_addr().unwrap());
        match udp {
            Udp::Served => {
                tasks.spawn(serve_webtransport(socket, certificate.clone(), key.clone_key(), sender.clone()));
            }
            Udp::Silent => {
                tasks.spawn(async move {
                    let _socket = socket;
                    std::future::pending::<()>().await;
                });
            }
        }
        let sha256 = Sha256::digest(&certificate).into();
        tasks.spawn(serve_tls(tcp, certificate, key, sender.clone()));
        tasks.spawn(serve_plain(plain, sender));
        Self { address, plain: plain_address, sha256, peers, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Options that reach this node quickly over one transport.
    pub fn options(&self, kind: TransportKind) -> ClientOptions {
        let mut options = ClientOptions::new(self.url());
        options.transport = match kind {
            TransportKind::WebTransport => TransportChoice::WebTransport,
            TransportKind::WebSocket => TransportChoice::WebSocket,
        };
        options.certificate = CertificateCheck::Insecure;
        options.backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_millis(100) };
        options
    }

    pub async fn accept(&mut self) -> Peer {
        soon(self.peers.recv()).await.unwrap()
    }

    /// Accepts, reads `connect` and grants all of it.
    pub async fn welcome(&mut self) -> (Peer, Connect) {
        let mut peer = self.accept().await;
        let connect = peer.connect().await;
        peer.send(connected(&connect));
        (peer, connect)
    }

    /// A client and the node's end of its first connection.
    pub async fn client(&mut self, options: ClientOptions) -> (Client, Peer, Connect) {
        let (client, (peer, connect)) = tokio::join!(Client::connect(options), self.welcome());
        (client.unwrap(), peer, connect)
    }

    pub async fn no_further_connection(&mut self, within: Duration) {
        if let Ok(Some(_)) = timeout(within, self.peers.recv()).await {
            panic!("the client came back");
        }
    }
}

async fn bind_both() -> (TcpListener, std::net::UdpSocket) {
    // Its own until it is bound.
    let port = Port::free();
    let here = ("127.0.0.1", port.number());
    (TcpListener::bind(here).await.unwrap(), std::net::UdpSocket::bind(here).unwrap())
}

pub fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let now = std::time::SystemTime::now();
    parameters.not_before = (now - Duration::from_secs(3600)).into();
    parameters.not_after = (now + Duration::from_secs(7 * 86_400)).into();
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// A UDP port on which nobody listens.
pub async fn closed_udp_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap()
}

/// Writes a test once for both transports.
#[macro_export]
macro_rules! over_both_transports {
    ($($(#[$meta:meta])* async fn $name:ident($kind:ident: TransportKind) $body:block)+) => {
        $(
            mod $name {
                use super::*;

                $(#[$meta])*
                async fn scenario($kind: TransportKind) $body

                #[tokio::test]
                async fn webtransport() {
                    scenario(TransportKind::WebTransport).await;
                }

                #[tokio::test]
                async fn websocket() {
                    scenario(TransportKind::WebSocket).await;
                }
            }
        )+
    };
}
