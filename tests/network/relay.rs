//! A middlebox on loopback: passes UDP and TCP of one port on to a node, as well as it is told to.

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

const MAX_PACKET_BYTES: usize = 65_536;
/// Where it comes from towards the node.
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Bytes of TCP that are delayed together.
const TCP_CHUNK_BYTES: usize = 4096;
/// The weather is the same in each run.
const SEED: u64 = 7;

/// What becomes of packets.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub udp: bool,
    /// TCP that is not passed on waits.
    pub tcp: bool,
    /// Whether the node's UDP packets are passed on.
    pub udp_replies: bool,
    /// The share of UDP packets that are lost, each way.
    pub loss: f64,
    /// How long the node may say nothing on TCP before both sides are closed, as a proxy does; read when a connection
    /// begins.
    pub silence: Duration,
    /// The share of chunks of TCP in the middle of which their connection ends.
    pub breaks: f64,
    /// The longest delay, each way. It is another one for each packet, so that those of UDP overtake each other.
    pub jitter: Duration,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            udp: true,
            tcp: true,
            udp_replies: true,
            loss: 0.0,
            silence: Duration::MAX,
            breaks: 0.0,
            jitter: Duration::ZERO,
        }
    }
}

/// The relay; it stops when it is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    node: SocketAddr,
    front: UdpSocket,
    weather: watch::Sender<Weather>,
    random: Mutex<SmallRng>,
    /// The relay's own socket for each client's UDP address, and who reads it.
    flows: Mutex<HashMap<SocketAddr, Flow>>,
    /// Clients' addresses that were cut: a QUIC connection would survive a mere change of its path.
    dead: Mutex<HashSet<SocketAddr>>,
    /// Changes when all connections of TCP end.
    cuts: watch::Sender<()>,
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

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.flows.lock().clear();
    }
}

/// A direction that ends both.
struct Broken;

impl Relay {
    pub async fn start(node: SocketAddr) -> Self {
        let (listener, front) = bind().await;
        let shared = Arc::new(Shared {
            node,
            front,
            weather: watch::Sender::new(Weather::default()),
            random: Mutex::new(SmallRng::seed_from_u64(SEED)),
            flows: Mutex::default(),
            dead: Mutex::default(),
            cuts: watch::Sender::new(()),
        });
        let tasks =
            vec![tokio::spawn(shared.clone().pass_udp()), tokio::spawn(shared.clone().pass_tcp(listener))];
        Self { shared, tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.front.local_addr().unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }

    /// Ends all connections: those of TCP are closed, nothing of those of UDP gets through any more.
    #[allow(dead_code, reason = "each test binary uses a part")]
    pub fn cut(&self) {
        let flows = std::mem::take(&mut *self.shared.flows.lock());
        self.shared.dead.lock().extend(flows.into_keys());
        self.shared.cuts.send_replace(());
    }

    /// Gives each UDP flow another source port towards the node, as a NAT does that has forgotten it.
    pub async fn rebind(&self) {
        self.rebind_to(HOME).await;
    }

    /// Gives each UDP flow another source address towards the node, as where a phone changes its network.
    pub async fn rebind_to(&self, address: IpAddr) {
        let clients: Vec<SocketAddr> = self.shared.flows.lock().keys().copied().collect();
        for client in &clients {
            let flow = self.shared.clone().flow(*client, address).await;
            self.shared.flows.lock().insert(*client, flow);
        }
    }
}

/// One port for both.
async fn bind() -> (TcpListener, UdpSocket) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(front) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            return (listener, front);
        }
    }
}

impl Shared {
    async fn flow(self: Arc<Self>, client: SocketAddr, from: IpAddr) -> Flow {
        let back = Arc::new(UdpSocket::bind((from, 0)).await.unwrap());
        back.connect(self.node).await.unwrap();
        let reading = tokio::spawn({
            let back = back.clone();
            async move {
                let mut packet = vec![0; MAX_PACKET_BYTES];
                loop {
                    // An error tells of a packet that found nobody.
                    let Ok(length) = back.recv(&mut packet).await else { continue };
                    let weather = *self.weather.borrow();
                    if weather.udp && weather.udp_replies && !self.is_lost(weather) {
                        let (relay, packet) = (self.clone(), packet[..length].to_vec());
                        self.after_delay(weather, async move { relay.front.send_to(&packet, client).await });
                    }
                }
            }
        });
        Flow { back, reading }
    }

    async fn pass_udp(self: Arc<Self>) {
        let mut packet = vec![0; MAX_PACKET_BYTES];
        loop {
            let Ok((length, client)) = self.front.recv_from(&mut packet).await else { continue };
            let weather = *self.weather.borrow();
            if !weather.udp || self.is_lost(weather) || self.dead.lock().contains(&client) {
                continue;
            }
            let known = self.flows.lock().get(&client).map(|flow| flow.back.clone());
            let back = match known {
                Some(back) => back,
                None => {
                    let flow = self.clone().flow(client, HOME).await;
                    let back = flow.back.clone();
                    self.flows.lock().insert(client, flow);
                    back
                }
            };
            let packet = packet[..length].to_vec();
            self.after_delay(weather, async move { back.send(&packet).await });
        }
    }

    fn is_lost(&self, weather: Weather) -> bool {
        weather.loss > 0.0 && self.random.lock().random_bool(weather.loss)
    }

    fn delay(&self, weather: Weather) -> Duration {
        weather.jitter.mul_f64(self.random.lock().random())
    }

    /// Sends a packet in its own time. One that cannot be sent is lost, as packets are.
    fn after_delay(
        &self,
        weather: Weather,
        sending: impl Future<Output = io::Result<usize>> + Send + 'static,
    ) {
        let delay = self.delay(weather);
        tokio::spawn(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let _ = sending.await;
        });
    }

    async fn pass_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            let relay = self.clone();
            tokio::spawn(async move {
                let Ok(node) = TcpStream::connect(relay.node).await else { return };
                for stream in [&client, &node] {
                    stream.set_nodelay(true).unwrap();
                }
                let ((client_read, client_write), (node_read, node_write)) =
                    (client.into_split(), node.into_split());
                let silence = relay.weather.borrow().silence;
                let up = relay.copy(client_read, node_write, Duration::MAX);
                let down = relay.copy(node_read, client_write, silence);
                let mut cuts = relay.cuts.subscribe();
                tokio::select! {
                    // One that was silent for too long drops both, and one that breaks.
                    _ = async { tokio::try_join!(up, down) } => {}
                    _ = cuts.changed() => {}
                }
            });
        }
    }

    /// Copies one direction until its end, or until it was silent for too long. Nothing is lost, but it may take its
    /// time.
    async fn copy(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        silence: Duration,
    ) -> Result<(), Broken> {
        let mut chunk = vec![0; TCP_CHUNK_BYTES];
        while let Ok(length @ 1..) = timeout(silence, from.read(&mut chunk)).await.map_err(|_| Broken)? {
            let mut weather = self.weather.subscribe();
            let Ok(weather) = weather.wait_for(|weather| weather.tcp).await.map(|weather| *weather) else {
                return Ok(());
            };
            sleep(self.delay(weather)).await;
            if weather.breaks > 0.0 && self.random.lock().random_bool(weather.breaks) {
                let part = self.random.lock().random_range(0..length);
                let _ = to.write_all(&chunk[..part]).await;
                return Err(Broken);
            }
            if to.write_all(&chunk[..length]).await.is_err() {
                return Ok(());
            }
        }
        // The other side went already: it needs no end.
        let _ = to.shutdown().await;
        Ok(())
    }
}
