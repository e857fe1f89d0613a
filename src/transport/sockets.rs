//! The sockets that listeners are bound to: on which addresses, with which options, and who comes.

use super::canonical;
use crate::config::ListenAddress;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpStream};

/// What is asked of the kernel for the QUIC socket. It serves all sessions, and the default of some 200 KiB loses
/// packets when many connect at once.
const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const TCP_BACKLOG: i32 = 4096;
/// How long to wait after the process ran out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many ports are tried where any will do.
const PORT_ATTEMPTS: usize = 16;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// A UDP socket and the buffers that the kernel really gave, in bytes.
pub struct UdpSocket {
    pub socket: std::net::UdpSocket,
    pub(crate) receive_buffer: usize,
    pub(crate) send_buffer: usize,
}

/// What is bound to one address.
pub struct Bound<T> {
    pub socket: T,
    /// With the port that it got.
    pub address: SocketAddr,
}

/// Binds TCP listeners, with one port.
///
/// # Errors
/// When an address cannot be bound, or the machine has none of its families.
pub fn bind(address: ListenAddress) -> Result<Vec<Bound<TcpListener>>, ListenError> {
    on_a_free_port(address, bind_tcp)
}

/// Binds TCP, which takes the port, and UDP, which follows it.
///
/// # Errors
/// As for [`bind`].
pub fn bind_both(address: ListenAddress) -> Result<Vec<Bound<(TcpListener, UdpSocket)>>, ListenError> {
    on_a_free_port(address, |wanted| {
        let Bound { socket, address } = bind_tcp(wanted)?;
        Ok(Bound { socket: (socket, bind_udp(address)?), address })
    })
}

/// The next one who comes, whatever fails meanwhile; may be dropped and called again.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (stream, canonical(address)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Binds all of an address with `bind_one`. Where any port will do, one that is taken in a part is given up for
/// another.
fn on_a_free_port<T>(
    address: ListenAddress,
    bind_one: impl Fn(SocketAddr) -> io::Result<Bound<T>>,
) -> Result<Vec<Bound<T>>, ListenError> {
    for _ in 1..PORT_ATTEMPTS {
        match on_each_family(address, &bind_one) {
            Err(error) if address.port() == 0 && error.source.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
    on_each_family(address, bind_one)
}

/// Binds all of an address; what is bound after the first takes its port. Families that the machine lacks are left out,
/// as long as one is there.
fn on_each_family<T>(
    address: ListenAddress,
    bind_one: impl Fn(SocketAddr) -> io::Result<Bound<T>>,
) -> Result<Vec<Bound<T>>, ListenError> {
    let mut bound: Vec<Bound<T>> = Vec::new();
    let mut lacking = Vec::new();
    for mut wanted in address.sockets() {
        if let Some(first) = bound.first() {
            if address.is_one_socket() {
                break;
            }
            wanted.set_port(first.address.port());
        }
        match bind_one(wanted) {
            Ok(one) => bound.push(one),
            Err(source) if is_family_lacking(&source) => {
                lacking.push(ListenError { address: wanted, source })
            }
            Err(source) => return Err(ListenError { address: wanted, source }),
        }
    }
    if bound.is_empty()
        && let Some(error) = lacking.pop()
    {
        return Err(error);
    }
    for ListenError { address, source } in lacking {
        tracing::info!(%address, error = %source, "this machine lacks the address's family: listening without it");
    }
    Ok(bound)
}

/// Whether a machine answers so that has no IPv6, or no IPv4: no such sockets at all, or no such address.
fn is_family_lacking(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Binds the QUIC socket. Warns when the kernel grants smaller buffers than asked.
fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
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

fn bind_tcp(address: SocketAddr) -> io::Result<Bound<TcpListener>> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    let socket = TcpListener::from_std(socket.into())?;
    Ok(Bound { address: socket.local_addr()?, socket })
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

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN_PORT: u16 = 4000;
    const FREE_PORT: u16 = 5000;

    /// What is bound of `text` on a machine where binding an address ends with that error.
    fn bound(text: &str, failing: &[(&str, io::ErrorKind)]) -> Result<Vec<String>, String> {
        on(text, |wanted| {
            let failure = failing.iter().find(|(address, _)| wanted.ip().to_string() == *address);
            failure.map(|(_, kind)| (*kind).into())
        })
    }

    fn on(text: &str, failure: impl Fn(SocketAddr) -> Option<io::Error>) -> Result<Vec<String>, String> {
        let bind_one = |mut wanted: SocketAddr| match failure(wanted) {
            Some(error) => Err(error),
            None => {
                if wanted.port() == 0 {
                    wanted.set_port(FREE_PORT);
                }
                Ok(Bound { socket: (), address: wanted })
            }
        };
        let outcome = on_a_free_port(text.parse().unwrap(), bind_one);
        outcome
            .map(|bound| bound.iter().map(|one| one.address.to_string()).collect())
            .map_err(|error| error.to_string())
    }

    const NOT_AVAILABLE: io::ErrorKind = io::ErrorKind::AddrNotAvailable;

    #[test]
    fn all_addresses_are_one_socket_of_both_families() {
        assert_eq!(bound("[::]:4433", &[]).unwrap(), ["[::]:4433"]);
    }

    #[test]
    fn without_ipv6_all_addresses_are_those_of_ipv4() {
        assert_eq!(bound("[::]:4433", &[("::", NOT_AVAILABLE)]).unwrap(), ["0.0.0.0:4433"]);
        let no_such_sockets =
            |wanted: SocketAddr| wanted.is_ipv6().then(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        assert_eq!(on("[::]:4433", no_such_sockets).unwrap(), ["0.0.0.0:4433"]);
        assert_eq!(on("localhost:4433", no_such_sockets).unwrap(), ["127.0.0.1:4433"]);
    }

    #[test]
    fn localhost_is_both_families_with_one_port_or_the_one_that_is_there() {
        assert_eq!(bound("localhost:0", &[]).unwrap(), ["127.0.0.1:5000", "[::1]:5000"]);
        assert_eq!(bound("localhost:0", &[("::1", NOT_AVAILABLE)]).unwrap(), ["127.0.0.1:5000"]);
        assert_eq!(bound("localhost:0", &[("127.0.0.1", NOT_AVAILABLE)]).unwrap(), ["[::1]:5000"]);
        let neither = bound("localhost:4433", &[("127.0.0.1", NOT_AVAILABLE), ("::1", NOT_AVAILABLE)]);
        assert!(
            neither.unwrap_err().starts_with("cannot listen on"),
            "a node nobody can reach does not start"
        );
    }

    #[test]
    fn a_family_whose_port_is_taken_is_not_left_out() {
        let taken = bound("localhost:4433", &[("::1", io::ErrorKind::AddrInUse)]).unwrap_err();
        assert!(taken.starts_with("cannot listen on [::1]:4433"), "{taken}");
        let taken = bound("[::]:4433", &[("::", io::ErrorKind::AddrInUse)]).unwrap_err();
        assert!(taken.starts_with("cannot listen on [::]:4433"), "{taken}");
    }

    #[test]
    fn where_any_port_will_do_one_that_is_taken_in_a_part_is_given_up() {
        let ports = std::cell::Cell::new(TAKEN_PORT);
        let bind_one = |mut wanted: SocketAddr| {
            if wanted.port() == 0 {
                wanted.set_port(ports.replace(FREE_PORT));
            }
            match (wanted.is_ipv6(), wanted.port()) {
                (true, TAKEN_PORT) => Err(io::ErrorKind::AddrInUse.into()),
                _ => Ok(Bound { socket: (), address: wanted }),
            }
        };
        let bound = on_a_free_port(ListenAddress::Localhost(0), bind_one).unwrap();
        assert!(bound.len() == 2 && bound.iter().all(|one| one.address.port() == FREE_PORT));
    }

    #[test]
    fn udp_buffers_are_read_back() {
        let bound = bind_udp(([127, 0, 0, 1], 0).into()).unwrap();
        assert!(bound.receive_buffer > 0 && bound.send_buffer > 0);
    }
}
