//! Connections to others, by their names.

use futures_util::{
    FutureExt,
    future::{BoxFuture, select_ok},
};
use std::{fmt::Debug, io};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};

/// What goes to and fro between two, in order.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that is about to be.
pub type Connecting<'a> = BoxFuture<'a, io::Result<Box<dyn Stream>>>;

/// Leads to others.
pub trait Network: Send + Sync + Debug {
    /// Connects to a host, by its name or address. What is small is not held back for more to come.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a>;
}

/// The network of the machine: TCP, to whichever of a host's addresses answers first.
#[derive(Debug)]
pub struct Sockets;

impl Network for Sockets {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        async move {
            #[allow(clippy::disallowed_methods, reason = "this is where the machine is asked")]
            let addresses = lookup_host((host, port)).await?;
            #[allow(clippy::disallowed_methods, reason = "this is where the machine is asked")]
            let attempts: Vec<_> = addresses.map(|address| TcpStream::connect(address).boxed()).collect();
            if attempts.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
            }
            let (stream, _) = select_ok(attempts).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
        .boxed()
    }
}
