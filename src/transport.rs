//! The listeners: they accept, adapt and hand over to `session`. Only what is below here knows which transport a session is on.

pub mod websocket;
pub mod webtransport;

use skywave_protocol::{Encoding, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{io, net::SocketAddr};

/// What is asked of the kernel for the QUIC socket, which serves all sessions: the default of some 200 KiB loses
/// packets when many connect at once.
const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const TCP_BACKLOG: i32 = 4096;

/// A UDP socket and the buffers that the kernel really gave, in bytes.
pub struct UdpSocket {
    pub socket: std::net::UdpSocket,
    pub receive_buffer: usize,
    pub send_buffer: usize,
}

/// Binds the QUIC socket. Warns when the kernel grants smaller buffers than asked.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    // Refused sizes are no failure: what counts is what is read back.
    let asked =
        [socket.set_recv_buffer_size(UDP_BUFFER_BYTES), socket.set_send_buffer_size(UDP_BUFFER_BYTES)];
    for error in asked.into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "the kernel refused a buffer size for the QUIC socket");
    }
    socket.bind(&address.into())?;
    let (receive_buffer, send_buffer) =
        (granted(socket.recv_buffer_size()?), granted(socket.send_buffer_size()?));
    if receive_buffer < UDP_BUFFER_BYTES {
        tracing::warn!(
            asked = UDP_BUFFER_BYTES,
            granted = receive_buffer,
            "small UDP receive buffer: packets will be lost when many clients connect at once; raise net.core.rmem_max"
        );
    }
    Ok(UdpSocket { socket: socket.into(), receive_buffer, send_buffer })
}

/// Linux answers with twice the size that was asked for, which it keeps for its own bookkeeping.
fn granted(answered: usize) -> usize {
    if cfg!(target_os = "linux") { answered / 2 } else { answered }
}

/// Binds a TCP listener.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind_tcp(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // `[::]` serves IPv4 as well; a specific address is what it says.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Small writes go out at once.
fn set_nodelay(stream: &tokio::net::TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_nodelay(true)
}

/// The encoding of a WebSocket that offers these subprotocols, and the one to answer with. `None`: only unknown
/// ones are offered.
fn choose_subprotocol(offered: &[&str]) -> Option<(Encoding, Option<&'static str>)> {
    if offered.is_empty() {
        return Some((Encoding::Json, None));
    }
    offered.iter().find_map(|name| match *name {
        SUBPROTOCOL_JSON => Some((Encoding::Json, Some(SUBPROTOCOL_JSON))),
        SUBPROTOCOL_MSGPACK => Some((Encoding::MessagePack, Some(SUBPROTOCOL_MSGPACK))),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        assert_eq!(choose_subprotocol(&[]), Some((Encoding::Json, None)));
        let offered = ["chat", SUBPROTOCOL_MSGPACK, SUBPROTOCOL_JSON];
        assert_eq!(choose_subprotocol(&offered), Some((Encoding::MessagePack, Some(SUBPROTOCOL_MSGPACK))));
        assert_eq!(choose_subprotocol(&["chat"]), None);
    }

    #[test]
    fn udp_buffers_are_read_back() {
        let bound = bind_udp(([127, 0, 0, 1], 0).into()).unwrap();
        assert!(bound.receive_buffer > 0 && bound.send_buffer > 0);
    }
}
