//! Where TCP connections come in, and what is made of them.

use super::{endpoint::Endpoint, serve, turns::Newcomer};
use crate::{
    limits::{AddressBlock, OpenFiles, Place, Quota},
    node::Node,
    refusals::Refusal,
    transport::sockets,
};
use futures_util::FutureExt;
use socket2::SockRef;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// So many bytes the kernel may hold that it cannot send yet: what waits there nothing overtakes, no ping either.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 64 * 1024;

/// Where connections come in.
pub(crate) struct Entrance {
    node: Arc<Node>,
    listener: TcpListener,
    connections: Arc<Quota<AddressBlock>>,
    open_files: OpenFiles,
}

impl Entrance {
    pub(crate) fn new(node: &Arc<Node>, listener: TcpListener) -> Self {
        let connections = Quota::new(node.config.limits.transports_per_address());
        Self { node: node.clone(), listener, connections, open_files: OpenFiles::of_process() }
    }

    /// The next one who comes, and may.
    pub(crate) async fn caller(&mut self) -> Caller {
        loop {
            let (stream, address) = sockets::accept(&self.listener).await;
            if self.open_files.are_exceeded_by(&stream) {
                self.node.refused(Refusal::OpenFiles);
                self.refused("open_files");
                continue;
            }
            match self.connections.take(AddressBlock::of(address.ip())) {
                Some(place) => return Caller { stream, address, _place: place },
                None => self.refused("address_connections"),
            }
        }
    }

    pub(crate) fn refused(&self, reason: &str) {
        self.node.metrics.handshakes_refused.with_label_values(&[reason]).inc();
    }
}

/// A connection that came in, with its place among those of its address.
pub(crate) struct Caller {
    stream: TcpStream,
    address: SocketAddr,
    _place: Place<AddressBlock>,
}

impl Caller {
    /// Whether the peer has ended its side, as one does that came in by another transport, or gave up.
    pub(crate) fn says_no_more(&self) -> bool {
        let ready = self.stream.ready(Interest::READABLE).now_or_never();
        matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
    }

    pub(crate) async fn serve_tls(self, node: Arc<Node>, tls: TlsAcceptor) {
        let Self { stream, address, _place } = self;
        if let Err(error) = hasten(&stream) {
            tracing::debug!(%address, %error, "the peer went at once");
            return;
        }
        let patience = node.config.limits.connect_timeout;
        match tokio::time::timeout(patience, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve(Endpoint::new(node, address, None), stream, patience).await,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "TLS handshake failed");
                node.metrics.handshakes_refused.with_label_values(&["tls"]).inc();
            }
            Err(_) => node.metrics.handshakes_refused.with_label_values(&["tls_timeout"]).inc(),
        }
    }

    pub(crate) async fn serve_plain(self, node: Arc<Node>, newcomer: Newcomer) {
        let Self { stream, address, _place } = self;
        match hasten(&stream) {
            Ok(()) => {
                let patience = node.config.limits.connect_timeout;
                serve(Endpoint::new(node, address, Some(newcomer)), stream, patience).await;
            }
            Err(error) => tracing::debug!(%address, %error, "the peer went at once"),
        }
    }
}

/// Small writes go out at once, and what is more urgent than others does not wait in the kernel.
fn hasten(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(MAX_UNSENT)?;
    socket.set_tcp_nodelay(true)
}
