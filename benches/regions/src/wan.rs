//! The wide-area network between regions: real packets between network namespaces, or connections within this process.

#[cfg(all(target_os = "linux", feature = "packets"))]
use crate::packets::{self, Packets};
use crate::{
    relay::{Relay, Way, Weather},
    site::Site,
};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// Who carries what goes between regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Carrier {
    /// IP packets between network namespaces (Linux, root): TCP and QUIC recover from loss by themselves
    Packets,
    /// Connections of this process: what a lost packet would hold up comes late; clients of all regions are on loopback
    Relay,
}

/// How Linux controls congestion of TCP between regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Congestion {
    /// The default of Linux: takes any loss for congestion
    Cubic,
    /// Measures the path instead
    Bbr,
}

impl Congestion {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

/// What the network is like, whichever regions it joins.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Conditions {
    /// Who carries what goes between regions
    #[arg(long = "wan", value_enum, default_value_t = Carrier::Packets)]
    pub carrier: Carrier,
    /// Of TCP between regions, when packets are carried
    #[arg(long, value_enum, default_value_t = Congestion::Cubic)]
    pub congestion: Congestion,
    /// How many of 100 packets are lost between regions, each way
    #[arg(long, default_value_t = 1.0, value_parser = percent)]
    pub loss_percent: f64,
    /// The most that chance adds to the way between regions, in milliseconds
    #[arg(long, default_value_t = 4)]
    pub jitter_ms: u64,
}

pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=100.0).contains(&value) { Ok(value) } else { Err("between 0 and 100".to_owned()) }
}

impl Conditions {
    /// Within this process, with little loss: what needs no root, for tests.
    pub const RELAY: Self =
        Self { carrier: Carrier::Relay, congestion: Congestion::Cubic, loss_percent: 0.1, jitter_ms: 4 };

    fn way(self, one: &str, other: &str) -> Way {
        Way {
            open: true,
            delay: round_trip(one, other) / 2,
            jitter: Duration::from_millis(self.jitter_ms),
            loss: self.loss_percent / 100.0,
        }
    }
}

/// The time there and back between two regions.
pub fn round_trip(one: &str, other: &str) -> Duration {
    let far = [one, other].contains(&"ap");
    Duration::from_millis(if far { 200 } else { 80 })
}

/// What became of packets between regions, cuts aside; nothing is known of a relay's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Carriage {
    pub carried: u64,
    pub lost: u64,
    /// TCP segments that were sent again, of all regions.
    pub retransmitted: u64,
}

/// The network; it ends when it is dropped.
pub enum Wan {
    /// From a region's nodes to another region's Redis.
    Relays(BTreeMap<(&'static str, &'static str), Relay>),
    #[cfg(all(target_os = "linux", feature = "packets"))]
    Packets { names: Vec<&'static str>, sites: Vec<Site>, packets: Packets },
}

impl Wan {
    /// A network between `regions`, and the site of each.
    ///
    /// # Errors
    /// When packets are to be carried and this process may not do so.
    pub async fn between(
        regions: &[&'static str],
        conditions: Conditions,
        seed: u64,
    ) -> anyhow::Result<(Self, Vec<Site>)> {
        match conditions.carrier {
            Carrier::Relay => Ok((Self::Relays(BTreeMap::new()), vec![Site::here(); regions.len()])),
            Carrier::Packets => Self::of_packets(regions, conditions, seed).await,
        }
    }

    #[cfg(all(target_os = "linux", feature = "packets"))]
    async fn of_packets(
        regions: &[&'static str],
        conditions: Conditions,
        seed: u64,
    ) -> anyhow::Result<(Self, Vec<Site>)> {
        let mut sites = Vec::new();
        for (number, name) in (1..).zip(regions) {
            sites.push(Site::apart(name, packets::address(number)).await?);
        }
        let name = |site: u8| regions[usize::from(site) - 1];
        let way = |from, to| conditions.way(name(from), name(to));
        let congestion = conditions.congestion.name();
        let packets = Packets::join(&sites, way, congestion, seed).await?;
        Ok((Self::Packets { names: regions.to_vec(), sites: sites.clone(), packets }, sites))
    }

    #[cfg(not(all(target_os = "linux", feature = "packets")))]
    async fn of_packets(_: &[&'static str], _: Conditions, _: u64) -> anyhow::Result<(Self, Vec<Site>)> {
        anyhow::bail!("packets are carried on Linux only, with the feature `packets`: use --wan relay")
    }

    /// Where nodes of `from` reach what listens at `target` in `to`.
    ///
    /// # Errors
    /// When there is no port for a relay.
    pub async fn path(
        &mut self,
        from: &'static str,
        to: &'static str,
        target: SocketAddr,
        conditions: Conditions,
        seed: u64,
    ) -> anyhow::Result<SocketAddr> {
        match self {
            Self::Relays(links) => {
                let seed = seed.wrapping_add(links.len() as u64);
                let weather = Weather::both(conditions.way(from, to));
                let link = Relay::tcp(Site::here().address(), target, weather, seed).await?;
                let address = link.address();
                links.insert((from, to), link);
                Ok(address)
            }
            #[cfg(all(target_os = "linux", feature = "packets"))]
            Self::Packets { .. } => Ok(target),
        }
    }

    /// Cuts or heals what goes from one region to another, and not what comes back.
    pub fn open(&self, from: &str, to: &str, open: bool) {
        match self {
            Self::Relays(links) => {
                for ((near, far), link) in links {
                    // Whoever opened the connection, its packets go both ways.
                    if (*near, *far) == (from, to) {
                        link.set(|weather| weather.there.open = open);
                    } else if (*far, *near) == (from, to) {
                        link.set(|weather| weather.back.open = open);
                    }
                }
            }
            #[cfg(all(target_os = "linux", feature = "packets"))]
            Self::Packets { names, packets, .. } => {
                let number = |name: &str| (1..).zip(names).find(|(_, known)| **known == name);
                if let (Some((from, _)), Some((to, _))) = (number(from), number(to)) {
                    packets.open(from, to, open);
                }
            }
        }
    }

    /// # Errors
    /// When the kernel does not tell of its segments.
    pub async fn carriage(&self) -> anyhow::Result<Carriage> {
        match self {
            Self::Relays(_) => Ok(Carriage::default()),
            #[cfg(all(target_os = "linux", feature = "packets"))]
            Self::Packets { sites, packets, .. } => {
                let (carried, lost) = packets.carriage();
                let mut retransmitted = 0;
                for site in sites {
                    retransmitted += site.retransmissions().await?;
                }
                Ok(Carriage { carried, lost, retransmitted })
            }
        }
    }
}
