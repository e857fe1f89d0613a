//! The doctor's look below TLS: addresses, the TCP port, the time that a server tells.

use bytes::Bytes;
use futures_util::future::select_ok;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use skywave_client::url::NodeUrl;
use std::{net::SocketAddr, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};

/// How long each step may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// The most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 8;
/// A `Date` has whole seconds: on average it is half a second old.
const HALF_A_SECOND_MS: i64 = 500;

/// The host's addresses; the error says why there are none.
pub(crate) async fn resolve(url: &NodeUrl) -> Result<Vec<SocketAddr>, String> {
    let found = match timeout(TIMEOUT, tokio::net::lookup_host((url.host(), url.port()))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("{}: {error}", url.host())),
        Err(_) => return Err(format!("{}: the resolver does not answer", url.host())),
    };
    let addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() { Err(format!("{} has no address", url.host())) } else { Ok(addresses) }
}

pub(crate) struct Reached {
    pub stream: TcpStream,
    pub address: SocketAddr,
    pub took: Duration,
}

/// Connects to whichever address answers first; the error is that of the last one.
pub(crate) async fn connect(addresses: &[SocketAddr]) -> Result<Reached, String> {
    let begin = Instant::now();
    let attempts = addresses.iter().map(|address| {
        Box::pin(
            async move { TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}")) },
        )
    });
    let (stream, _) = timeout(TIMEOUT, select_ok(attempts))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))?;
    let took = begin.elapsed();
    let address = stream.peer_addr().map_err(|error| error.to_string())?;
    Ok(Reached { stream, address, took })
}

/// By how many milliseconds the server's clock is ahead of this machine's, ± 500: from the `Date` of its answer to an
/// empty request.
pub(crate) async fn server_time<S>(url: &NodeUrl, stream: S) -> Result<i64, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ask = ask_for_date(url, stream);
    timeout(TIMEOUT, ask).await.unwrap_or_else(|_| Err("no answer to an HTTP request".to_owned()))
}

async fn ask_for_date<S>(url: &NodeUrl, stream: S) -> Result<i64, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("no answer to an HTTP request: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    // Only below its path is it sure to be the node, or what stands before it.
    let request = Request::get(url.path())
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, "skywave-doctor")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let asked = OffsetDateTime::now_utc();
    let response = sender.send_request(request).await.map_err(failed)?;
    let answered = OffsetDateTime::now_utc();
    driver.abort();
    let date = response.headers().get(header::DATE).ok_or("the server does not tell the time")?;
    let date = date.to_str().map_err(|error| error.to_string())?;
    let server = OffsetDateTime::parse(date, &Rfc2822).map_err(|error| format!("its date: {error}"))?;
    let halfway: OffsetDateTime = asked + (answered - asked) / 2_i32;
    let offset_ms: i128 = (server - halfway).whole_milliseconds();
    Ok(i64::try_from(offset_ms).map_err(|error| error.to_string())? + HALF_A_SECOND_MS)
}
