//! Simulated paths: delay, loss, outages, NAT bindings and the death of the client, in virtual microseconds.

pub const SECOND: u64 = 1_000_000;
pub const HOUR: u64 = 3_600 * SECOND;
pub const NEVER: u64 = u64::MAX;

/// A reliable stream stops repeating a segment after this many repetitions.
const MAX_REPETITIONS: u32 = 12;
const OUTAGE_SLOT: u64 = 300 * SECOND;

/// SplitMix64 (Steele, Lea and Flood, 2014): the table must not change with a library's generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `0..bound`; the bias of the remainder is below one in a million for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub name: &'static str,
    /// One way, at least.
    pub delay: u64,
    /// Added to it, uniformly.
    pub jitter: u64,
    /// So many packets in 1,000 are late by 300 to 800 ms.
    pub spikes_per_mille: u64,
    /// So many packets in 1,000 are lost, each way.
    pub loss_per_mille: u64,
    /// How long a NAT binding lives without a packet from the client.
    pub nat_binding: Option<u64>,
    /// Once in five minutes nothing gets through for 0.5 to 2 s.
    pub outages: bool,
}

const GOOD: Path = Path {
    name: "good",
    delay: 20_000,
    jitter: 4_000,
    spikes_per_mille: 0,
    loss_per_mille: 1,
    nat_binding: None,
    outages: false,
};

pub const PATHS: [Path; 8] = [
    GOOD,
    Path { name: "jittery", delay: 40_000, jitter: 60_000, spikes_per_mille: 50, loss_per_mille: 5, ..GOOD },
    Path { name: "outages of 0.5–2 s", outages: true, ..GOOD },
    Path { name: "lossy 5 %", loss_per_mille: 50, ..GOOD },
    Path { name: "lossy 10 %", loss_per_mille: 100, ..GOOD },
    Path { name: "lossy 20 %", loss_per_mille: 200, ..GOOD },
    Path { name: "NAT 30 s", nat_binding: Some(30 * SECOND), ..GOOD },
    Path { name: "NAT 120 s", nat_binding: Some(120 * SECOND), ..GOOD },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// One session's way through the network; the NAT is at the client's end.
pub struct Network {
    pub path: Path,
    pub transport: Transport,
    /// From here on the client takes and sends nothing.
    pub death: u64,
    /// Packets that the server sent, repetitions included.
    pub packets_down: u64,
    random: Random,
    outage_seed: u64,
    last_outbound: u64,
    /// Counts the bindings: each is another address to the node.
    pub address: u32,
    /// A TCP connection whose binding expired does not come back.
    broken: bool,
}

impl Network {
    pub fn new(path: Path, transport: Transport, seed: u64, death: u64) -> Self {
        let mut random = Random::new(mix(seed));
        let outage_seed = random.next();
        Self {
            path,
            transport,
            death,
            packets_down: 0,
            random,
            outage_seed,
            last_outbound: 0,
            address: 0,
            broken: false,
        }
    }

    /// A new connection: it opens a new binding.
    pub fn connect(&mut self, at: u64) {
        self.last_outbound = at;
        self.broken = false;
    }

    /// When one packet to the client arrives, if it does.
    pub fn datagram_down(&mut self, at: u64) -> Option<u64> {
        self.packets_down += 1;
        let arrival = at + self.delay();
        let lost = self.is_lost(at) || arrival >= self.death || !self.binding_lives(arrival);
        (!lost).then_some(arrival)
    }

    /// When one packet from the client arrives, if it does. It opens or refreshes the binding.
    pub fn datagram_up(&mut self, at: u64) -> Option<u64> {
        if at >= self.death || self.in_outage(at) {
            return None;
        }
        if !self.binding_lives(at) {
            if self.transport == Transport::Tcp {
                return None;
            }
            self.address += 1;
        }
        self.last_outbound = at;
        let arrival = at + self.delay();
        (!self.is_lost(at)).then_some(arrival)
    }

    /// The same on a reliable stream, which repeats what is lost after one RTO, then two, four …
    pub fn stream_down(&mut self, at: u64) -> Option<u64> {
        self.repeat(at, Self::datagram_down)
    }

    pub fn stream_up(&mut self, at: u64) -> Option<u64> {
        self.repeat(at, Self::datagram_up)
    }

    /// When the first repetition to get through arrives; the last one is the first whose acknowledgement does too.
    fn repeat(&mut self, at: u64, send: fn(&mut Self, u64) -> Option<u64>) -> Option<u64> {
        let rto = self.repetition_timeout();
        let mut arrival = None;
        for count in 0..=MAX_REPETITIONS {
            let sent_at = at + rto * ((1 << count) - 1);
            let delivered = send(self, sent_at);
            arrival = arrival.or(delivered);
            if delivered.is_some() && !self.is_lost(sent_at) {
                break;
            }
        }
        arrival
    }

    /// Linux TCP: SRTT + 200 ms at least. QUIC (RFC 9002, 6.2): SRTT + 4 · RTTVAR + 25 ms, with RTTVAR taken as a
    /// quarter of the jitter both ways.
    fn repetition_timeout(&self) -> u64 {
        let round_trip = 2 * self.path.delay + self.path.jitter;
        match self.transport {
            Transport::Tcp => round_trip + 200_000,
            Transport::Udp => round_trip + 2 * self.path.jitter + 25_000,
        }
    }

    fn delay(&mut self) -> u64 {
        let spike = self.random.below(1_000) < self.path.spikes_per_mille;
        let late = if spike { 300_000 + self.random.below(500_000) } else { 0 };
        self.path.delay + self.random.below(self.path.jitter) + late
    }

    fn is_lost(&mut self, at: u64) -> bool {
        self.random.below(1_000) < self.path.loss_per_mille || self.in_outage(at)
    }

    /// One outage in each slot of five minutes, somewhere within it.
    fn in_outage(&self, at: u64) -> bool {
        if !self.path.outages {
            return false;
        }
        let slot = at / OUTAGE_SLOT;
        let choice = mix(self.outage_seed ^ mix(slot));
        let start = choice % (OUTAGE_SLOT - 2 * SECOND);
        let length = SECOND / 2 + (choice >> 32) % (3 * SECOND / 2);
        (start..start + length).contains(&(at % OUTAGE_SLOT))
    }

    fn binding_lives(&mut self, at: u64) -> bool {
        let Some(lifetime) = self.path.nat_binding else { return true };
        let lives = at.saturating_sub(self.last_outbound) <= lifetime;
        self.broken |= self.transport == Transport::Tcp && !lives;
        lives && !self.broken
    }
}
