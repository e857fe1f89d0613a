//! IPv4 and IPv6: whichever of them a client resolves a node's name to, it is let in by every transport.

use crate::options;
use skywave::server::Server;
use skywave_client::TransportChoice;
use skywave_testing::{
    node::{connect, start},
    soon,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const TRANSPORTS: [TransportChoice; 2] = [TransportChoice::WebTransport, TransportChoice::WebSocket];

/// Where the node knows its sessions to be.
fn peers(server: &Server) -> Vec<IpAddr> {
    server.node().sessions.all().iter().map(|(_, attached)| attached.address.ip()).collect()
}

async fn both_families_reach(server: &Server) {
    let port = server.public().unwrap().port();
    for address in LOOPBACKS {
        for transport in TRANSPORTS {
            let client = connect(options(SocketAddr::new(address, port), transport)).await;
            assert_eq!(peers(server), [address], "{transport:?}");
            client.close().await;
            soon(server.node().sessions.transports.empty()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_all_addresses_is_reached_over_ipv4_and_ipv6_and_knows_its_peers_by_their_own_addresses() {
    let server = start(&[("LISTEN__PUBLIC", "[::]:0")]).await;
    both_families_reach(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_localhost_is_reached_whichever_address_a_client_resolves_it_to() {
    let server = start(&[("LISTEN__PUBLIC", "localhost:0")]).await;
    both_families_reach(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_to_localhost_reaches_every_listener_of_a_development_node() {
    let settings = ["LISTEN__PUBLIC", "LISTEN__PLAIN", "LISTEN__ADMIN"].map(|key| (key, "localhost:0"));
    let server = start(&settings).await;
    for listener in [server.public(), server.plain(), server.admin()] {
        for address in LOOPBACKS {
            let address = SocketAddr::new(address, listener.unwrap().port());
            soon(tokio::net::TcpStream::connect(address)).await.unwrap();
        }
    }
}
