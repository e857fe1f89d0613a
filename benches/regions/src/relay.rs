//! Paths on loopback that are as slow and as broken as they are told to be: TCP for links to Redis, TCP and UDP for
//! clients.

use anyhow::Context;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

const MAX_PACKET_BYTES: usize = 65_536;
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on their way in one direction of one connection; a sender waits when there are more.
const CHUNKS_ON_THEIR_WAY: usize = 256;
/// What a lost segment costs: the least retransmission time-out in common use (Linux: `TCP_RTO_MIN`).
const RETRANSMISSION: Duration = Duration::from_millis(200);
const MAX_FLOWS: usize = 4096;
/// How nodes name the connections to Redis by which they publish, subscribe and lead, as the first that they say.
const COMMANDS: &[u8] = b"skywave-commands";
/// How often a closed port is looked at.
const REFUSAL_POLL: Duration = Duration::from_millis(50);

/// One direction of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// What TCP carries over a closed way waits, as it would for retransmissions; UDP is lost.
    pub open: bool,
    pub delay: Duration,
    /// The most that is added to the delay, by chance.
    pub jitter: Duration,
    /// The share of packets that are lost; one of TCP comes late instead, and holds up what follows.
    pub loss: f64,
}

impl Way {
    pub const CLEAR: Self = Self { open: true, delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0 };
}

/// Both directions, seen from whoever opens connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    pub there: Way,
    pub back: Way,
}

impl Weather {
    pub const CLEAR: Self = Self { there: Way::CLEAR, back: Way::CLEAR };

    pub fn both(way: Way) -> Self {
        Self { there: way, back: way }
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    There,
    Back,
}

/// A path to a place that may change; it ends when it is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    target: watch::Sender<SocketAddr>,
    weather: watch::Sender<Weather>,
    /// What is added to the way there of connections for commands.
    commands_late: watch::Sender<Duration>,
    random: Mutex<SmallRng>,
}

impl Relay {
    /// TCP alone, to a free port of `address`.
    pub async fn tcp(
        address: IpAddr,
        target: SocketAddr,
        weather: Weather,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let relay = Self::new(listener.local_addr()?, target, weather, seed);
        Ok(relay.serve(listener, None))
    }

    /// TCP and UDP of one port.
    pub async fn both(
        address: IpAddr,
        target: SocketAddr,
        weather: Weather,
        seed: u64,
    ) -> anyhow::Result<Self> {
        for _ in 0..100 {
            let listener = TcpListener::bind((address, 0)).await?;
            if let Ok(front) = UdpSocket::bind(listener.local_addr()?).await {
                let relay = Self::new(listener.local_addr()?, target, weather, seed);
                return Ok(relay.serve(listener, Some(front)));
            }
        }
        anyhow::bail!("no port is free on both TCP and UDP")
    }

    fn new(address: SocketAddr, target: SocketAddr, weather: Weather, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            target: watch::Sender::new(target),
            weather: watch::Sender::new(weather),
            commands_late: watch::Sender::new(Duration::ZERO),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
        });
        Self { address, shared, tasks: JoinSet::new() }
    }

    fn serve(mut self, listener: TcpListener, front: Option<UdpSocket>) -> Self {
        self.tasks.spawn(self.shared.clone().pass_tcp(listener));
        if let Some(front) = front {
            self.tasks.spawn(self.shared.clone().serve_udp(front, self.address));
        }
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new connections lead.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.target.send_replace(target);
    }

    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }

    /// Makes what a node asks of its Redis this late, and nothing of what it follows.
    pub fn delay_commands(&self, by: Duration) {
        self.shared.commands_late.send_replace(by);
    }

    /// Cuts or heals both directions.
    pub fn open(&self, open: bool) {
        self.set(|weather| (weather.there.open, weather.back.open) = (open, open));
    }
}

impl Shared {
    fn way(&self, direction: Direction) -> Way {
        let weather = self.weather.borrow();
        match direction {
            Direction::There => weather.there,
            Direction::Back => weather.back,
        }
    }

    fn chance(&self, share: f64) -> bool {
        share > 0.0 && self.random.lock().random_bool(share)
    }

    fn delay(&self, way: Way) -> Duration {
        way.delay + way.jitter.mul_f64(self.random.lock().random())
    }

    // ---- TCP

    async fn pass_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    connections.spawn(self.clone().connect(client));
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connect(self: Arc<Self>, client: TcpStream) {
        self.opened(Direction::There).await;
        let target = *self.target.borrow();
        // Nobody there: the client's connection ends with this.
        let Ok(server) = TcpStream::connect(target).await else { return };
        if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
            return;
        }
        let ((client_read, client_write), (server_read, server_write)) =
            (client.into_split(), server.into_split());
        tokio::join!(
            self.carry(client_read, server_write, Direction::There),
            self.carry(server_read, client_write, Direction::Back),
        );
    }

    async fn opened(&self, direction: Direction) {
        let mut weather = self.weather.subscribe();
        let is_open = |weather: &Weather| match direction {
            Direction::There => weather.there.open,
            Direction::Back => weather.back.open,
        };
        // The sender lives in `self`.
        let _ = weather.wait_for(is_open).await;
    }

    /// Carries one direction until its end, in order and without loss, each chunk in its time.
    async fn carry(&self, from: OwnedReadHalf, to: OwnedWriteHalf, direction: Direction) {
        let (chunks, queue) = mpsc::channel(CHUNKS_ON_THEIR_WAY);
        tokio::join!(self.take(from, chunks, direction), self.give(to, queue, direction));
    }

    async fn take(
        &self,
        mut from: OwnedReadHalf,
        chunks: mpsc::Sender<(Instant, Vec<u8>)>,
        direction: Direction,
    ) {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut due = Instant::now();
        let mut is_for_commands = false;
        loop {
            let length = match from.read(&mut buffer).await {
                Ok(length @ 1..) => length,
                Ok(0) | Err(_) => return,
            };
            let way = self.way(direction);
            let mut late = if self.chance(way.loss) { way.delay + RETRANSMISSION } else { Duration::ZERO };
            if let Direction::There = direction {
                is_for_commands |= buffer[..length].windows(COMMANDS.len()).any(|part| part == COMMANDS);
                late += if is_for_commands { *self.commands_late.borrow() } else { Duration::ZERO };
            }
            due = due.max(Instant::now() + self.delay(way) + late);
            if chunks.send((due, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    }

    async fn give(
        &self,
        mut to: OwnedWriteHalf,
        mut queue: mpsc::Receiver<(Instant, Vec<u8>)>,
        direction: Direction,
    ) {
        while let Some((due, chunk)) = queue.recv().await {
            sleep_until(due).await;
            self.opened(direction).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        self.opened(direction).await;
        // The other side went already: it needs no end.
        let _ = to.shutdown().await;
    }

    // ---- UDP

    /// Passes packets on for as long as somebody listens. While nobody does this port is closed as well, so that
    /// the kernel answers clients as it would answer them there: port unreachable.
    async fn serve_udp(self: Arc<Self>, mut front: UdpSocket, address: SocketAddr) {
        loop {
            let (refused, mut told) = mpsc::channel(1);
            let passing = self.clone().pass_udp(Arc::new(front), refused);
            tokio::select! {
                () = passing => {}
                _ = told.recv() => {}
            }
            while self.is_refused().await {
                sleep(REFUSAL_POLL).await;
            }
            // What is still under way holds the port for a moment.
            front = loop {
                match UdpSocket::bind(address).await {
                    Ok(front) => break front,
                    Err(_) => sleep(REFUSAL_POLL).await,
                }
            };
        }
    }

    /// Whether the target's port is closed. One byte is no QUIC packet.
    async fn is_refused(&self) -> bool {
        let target = *self.target.borrow();
        let probe = async {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(target).await?;
            socket.send(&[0]).await?;
            socket.recv(&mut [0]).await
        };
        let answer = timeout(REFUSAL_POLL, probe).await;
        answer.is_ok_and(|answer| answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
    }

    async fn pass_udp(self: Arc<Self>, front: Arc<UdpSocket>, refused: mpsc::Sender<()>) {
        let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
        let mut packet = vec![0; MAX_PACKET_BYTES];
        loop {
            // An error tells of an earlier packet that found nobody.
            let Ok((length, client)) = front.recv_from(&mut packet).await else { continue };
            let way = self.way(Direction::There);
            if !way.open || self.chance(way.loss) {
                continue;
            }
            if flows.len() >= MAX_FLOWS && !flows.contains_key(&client) {
                flows.clear();
            }
            let back = match flows.get(&client) {
                Some(flow) => flow.back.clone(),
                None => match self.clone().flow(front.clone(), client, refused.clone()).await {
                    Ok(flow) => flows.entry(client).or_insert(flow).back.clone(),
                    Err(_) => continue,
                },
            };
            let (packet, refused) = (packet[..length].to_vec(), refused.clone());
            after(self.delay(way), async move {
                // The socket tells of an earlier packet that found nobody once, to whoever uses it first.
                back.send(&packet).await.inspect_err(|error| note(error, &refused))
            });
        }
    }

    /// The relay's own socket for one client.
    async fn flow(
        self: Arc<Self>,
        front: Arc<UdpSocket>,
        client: SocketAddr,
        refused: mpsc::Sender<()>,
    ) -> anyhow::Result<Flow> {
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let target = *self.target.borrow();
        back.connect(target).await.context("no path to the node")?;
        let socket = back.clone();
        let reading = tokio::spawn(async move {
            let mut packet = vec![0; MAX_PACKET_BYTES];
            loop {
                let length = match socket.recv(&mut packet).await {
                    Ok(length) => length,
                    Err(error) => {
                        note(&error, &refused);
                        continue;
                    }
                };
                let way = self.way(Direction::Back);
                if way.open && !self.chance(way.loss) {
                    let (front, packet) = (front.clone(), packet[..length].to_vec());
                    after(self.delay(way), async move { front.send_to(&packet, client).await });
                }
            }
        });
        Ok(Flow { back, reading })
    }
}

struct Flow {
    back: Arc<UdpSocket>,
    reading: JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Tells where the port turns out to be closed.
fn note(error: &io::Error, refused: &mpsc::Sender<()>) {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        // Full: it has been told already.
        let _ = refused.try_send(());
    }
}

/// Sends a packet in its own time. One that cannot be sent is lost, as packets are.
fn after(delay: Duration, sending: impl Future<Output = io::Result<usize>> + Send + 'static) {
    tokio::spawn(async move {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let _ = sending.await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn who_sends_two_packets_at_a_time_to_a_closed_port_learns_that_it_is_closed() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let node = UdpSocket::bind((here, 0)).await.unwrap();
        let relay = Relay::both(here, node.local_addr().unwrap(), Weather::CLEAR, 1).await.unwrap();
        let client = UdpSocket::bind((here, 0)).await.unwrap();
        client.connect(relay.address()).await.unwrap();
        drop(node);
        let learned = async {
            loop {
                // Whichever of these calls hears of it.
                let outcomes = [client.send(b"one").await, client.send(b"two").await];
                let answer = timeout(REFUSAL_POLL, client.recv(&mut [0; 8])).await.unwrap_or(Ok(0));
                if outcomes.into_iter().chain([answer]).any(|outcome| outcome.is_err()) {
                    return;
                }
            }
        };
        assert!(timeout(Duration::from_secs(2), learned).await.is_ok());
    }
}
