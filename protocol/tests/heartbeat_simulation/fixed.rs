//! Socket.IO's default heartbeat: a ping 25 s after the last answer, 20 s for the next one, on a reliable stream.

use crate::{
    network::{Network, SECOND},
    outcome::Outcome,
};

const INTERVAL: u64 = 25 * SECOND;
const TIMEOUT: u64 = 20 * SECOND;

pub fn run(network: &mut Network, horizon: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut last_answer, mut last_heard) = (0, 0);
    network.connect(0);
    while last_answer + INTERVAL < horizon {
        let ping = last_answer + INTERVAL;
        let heard = network.stream_down(ping);
        let answer = heard.and_then(|heard| network.stream_up(heard));
        let server_deadline = ping + TIMEOUT;
        let client_deadline = last_heard + INTERVAL + TIMEOUT;
        match (heard, answer) {
            (Some(heard), Some(answer)) if heard < client_deadline && answer < server_deadline => {
                (last_heard, last_answer) = (heard, answer);
            }
            _ if server_deadline >= network.death => {
                outcome.noticed_after = Some(server_deadline - network.death);
                break;
            }
            _ => {
                outcome.false_alarms += 1;
                (last_heard, last_answer) = (server_deadline, server_deadline);
                network.connect(server_deadline);
            }
        }
    }
    outcome.pings = network.packets_down;
    outcome
}
