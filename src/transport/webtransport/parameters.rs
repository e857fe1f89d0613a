//! What a peer's QUIC says of itself in its handshake. quinn tells none of it, so the TLS below is listened to.

use quinn::crypto::{self, rustls::QuicServerConfig};
use quinn_proto::{
    ConnectionId, Side, TransportError,
    crypto::{ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion},
    transport_parameters::TransportParameters,
};
use skywave_protocol::framing::read_varint;
use std::{any::Any, sync::Arc, time::Duration};

/// The id of `max_idle_timeout` (RFC 9000, section 18.2).
const MAX_IDLE_TIMEOUT: u64 = 0x01;

/// What is known of the peer of a connection.
struct PeerParameters {
    idle_timeout: Option<Duration>,
}

/// After how long a connection's peer gives it up when nothing comes; `None`: never, or it is not known.
pub(crate) fn peer_idle_timeout(connection: &quinn::Connection) -> Option<Duration> {
    connection.handshake_data()?.downcast::<PeerParameters>().ok()?.idle_timeout
}

fn idle_timeout(parameters: &TransportParameters) -> Option<Duration> {
    let mut encoded = Vec::new();
    parameters.write(&mut encoded);
    let mut rest = &encoded[..];
    while let Some((id, size)) = read_varint(rest) {
        let (length, length_size) = read_varint(&rest[size..])?;
        let value = rest[size + length_size..].get(..usize::try_from(length).ok()?)?;
        if id == MAX_IDLE_TIMEOUT {
            return read_varint(value).map(|(millis, _)| Duration::from_millis(millis));
        }
        rest = &rest[size + length_size + value.len()..];
    }
    None
}

/// rustls for QUIC, whose sessions remember the peer's parameters as their handshake data.
pub(crate) struct AttentiveTls(pub Arc<QuicServerConfig>);

struct AttentiveSession(Box<dyn crypto::Session>);

impl crypto::ServerConfig for AttentiveTls {
    fn initial_keys(&self, version: u32, client: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, client)
    }

    fn retry_tag(&self, version: u32, client: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, client, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        parameters: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        Box::new(AttentiveSession(self.0.clone().start_session(version, parameters)))
    }
}

impl crypto::Session for AttentiveSession {
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()?;
        let parameters = self.0.transport_parameters().ok().flatten();
        Some(Box::new(PeerParameters { idle_timeout: parameters.as_ref().and_then(idle_timeout) }))
    }

    fn initial_keys(&self, client: &ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(client, side)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(bytes)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.0.transport_parameters()
    }

    fn write_handshake(&mut self, to: &mut Vec<u8>) -> Option<Keys> {
        self.0.write_handshake(to)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys()
    }

    fn is_valid_retry(&self, client: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(client, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}
