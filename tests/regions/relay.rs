//! The path from one region to another's Redis: TCP on loopback that is cut, healed, slow, or open one way only.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

const CHUNK_BYTES: usize = 16_384;
/// The most chunks on their way in one direction.
const MAX_CHUNKS: usize = 1_024;

/// What becomes of bytes. Those that do not pass wait, as TCP sends them again.
#[derive(Debug, Clone)]
pub struct Weather {
    pub there: bool,
    pub back: bool,
    /// Each way.
    pub delay: Duration,
    /// How many bytes each connection carries in a second, each way; all that there are, if not said.
    pub rate: Option<u32>,
    /// Of this machine, where new connections lead.
    port: u16,
    /// Counts resets.
    resets: u64,
    /// The ports of ours from which connections lead there on which nothing passes any more.
    forgotten: BTreeSet<u16>,
}

/// A relay; it stops when it is dropped.
pub struct Relay {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    /// Passes on to `port` of this machine.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fair = Weather {
            there: true,
            back: true,
            delay: Duration::ZERO,
            rate: None,
            port,
            resets: 0,
            forgotten: BTreeSet::new(),
        };
        let weather = Arc::new(watch::Sender::new(fair));
        let accepting = tokio::spawn(accept(listener, weather.clone()));
        Self { address, weather, accepting }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Nothing passes any more, and nobody is told.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| (weather.there, weather.back) = (false, false));
    }

    /// What the other region says does not come through.
    pub fn deafen(&self) {
        self.weather.send_modify(|weather| weather.back = false);
    }

    pub fn heal(&self) {
        self.weather.send_modify(|weather| (weather.there, weather.back) = (true, true));
    }

    /// Each way.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Each connection carries so many bytes in a second, each way.
    pub fn narrow(&self, rate: u32) {
        self.weather.send_modify(|weather| weather.rate = Some(rate));
    }

    /// Of connections that the server knows by these ports nothing passes any more, and nobody is told.
    pub fn forget(&self, ports: impl IntoIterator<Item = u16>) {
        self.weather.send_modify(|weather| weather.forgotten.extend(ports));
    }

    /// Ends every connection; those that are made from then on lead to another port.
    pub fn lead_to(&self, port: u16) {
        self.weather.send_modify(|weather| (weather.port, weather.resets) = (port, weather.resets + 1));
    }

    /// Ends every connection.
    pub fn reset(&self) {
        self.weather.send_modify(|weather| weather.resets += 1);
    }
}

async fn accept(listener: TcpListener, weather: Arc<watch::Sender<Weather>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(pass(client, weather.subscribe()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(client: TcpStream, weather: watch::Receiver<Weather>) {
    let port = weather.borrow().port;
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let ours = server.local_addr().unwrap().port();
    let ((client_read, client_write), (server_read, server_write)) =
        (client.into_split(), server.into_split());
    let (mut resetting, resets) = (weather.clone(), weather.borrow().resets);
    tokio::select! {
        // What waited is lost with the connection, even if the way opens in the same moment.
        biased;
        _ = resetting.wait_for(|weather| weather.resets != resets) => {}
        () = direction(client_read, server_write, weather.clone(), |weather| weather.there && !weather.forgotten.contains(&ours)) => {}
        () = direction(server_read, client_write, weather.clone(), |weather| weather.back && !weather.forgotten.contains(&ours)) => {}
    }
}

/// Copies until the end of either side, each chunk after its delay and as soon as the way is open.
async fn direction(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    is_open: impl Fn(&Weather) -> bool,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_CHUNKS);
    let delays = weather.clone();
    let reading = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let Weather { delay, rate, .. } = *delays.borrow();
            if let Some(rate) = rate {
                sleep(Duration::from_secs_f64(length as f64 / f64::from(rate))).await;
            }
            let due = Instant::now() + delay;
            if sender.send((due, chunk[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            sleep_until(due).await;
            if weather.wait_for(&is_open).await.is_err() || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
