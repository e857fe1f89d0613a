//! The listeners: they accept, adapt and hand over to `session`. Only what is below here knows which transport a session is on.

pub mod sockets;
pub mod websocket;
pub mod webtransport;

use skywave_protocol::{Encoding, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};
use socket2::SockRef;
use std::{io, net::SocketAddr};

/// A peer's address as people write it: a socket for both families has those of IPv4 as IPv6 (`::ffff:192.0.2.1`).
pub(crate) fn canonical(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address
}

/// So many bytes the kernel may hold that it cannot send yet: what waits there nothing overtakes, no ping either.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 64 * 1024;

/// Small writes go out at once, and what is more urgent than others does not wait in the kernel.
fn hasten(stream: &tokio::net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(MAX_UNSENT)?;
    socket.set_tcp_nodelay(true)
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
    fn an_ipv4_peer_is_known_by_its_ipv4_address() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(canonical(address("[::ffff:192.0.2.1]:7")), address("192.0.2.1:7"));
        for other in ["192.0.2.1:7", "[2001:db8::1]:7", "[fe80::1%3]:7"] {
            assert_eq!(canonical(address(other)), address(other));
        }
    }
}
