//! A path on loopback to one port, as slow and as broken as it is told to be: TCP, and UDP where it is asked for.

mod tcp;
mod udp;

use crate::Port;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};
use udp::Flows;

/// Where it comes from towards the target.
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The weather is the same in each run.
const SEED: u64 = 7;

/// What becomes of what is sent. What does not pass on TCP waits, as it is sent again; on UDP it is lost.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Whether TCP passes, to the target and back.
    pub tcp: bool,
    /// Whether the target's TCP passes, where TCP does.
    pub tcp_replies: bool,
    /// Whether UDP passes, to the target and back.
    pub udp: bool,
    /// Whether the target's UDP packets pass, where UDP does.
    pub udp_replies: bool,
    /// Each way.
    pub delay: Duration,
    /// The most that is added to the delay, each way. It is another one for each packet, so that those of UDP overtake
    /// each other.
    pub jitter: Duration,
    /// The share of UDP packets that are lost, each way.
    pub loss: f64,
    /// How many bytes each connection of TCP carries in a second, each way; all that there are, if not said.
    pub rate: Option<u32>,
    /// How long the target may say nothing on TCP before both sides are closed, as a proxy does; read when a connection
    /// begins.
    pub silence: Duration,
    /// The share of chunks of TCP in the middle of which their connection ends.
    pub breaks: f64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            tcp: true,
            tcp_replies: true,
            udp: true,
            udp_replies: true,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: None,
            silence: Duration::MAX,
            breaks: 0.0,
        }
    }
}

/// The path; it ends when it is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    weather: watch::Sender<Weather>,
    random: Mutex<SmallRng>,
    /// Of this machine, where new connections lead.
    target: AtomicU16,
    /// Changes when all connections of TCP end.
    resets: watch::Sender<()>,
    /// The relay's own ports from which connections of TCP lead to the target on which nothing passes any more.
    forgotten: Mutex<BTreeSet<u16>>,
    flows: Flows,
}

impl Relay {
    /// TCP alone, to this port. Nobody listens on UDP.
    pub async fn tcp(target: u16) -> Self {
        let listener = TcpListener::bind((HOME, 0)).await.unwrap();
        Self::serve(listener, None, target)
    }

    /// TCP and UDP of one port, to this one.
    pub async fn tcp_and_udp(target: u16) -> Self {
        // Its own until it is bound.
        let port = Port::free();
        let listener = TcpListener::bind((HOME, port.number())).await.unwrap();
        let front = UdpSocket::bind((HOME, port.number())).await.unwrap();
        Self::serve(listener, Some(front), target)
    }

    fn serve(listener: TcpListener, front: Option<UdpSocket>, target: u16) -> Self {
        let shared = Arc::new(Shared {
            weather: watch::Sender::new(Weather::default()),
            random: Mutex::new(SmallRng::seed_from_u64(SEED)),
            target: AtomicU16::new(target),
            resets: watch::Sender::new(()),
            forgotten: Mutex::default(),
            flows: Flows::default(),
        });
        let (address, mut tasks) = (listener.local_addr().unwrap(), JoinSet::new());
        tasks.spawn(tcp::pass(shared.clone(), listener));
        if let Some(front) = front {
            tasks.spawn(udp::pass(shared.clone(), Arc::new(front)));
        }
        Self { address, shared, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }

    /// Nothing passes any more, and nobody is told.
    pub fn cut(&self) {
        self.set(|weather| (weather.tcp, weather.udp) = (false, false));
    }

    /// All passes again.
    pub fn heal(&self) {
        self.set(|weather| {
            (weather.tcp, weather.udp, weather.tcp_replies, weather.udp_replies) = (true, true, true, true);
        });
    }

    /// Ends every connection: those of TCP are closed, nothing of those of UDP passes any more.
    pub fn reset(&self) {
        self.shared.flows.end();
        self.shared.resets.send_replace(());
    }

    /// Ends every connection; those that are made from then on lead to another port.
    pub fn lead_to(&self, target: u16) {
        self.shared.target.store(target, Ordering::Release);
        self.reset();
    }

    /// Of connections that the target knows by these ports nothing passes any more, and nobody is told.
    pub fn forget(&self, ports: impl IntoIterator<Item = u16>) {
        self.shared.forgotten.lock().extend(ports);
    }

    /// Gives each UDP flow another source port towards the target, as a NAT does that has forgotten it.
    pub async fn rebind(&self) {
        self.rebind_to(HOME).await;
    }

    /// Gives each UDP flow another source address towards the target, as where a phone changes its network.
    pub async fn rebind_to(&self, address: IpAddr) {
        udp::rebind(&self.shared, address).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.reset();
    }
}

impl Shared {
    fn target(&self) -> SocketAddr {
        (HOME, self.target.load(Ordering::Acquire)).into()
    }

    /// How late the next packet is.
    fn delay(&self) -> Duration {
        let Weather { delay, jitter, .. } = *self.weather.borrow();
        delay + jitter.mul_f64(self.random.lock().random())
    }

    /// Whether chance has it, which does so in this share of cases.
    fn happens(&self, share: f64) -> bool {
        share > 0.0 && self.random.lock().random_bool(share)
    }
}
