//! A TCP relay before a node, whose connections can be cut, and on whose port UDP leads nowhere.
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

pub struct Relay {
    address: SocketAddr,
    passage: Arc<Mutex<Passage>>,
    task: JoinHandle<()>,
    /// Takes what comes, and says nothing.
    _silence: Option<UdpSocket>,
}

#[derive(Default)]
struct Passage {
    closed: bool,
    next: u64,
    open: HashMap<u64, AbortHandle>,
}

impl Relay {
    /// Relays TCP to `node`. Nothing listens on the same port's UDP.
    pub async fn start(node: SocketAddr) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, node)
    }

    /// Relays TCP to `node`. UDP on the same port is swallowed, as by a firewall.
    pub async fn with_silent_udp(node: SocketAddr) -> Self {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // Somebody else may have the same port's UDP.
            if let Ok(silence) = UdpSocket::bind(listener.local_addr().unwrap()) {
                return Self::on(listener, Some(silence), node);
            }
        }
    }

    fn on(listener: TcpListener, silence: Option<UdpSocket>, node: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let passage = Arc::<Mutex<Passage>>::default();
        let task = tokio::spawn(relay(listener, node, passage.clone()));
        Self { address, passage, task, _silence: silence }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Cuts all connections, and those to come.
    pub fn close(&self) {
        let mut passage = self.passage.lock().unwrap();
        passage.closed = true;
        passage.open.drain().for_each(|(_, connection)| connection.abort());
    }

    pub fn open(&self) {
        self.passage.lock().unwrap().closed = false;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.close();
    }
}

async fn relay(listener: TcpListener, node: SocketAddr, passage: Arc<Mutex<Passage>>) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut locked = passage.lock().unwrap();
        if locked.closed {
            continue;
        }
        locked.next += 1;
        let (number, done) = (locked.next, passage.clone());
        let connection = tokio::spawn(async move {
            if let Ok(mut far) = TcpStream::connect(node).await {
                // A connection that breaks is over, however it broke.
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
            done.lock().unwrap().open.remove(&number);
        });
        locked.open.insert(number, connection.abort_handle());
    }
}
