//! Machines that are made up: dates that go with tokio's clock and can be set, chance by a seed, and a network in memory.
//! In a runtime whose time is paused, whatever runs on them takes no time, and goes the same way for the same seed.

use parking_lot::Mutex;
use rand::{SeedableRng, rngs::StdRng};
use skywave_host::{Chance, Connecting, Host, Network, Stream, WallClock};
use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    time::Instant,
};

/// The date when the first machine is made: any, as long as it is always the same.
const BEGUN: Duration = Duration::from_secs(1_800_000_000);
/// What a connection holds that was not read yet, in bytes.
const CONNECTION_BYTES: usize = 256 << 10;

/// A machine.
pub struct Machine {
    pub host: Host,
    /// The date at a time of tokio's clock; from there on they go on together.
    date: Arc<Mutex<(Instant, SystemTime)>>,
}

impl Machine {
    /// One on a network. Machines with the same seed draw the same lots.
    pub fn new(seed: u64, network: &Cables) -> Self {
        let date = Arc::new(Mutex::new((Instant::now(), UNIX_EPOCH + BEGUN)));
        let told = date.clone();
        let clock = WallClock::new(move || {
            let (at, date) = *told.lock();
            date + at.elapsed()
        });
        let chance = Chance::new(StdRng::seed_from_u64(seed));
        Self { host: Host { clock, chance, network: Arc::new(network.clone()) }, date }
    }

    /// Has the wall clock jump to a date.
    pub fn set_date(&self, date: SystemTime) {
        *self.date.lock() = (Instant::now(), date);
    }
}

/// Where each server gets the connections that are made to it.
type Servers = HashMap<(String, u16), mpsc::UnboundedSender<DuplexStream>>;

/// A network in memory. It loses nothing, and nothing takes time on it.
#[derive(Clone, Debug, Default)]
pub struct Cables(Arc<Mutex<Servers>>);

impl Cables {
    /// The connections that are made to a server, until they are not received any more.
    pub fn serve(&self, host: &str, port: u16) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (sender, connections) = mpsc::unbounded_channel();
        self.0.lock().insert((host.to_owned(), port), sender);
        connections
    }
}

impl Network for Cables {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        let (here, there) = duplex(CONNECTION_BYTES);
        let server = self.0.lock().get(&(host.to_owned(), port)).cloned();
        let is_there = server.is_some_and(|server| server.send(there).is_ok());
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let outcome = if is_there { Ok(Box::new(here) as Box<dyn Stream>) } else { Err(refused) };
        Box::pin(std::future::ready(outcome))
    }
}
