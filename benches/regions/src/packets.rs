//! A wide-area network that carries real IP packets between sites: late, lost and cut as it is told, so that TCP and
//! QUIC have to recover by themselves.

use crate::{
    relay::Way,
    site::{Site, ip},
};
use anyhow::Context;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tun_rs::{AsyncDevice, DeviceBuilder, SyncDevice};

const DEVICE: &str = "wan";
const MTU: u16 = 1500;
/// Packets on their way in one direction between two sites; there is no room for more.
const QUEUE: usize = 32_768;
/// Of the network that all sites are in.
const PREFIX_LENGTH: u8 = 16;

/// The address of a site: of the network for benchmarks (RFC 2544).
pub fn address(site: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, site, 1)
}

/// Which site an IPv4 packet goes to; nothing else is carried.
fn destination(packet: &[u8]) -> Option<u8> {
    match packet {
        [first, ..] if first >> 4 != 4 => None,
        _ => match packet.get(16..20)? {
            [198, 18, site, 1] => Some(*site),
            _ => None,
        },
    }
}

/// One direction between two sites.
struct Path {
    way: watch::Sender<Way>,
    random: Mutex<SmallRng>,
    carried: AtomicU64,
    lost: AtomicU64,
}

impl Path {
    /// When a packet that sets off now arrives; `None` when it is lost.
    fn arrival(&self) -> Option<Instant> {
        let way = *self.way.borrow();
        let mut random = self.random.lock();
        // A packet over a closed path is not counted: it is the cut that loses it.
        if !way.open {
            return None;
        }
        if random.random_bool(way.loss) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.carried.fetch_add(1, Ordering::Relaxed);
        Some(Instant::now() + way.delay + way.jitter.mul_f64(random.random()))
    }
}

/// Joins sites; it ends when it is dropped.
pub struct Packets {
    /// By the sites they lead from and to.
    paths: Vec<((u8, u8), Arc<Path>)>,
    tasks: JoinSet<()>,
}

impl Packets {
    /// Gives each site a TUN device with its address, and carries packets between all of them. TCP controls congestion
    /// by `congestion` on these ways.
    ///
    /// # Errors
    /// When there can be no TUN devices, or Linux does not know that congestion control.
    pub async fn join(
        sites: &[Site],
        way: impl Fn(u8, u8) -> Way,
        congestion: &'static str,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let mut devices = Vec::new();
        for site in sites {
            let IpAddr::V4(address) = site.address() else { anyhow::bail!("a site needs an IPv4 address") };
            let device = site.run(async move { device(address, congestion) }).await??;
            let [_, _, number, _] = address.octets();
            devices.push((number, Arc::new(AsyncDevice::new(device)?)));
        }
        let mut packets = Self { paths: Vec::new(), tasks: JoinSet::new() };
        for (from, near) in &devices {
            let mut ways_out = Vec::new();
            for (to, far) in devices.iter().filter(|(to, _)| to != from) {
                let seed = seed.wrapping_mul(257).wrapping_add(u64::from(*from) << 8 | u64::from(*to));
                let path = Arc::new(Path {
                    way: watch::Sender::new(way(*from, *to)),
                    random: Mutex::new(SmallRng::seed_from_u64(seed)),
                    carried: AtomicU64::new(0),
                    lost: AtomicU64::new(0),
                });
                let (queue, arriving) = mpsc::channel(QUEUE);
                packets.tasks.spawn(give(far.clone(), arriving, path.clone()));
                ways_out.push((*to, path.clone(), queue));
                packets.paths.push(((*from, *to), path));
            }
            packets.tasks.spawn(take(near.clone(), ways_out));
        }
        Ok(packets)
    }

    /// Cuts or heals one direction; what is under way is lost.
    pub fn open(&self, from: u8, to: u8, open: bool) {
        for (_, path) in self.paths.iter().filter(|(ends, _)| *ends == (from, to)) {
            path.way.send_modify(|way| way.open = open);
        }
    }

    /// How many packets got through, and how many were lost, those of cuts aside.
    pub fn carriage(&self) -> (u64, u64) {
        let sum = |counter: fn(&Path) -> &AtomicU64| {
            self.paths.iter().map(|(_, path)| counter(path).load(Ordering::Relaxed)).sum()
        };
        (sum(|path| &path.carried), sum(|path| &path.lost))
    }
}

/// A TUN device in the network of this thread.
fn device(address: Ipv4Addr, congestion: &str) -> anyhow::Result<SyncDevice> {
    let device = DeviceBuilder::new().name(DEVICE).mtu(MTU).ipv4(address, PREFIX_LENGTH, None);
    let device = device.build_sync().context("no TUN device (/dev/net/tun)")?;
    let network = Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - PREFIX_LENGTH)));
    let route = format!("{network}/{PREFIX_LENGTH} dev {DEVICE} proto kernel scope link src {address}");
    ip(&format!("route replace {route} congctl {congestion}"))?;
    Ok(device)
}

type Departure = (Instant, Vec<u8>);

/// Takes a site's packets as they leave it.
async fn take(device: Arc<AsyncDevice>, ways_out: Vec<(u8, Arc<Path>, mpsc::Sender<Departure>)>) {
    let mut packet = vec![0; usize::from(MTU)];
    while let Ok(length) = device.recv(&mut packet).await {
        let packet = &packet[..length];
        let way_out = ways_out.iter().find(|(to, ..)| destination(packet) == Some(*to));
        let Some((_, path, queue)) = way_out else { continue };
        if let Some(due) = path.arrival() {
            // No room: lost, as at any router.
            let _ = queue.try_send((due, packet.to_vec()));
        }
    }
}

/// Gives packets to the other site in their time. One does not overtake another: jitter is a queue somewhere.
async fn give(device: Arc<AsyncDevice>, mut arriving: mpsc::Receiver<Departure>, path: Arc<Path>) {
    while let Some((due, packet)) = arriving.recv().await {
        sleep_until(due).await;
        // One that the site does not take is lost.
        if path.way.borrow().open {
            let _ = device.send(&packet).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_goes_where_its_header_says_and_nowhere_else() {
        let mut packet = [0; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&address(3).octets());
        assert_eq!(destination(&packet), Some(3));
        packet[16] = 10;
        assert_eq!(destination(&packet), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
        assert_eq!(destination(&[0x45; 19]), None);
        assert_eq!(destination(&[]), None);
    }
}
