//! The listeners: they accept, adapt and hand over to `session`.
//!
//! Only what is below here knows which transport a session is on.

pub mod http;
pub mod sockets;
pub mod webtransport;

use std::net::SocketAddr;

/// Of all transports, as they stand in metrics and the API.
pub const NAMES: [&str; 2] = [webtransport::NAME, http::websocket::NAME];

/// A peer's address as people write it: a socket for both families has those of IPv4 as IPv6 (`::ffff:192.0.2.1`).
fn canonical(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_peer_is_known_by_its_ipv4_address() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(canonical(address("[::ffff:192.0.2.1]:7")), address("192.0.2.1:7"));
        for other in ["192.0.2.1:7", "[2001:db8::1]:7", "[fe80::1%3]:7"] {
            assert_eq!(canonical(address(other)), address(other));
        }
    }
}
