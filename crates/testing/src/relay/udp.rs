//! UDP on a path: packets that come late, overtake each other and are lost.

use super::{HOME, Shared};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{net::UdpSocket, task::JoinHandle, time::sleep};

const MAX_PACKET_BYTES: usize = 65_536;

/// What the path knows of who sends packets.
#[derive(Default)]
pub(crate) struct Flows(Mutex<Known>);

#[derive(Default)]
struct Known {
    live: HashMap<SocketAddr, Flow>,
    /// Addresses whose flow was ended: a QUIC connection would survive a mere change of its path.
    dead: HashSet<SocketAddr>,
}

impl Flows {
    /// Nothing of those that there are passes any more.
    pub(crate) fn end(&self) {
        let mut known = self.0.lock();
        let live = std::mem::take(&mut known.live);
        known.dead.extend(live.into_keys());
    }
}

/// The relay's own socket for a client's address, and who reads it.
struct Flow {
    /// Where the client's packets come in.
    front: Arc<UdpSocket>,
    back: Arc<UdpSocket>,
    reading: JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Flow {
    async fn open(shared: &Arc<Shared>, front: Arc<UdpSocket>, client: SocketAddr, from: IpAddr) -> Self {
        let back = Arc::new(UdpSocket::bind((from, 0)).await.unwrap());
        back.connect(shared.target()).await.unwrap();
        let reading = tokio::spawn(pass_back(shared.clone(), back.clone(), front.clone(), client));
        Self { front, back, reading }
    }
}

pub(crate) async fn pass(shared: Arc<Shared>, front: Arc<UdpSocket>) {
    let mut packet = vec![0; MAX_PACKET_BYTES];
    loop {
        let Ok((length, client)) = front.recv_from(&mut packet).await else { continue };
        let weather = *shared.weather.borrow();
        if !weather.udp || shared.happens(weather.loss) || shared.flows.0.lock().dead.contains(&client) {
            continue;
        }
        let known = shared.flows.0.lock().live.get(&client).map(|flow| flow.back.clone());
        let back = match known {
            Some(back) => back,
            None => {
                let flow = Flow::open(&shared, front.clone(), client, HOME).await;
                let back = flow.back.clone();
                shared.flows.0.lock().live.insert(client, flow);
                back
            }
        };
        let packet = packet[..length].to_vec();
        late(&shared, async move { back.send(&packet).await });
    }
}

/// Passes on what the target sends to a client.
async fn pass_back(shared: Arc<Shared>, back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
    let mut packet = vec![0; MAX_PACKET_BYTES];
    loop {
        // An error tells of a packet that found nobody.
        let Ok(length) = back.recv(&mut packet).await else { continue };
        let weather = *shared.weather.borrow();
        if weather.udp && weather.udp_replies && !shared.happens(weather.loss) {
            let (front, packet) = (front.clone(), packet[..length].to_vec());
            late(&shared, async move { front.send_to(&packet, client).await });
        }
    }
}

/// Gives each flow another socket towards the target.
pub(crate) async fn rebind(shared: &Arc<Shared>, from: IpAddr) {
    let live = |(client, flow): (&SocketAddr, &Flow)| (*client, flow.front.clone());
    let flows: Vec<_> = shared.flows.0.lock().live.iter().map(live).collect();
    for (client, front) in flows {
        let flow = Flow::open(shared, front, client, from).await;
        shared.flows.0.lock().live.insert(client, flow);
    }
}

/// Sends a packet in its own time. One that cannot be sent is lost, as packets are.
fn late(shared: &Shared, sending: impl Future<Output = io::Result<usize>> + Send + 'static) {
    let delay = shared.delay();
    tokio::spawn(async move {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let _ = sending.await;
    });
}
