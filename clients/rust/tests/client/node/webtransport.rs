//! The node on WebTransport.

use super::peer::{Out, Peer};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use skywave_client::{Encoding, TransportKind};
use skywave_protocol::framing::FrameBuffer;
use std::{collections::HashMap, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

pub async fn serve_webtransport(
    socket: std::net::UdpSocket,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    peers: mpsc::UnboundedSender<Peer>,
) {
    let chain = wtransport::tls::CertificateChain::single(
        wtransport::tls::Certificate::from_der(certificate.to_vec()).unwrap(),
    );
    let key = wtransport::tls::PrivateKey::from_der_pkcs8(key.secret_der().to_vec());
    let config = wtransport::ServerConfig::builder()
        .with_bind_socket(socket)
        .with_identity(wtransport::Identity::new(chain, key))
        .build();
    let endpoint = wtransport::Endpoint::server(config).unwrap();
    let mut tasks = JoinSet::new();
    loop {
        let incoming = endpoint.accept().await;
        let peers = peers.clone();
        tasks.spawn(async move {
            let Ok(request) = incoming.await else { return };
            let json = request.path().contains("encoding=json");
            let encoding = if json { Encoding::Json } else { Encoding::MessagePack };
            if let Ok(connection) = request.accept().await {
                run_webtransport(connection, encoding, peers).await;
            }
        });
    }
}

async fn run_webtransport(
    connection: wtransport::Connection,
    encoding: Encoding,
    peers: mpsc::UnboundedSender<Peer>,
) {
    let Ok((mut control, mut receive)) = connection.accept_bi().await else { return };
    let (frame_sender, frames) = mpsc::unbounded_channel();
    let (out, mut queue) = mpsc::unbounded_channel();
    let _ = peers.send(Peer { kind: TransportKind::WebTransport, frames, out });
    let mut streams: HashMap<String, wtransport::SendStream> = HashMap::new();
    let mut buffer = FrameBuffer::new(1 << 20);
    let mut bytes = vec![0; 65536];
    loop {
        tokio::select! {
            read = receive.read(&mut bytes) => {
                let Ok(Some(count)) = read else { return };
                buffer.extend(&bytes[..count]);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    let _ = frame_sender.send(encoding.decode_client(&frame).unwrap());
                }
            }
            datagram = connection.receive_datagram() => {
                let Ok(datagram) = datagram else { return };
                let _ = frame_sender.send(encoding.decode_client(&datagram).unwrap());
            }
            out = queue.recv() => match out {
                Some(Out::Frame(frame)) => {
                    if control.write_all(&encoding.encode(&frame).unwrap().prefixed()).await.is_err() { return }
                }
                Some(Out::Stream(name, frame)) => {
                    if !streams.contains_key(&name) {
                        let stream = connection.open_uni().await.unwrap().await.unwrap();
                        streams.insert(name.clone(), stream);
                    }
                    let bytes = encoding.encode(&frame).unwrap().prefixed();
                    if streams.get_mut(&name).unwrap().write_all(&bytes).await.is_err() { return }
                }
                Some(Out::Datagram(frame)) => {
                    let _ = connection.send_datagram(encoding.encode(&frame).unwrap().bare());
                }
                Some(Out::Raw(bytes)) => {
                    let mut prefixed = vec![bytes.len() as u8];
                    prefixed.extend(bytes);
                    let _ = control.write_all(&prefixed).await;
                }
                Some(Out::Close(code)) => {
                    let _ = timeout(Duration::from_millis(500), control.finish()).await;
                    connection.close(u32::from(code).into(), b"");
                    return;
                }
                None => {
                    // The test dropped the peer: the node is gone, without a word.
                    connection.close(0u32.into(), b"");
                    return;
                }
            },
        }
    }
}
