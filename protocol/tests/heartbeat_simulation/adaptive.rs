//! The adaptive heartbeat on a simulated path: node, network and client in one event loop.

use crate::{
    network::{NEVER, Network, Transport},
    outcome::Outcome,
};
use skywave_protocol::heartbeat::{
    Action, Activity, Heartbeat, HeartbeatConfig, IdleMemory, PathKind, Schedule,
};
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
enum Packet {
    Ping { seq: u32, schedule: Schedule },
    Pong { seq: u32, address: u32 },
}

/// What the client knows, which is all from the node's pings.
struct Client {
    last_heard: u64,
    schedule: Schedule,
    last_seq: u32,
    nudged: bool,
}

struct Session<'a> {
    network: &'a mut Network,
    heartbeat: Heartbeat,
    client: Client,
    in_flight: Vec<(u64, Packet)>,
    wake: u64,
    /// Where the node heard the client last.
    address: u32,
    origin: Instant,
}

/// How one connection ended.
enum End {
    Horizon,
    Cut { at: u64, memory: IdleMemory },
}

/// Sessions one after the other, each cut followed by a new connection that goes on from what was learned.
pub fn run(activity: Activity, network: &mut Network, horizon: u64) -> Outcome {
    let origin = Instant::now();
    let (mut outcome, mut memory, mut start) = (Outcome::default(), None, 0);
    while start < horizon {
        let mut session = Session::connect(activity, network, memory, origin, start);
        match session.run(horizon) {
            End::Horizon => break,
            End::Cut { at, .. } if at >= network.death => {
                outcome.noticed_after = Some(at - network.death);
                break;
            }
            End::Cut { at, memory: learned } => {
                outcome.false_alarms += 1;
                memory = Some(learned);
                start = at;
            }
        }
    }
    outcome.pings = network.packets_down;
    outcome
}

impl<'a> Session<'a> {
    fn connect(
        activity: Activity,
        network: &'a mut Network,
        memory: Option<IdleMemory>,
        origin: Instant,
        at: u64,
    ) -> Self {
        let kind = match network.transport {
            Transport::Udp => PathKind::Udp,
            Transport::Tcp => PathKind::Tcp,
        };
        let mut heartbeat =
            Heartbeat::new(&HeartbeatConfig::default(), kind, activity, origin + Duration::from_micros(at));
        if let Some(memory) = memory {
            heartbeat.remember(memory);
        }
        network.connect(at);
        let client = Client { last_heard: at, schedule: heartbeat.schedule(), last_seq: 0, nudged: false };
        let address = network.address;
        Self { network, address, heartbeat, client, in_flight: Vec::with_capacity(16), wake: at, origin }
    }

    fn run(&mut self, horizon: u64) -> End {
        loop {
            let packet = self.next_packet();
            let arrival = packet.map_or(NEVER, |index| self.in_flight[index].0);
            let (nudge, deadline) = self.client_timers();
            let now = self.wake.min(arrival).min(nudge).min(deadline);
            if now >= horizon {
                return End::Horizon;
            }
            if now == deadline {
                return self.cut(now);
            }
            if let Some(index) = packet.filter(|_| arrival == now) {
                let (_, packet) = self.in_flight.swap_remove(index);
                self.arrive(packet, now);
            } else if now == nudge {
                self.client.nudged = true;
                self.send_pong(self.client.last_seq, now);
            }
            if self.poll(now) {
                return self.cut(now);
            }
        }
    }

    fn cut(&self, at: u64) -> End {
        End::Cut { at, memory: self.heartbeat.memory(self.instant(at)) }
    }

    fn next_packet(&self) -> Option<usize> {
        (0..self.in_flight.len()).min_by_key(|&index| self.in_flight[index].0)
    }

    /// When the client sends unasked, and when it takes the connection for dead.
    fn client_timers(&self) -> (u64, u64) {
        let Schedule { interval, timeout } = self.client.schedule;
        let nudge = self.client.last_heard + micros(interval + timeout / 2);
        let deadline = self.client.last_heard + micros(interval + timeout);
        let nudges = self.network.transport == Transport::Udp && !self.client.nudged;
        let alive = |at: u64| if at < self.network.death { at } else { NEVER };
        (if nudges { alive(nudge) } else { NEVER }, alive(deadline))
    }

    fn arrive(&mut self, packet: Packet, now: u64) {
        match packet {
            Packet::Ping { seq, schedule } => {
                self.client = Client { last_heard: now, schedule, last_seq: seq, nudged: false };
                self.send_pong(seq, now);
            }
            Packet::Pong { seq, address } => {
                let instant = self.instant(now);
                if address != self.address {
                    self.address = address;
                    self.heartbeat.path_changed(instant);
                }
                self.heartbeat.received(instant);
                self.heartbeat.pong(seq, instant);
            }
        }
    }

    fn send_pong(&mut self, seq: u32, now: u64) {
        let arrival = match self.network.transport {
            Transport::Udp => self.network.datagram_up(now),
            Transport::Tcp => self.network.stream_up(now),
        };
        let address = self.network.address;
        self.in_flight.extend(arrival.map(|at| (at, Packet::Pong { seq, address })));
    }

    /// Does what the heartbeat asks for; true when it gives the client up.
    fn poll(&mut self, now: u64) -> bool {
        loop {
            match self.heartbeat.poll(self.instant(now)) {
                Action::Dead => return true,
                Action::Wait(until) => {
                    self.wake = micros(until - self.origin);
                    return false;
                }
                Action::Ping { seq } => {
                    let packet = Packet::Ping { seq, schedule: self.heartbeat.schedule() };
                    let arrival = match self.network.transport {
                        Transport::Udp => self.network.datagram_down(now),
                        Transport::Tcp => self.network.stream_down(now),
                    };
                    self.in_flight.extend(arrival.map(|at| (at, packet)));
                }
            }
        }
    }

    fn instant(&self, at: u64) -> Instant {
        self.origin + Duration::from_micros(at)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}
