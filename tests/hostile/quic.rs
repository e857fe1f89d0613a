//! UDP packets that are no QUIC, handshakes that stop half-way, and QUIC connections that ask for no session.

use crate::target::Target;
use quinn::{ConnectionError, Endpoint, TransportConfig, VarInt};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use skywave_protocol::framing::read_varint;
use skywave_testing::{
    soon,
    webtransport::{ask, client_config, endpoint, number, quic, request},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::net::UdpSocket;

const TIMEOUT_MS: u64 = 400;
/// The noise is the same in each run.
const SEED: u64 = 0x5eed;

/// A socket that sends to the node and never answers.
async fn socket(target: &Target) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(target.public()).await.unwrap();
    socket
}

/// The first packets of real handshakes.
async fn initials(count: usize) -> Vec<Vec<u8>> {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = endpoint(TransportConfig::default());
    let address = nobody.local_addr().unwrap();
    let _connecting: Vec<_> = (0..count).map(|_| client.connect(address, "localhost").unwrap()).collect();
    let mut packets: Vec<Vec<u8>> = Vec::new();
    while packets.len() < count {
        let mut packet = vec![0; 2000];
        let length = soon(nobody.recv(&mut packet)).await.unwrap();
        packet.truncate(length);
        // A ClientHello may fill two packets, of which only the first is wanted; the connection's id tells.
        if packets.iter().all(|earlier| earlier[6..26] != packet[6..26]) {
            packets.push(packet);
        }
    }
    packets
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_the_udp_port_is_passed_over() {
    let mut target = Target::new().await;
    let socket = socket(&target).await;
    let mut random = SmallRng::seed_from_u64(SEED);
    for round in 0..2000 {
        let mut packet = vec![0u8; random.random_range(0..1500)];
        random.fill(&mut packet[..]);
        if round % 2 == 0 && packet.len() > 5 {
            // Looks like a long header, half of them of version 1.
            packet[0] |= 0xc0;
            if round % 4 == 0 {
                packet[1..5].copy_from_slice(&[0, 0, 0, 1]);
            }
        }
        // The kernel may drop some: there is nobody to wait for.
        let _ = socket.try_send(&packet);
        if round % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_initials_are_passed_over() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let socket = socket(&target).await;
    let mut random = SmallRng::seed_from_u64(SEED);
    for initial in initials(20).await {
        for _ in 0..20 {
            let mut packet = initial.clone();
            let at = random.random_range(0..60);
            packet[at] ^= 1 << random.random_range(0..8);
            socket.send(&packet).await.unwrap();
            packet.truncate(random.random_range(0..initial.len()));
            socket.send(&packet).await.unwrap();
        }
        // Several in one datagram, and one that is padded with noise.
        socket.send(&[&initial[..], &[0x5a; 200]].concat()).await.unwrap();
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_handshake_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let socket = socket(&target).await;
    for initial in initials(50).await {
        socket.send(&initial).await.unwrap();
    }
    target.is_unharmed().await;
    target.refused("quic_timeout", 50).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused_in_the_handshake() {
    let mut target = Target::new().await;
    let mut client = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    for protocols in [&["hq-interop"][..], &[]] {
        client.set_default_client_config(client_config(TransportConfig::default(), protocols));
        let refused = soon(client.connect(target.public(), "localhost").unwrap()).await.unwrap_err();
        assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused:?}");
    }
    target.refused("quic", 2).await;
    target.is_unharmed().await;
}

/// Waits until the node closes the connection; it has to wait for its timeout first.
async fn is_given_up(connection: quinn::Connection) {
    let since = Instant::now();
    soon(connection.closed()).await;
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(TIMEOUT_MS / 2), "{waited:?}");
    assert!(waited < Duration::from_millis(TIMEOUT_MS) + Duration::from_secs(3), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    is_given_up(quic(target.public(), TransportConfig::default()).await).await;
    target.refused("quic_timeout", 1).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    for beginning in [&[][..], &[0x01], &[0x01, 0x40], &[0x01, 0x20, 0, 0]] {
        let connection = quic(target.public(), TransportConfig::default()).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(beginning).await.unwrap();
        is_given_up(connection).await;
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_no_settings_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    is_given_up(quic(target.public(), transport).await).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_no_http3_ends_the_connection() {
    let mut target = Target::new().await;
    let huge = [&number(1)[..], &number(1 << 29)].concat();
    let unknown = [&[0x21, 0x01, 0x00][..]].concat().repeat(100);
    let large_unknown = [&[0x21][..], &number(1 << 20)].concat();
    let bad_qpack = [&[0x01, 0x10][..], &[0xff; 16]].concat();
    let random: Vec<u8> = (0..2000u32).map(|number| (number * 167 % 251) as u8).collect();
    for garbage in [huge, unknown, large_unknown, bad_qpack, random, b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let connection = quic(target.public(), TransportConfig::default()).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        // It may be closed before all is written.
        let _ = send.write_all(&garbage).await;
        let _ = send.finish();
        soon(connection.closed()).await;
    }
    target.is_unharmed().await;
}

/// The status that the node answers to a good request with these headers replaced.
async fn status(node: SocketAddr, path: &str, replaced: &[(&str, &str)]) -> String {
    let connection = quic(node, TransportConfig::default()).await;
    let mut headers = request(node, path);
    for (name, value) in replaced {
        headers.insert(name, value);
    }
    let (answer, _settings) = ask(&connection, &headers).await;
    answer.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_no_session_gets_the_fitting_status() {
    let mut target = Target::new().await;
    let node = target.public();
    for (path, expected) in [
        ("/v1/connect", "200"),
        ("/v1/connect?encoding=msgpack", "200"),
        ("/v1/connect?a=b&encoding=json", "200"),
        ("/", "404"),
        ("/v1/connect/", "404"),
        ("/v1/other?encoding=json", "404"),
        ("/v1/connect?encoding=xml", "400"),
        ("/v1/connect?encoding=", "400"),
    ] {
        assert_eq!(status(node, path, &[]).await, expected, "{path}");
    }
    for protocol in ["webtransport", "webtransport-h3"] {
        assert_eq!(status(node, "/v1/connect", &[(":protocol", protocol)]).await, "200", "{protocol}");
    }
    for (name, value, expected) in
        [(":method", "GET", "405"), (":protocol", "websocket", "501"), (":scheme", "http", "400")]
    {
        assert_eq!(status(node, "/v1/connect", &[(name, value)]).await, expected, "{name} {value}");
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_say_that_sessions_are_served_in_the_words_of_each_draft() {
    let target = Target::new().await;
    let connection = quic(target.public(), TransportConfig::default()).await;
    let mut control = soon(connection.accept_uni()).await.unwrap();
    let mut bytes = vec![0; 3];
    soon(control.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(bytes[..2], [0, 4], "no SETTINGS first on a control stream");
    bytes.resize(usize::from(bytes[2]), 0);
    soon(control.read_exact(&mut bytes)).await.unwrap();
    let (mut settings, mut rest) = (BTreeMap::new(), &bytes[..]);
    while let Some((id, size)) = read_varint(rest) {
        let (value, value_size) = read_varint(&rest[size..]).unwrap();
        settings.insert(id, value);
        rest = &rest[size + value_size..];
    }
    for (setting, id) in [
        ("ENABLE_CONNECT_PROTOCOL", 0x08),
        ("H3_DATAGRAM", 0x33),
        ("draft 02", 0x2b60_3742),
        ("draft 07", 0xc671_706a),
        ("draft 15", 0x2c7c_f000),
    ] {
        assert_eq!(settings.get(&id), Some(&1), "{setting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_head_ends_the_connection() {
    let mut target = Target::new().await;
    let connection = quic(target.public(), TransportConfig::default()).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let mut headers = request(target.public(), "/v1/connect");
    headers.insert("x-long", "x".repeat(100_000));
    let mut bytes = Vec::new();
    headers.generate_frame().write(&mut bytes).unwrap();
    let _ = send.write_all(&bytes).await;
    soon(connection.closed()).await;
    target.is_unharmed().await;
}
