//! The adaptive heartbeat against a fixed one, on simulated paths in virtual time.
mod adaptive;
mod fixed;
mod network;
mod outcome;
mod table;

use network::{PATHS, Transport};
use outcome::{Policy, Summary};
#[test]
fn show() {
    let t = std::time::Instant::now();
    for transport in [Transport::Udp, Transport::Tcp] {
        for path in PATHS {
            for policy in Policy::ALL {
                let s = Summary::measure(policy, path, transport);
                println!(
                    "{transport:?} {:20} {:18} {:4}/h p50 {:6.2} p99 {:6.2} fa {}",
                    path.name,
                    policy.name(),
                    s.pings_per_hour(),
                    s.noticed_p50 as f64 / 1e6,
                    s.noticed_p99 as f64 / 1e6,
                    s.false_alarms
                );
            }
        }
    }
    println!("{:?}", t.elapsed());
}
