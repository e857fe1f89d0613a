//! A region's clients in Chromium: a process in the region's network, which takes orders and tells by lines of JSON.

use crate::{
    checker::Place,
    process::Process,
    site::Site,
    user::{Heard, Invitation, Message},
};
use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use skywave_client::{Channel, TransportKind};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

/// From the TypeScript package's directory, once that is built.
const SCRIPT: &str = "build/bench/fault_clients.js";
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Orders that wait for the pipe.
const ORDERS: usize = 1024;
/// What waits for one reader.
const UNHEARD: usize = 65_536;

/// The script that drives Chromium, if it has been built in `package`.
pub fn script(package: &Path) -> Option<PathBuf> {
    Some(package.join(SCRIPT)).filter(|script| script.exists())
}

/// Ends with all its tabs when it is dropped.
pub struct Browsers {
    process: Process,
    pipe: Option<Arc<Pipe>>,
    _tasks: JoinSet<()>,
}

/// One client.
pub struct Tab {
    client: usize,
    state: Arc<State>,
    pipe: Arc<Pipe>,
}

#[derive(Default)]
struct State {
    node: Mutex<Option<String>>,
}

struct Pipe {
    orders: mpsc::Sender<String>,
    /// Publishes that wait for their answer; `None` once there will be none.
    answers: Arc<Mutex<Option<Answers>>>,
    last_id: AtomicU64,
}

type Answers = HashMap<u64, oneshot::Sender<Result<Place, String>>>;

/// What a client's tab has told, and on which channel.
struct Client {
    state: Arc<State>,
    ears: HashMap<String, mpsc::Sender<Heard>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Ready,
    News { client: usize, all: Vec<News> },
    Published { id: u64, place: Place },
    Refused { id: u64, reason: String },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum News {
    Node(Option<String>),
    Publication { channel: String, data: Value, place: Place },
    Gap { channel: String, place: Place },
    Ended { channel: String, reason: String },
}

/// A tab, and what it hears on each of its channels.
pub type Opened = (Tab, Vec<(Channel, mpsc::Receiver<Heard>)>);

impl Browsers {
    /// Opens a tab for each that is invited. What goes wrong in them stands in `directory`, by this name.
    ///
    /// # Errors
    /// When not all of them are subscribed within two minutes.
    pub async fn open(
        name: &str,
        site: &Site,
        package: &Path,
        directory: &Path,
        invited: &[Invitation],
    ) -> anyhow::Result<(Self, Vec<Opened>)> {
        let mut command = Command::new("node");
        command.arg(SCRIPT).current_dir(package);
        // Profiles of a browser that was killed go with the logs.
        command.env("TMPDIR", directory);
        let log = directory.join(format!("{name}.log"));
        let mut process = Process::start(site, name, command, &log, true).await?;
        let stdin = process.stdin().context("no stdin")?;
        let mut lines = BufReader::new(process.stdout().context("no stdout")?).lines();
        let (orders, queue) = mpsc::channel(ORDERS);
        orders.send(setting(invited).to_string()).await?;
        let answers = Arc::new(Mutex::new(Some(Answers::new())));
        let pipe = Arc::new(Pipe { orders, answers: answers.clone(), last_id: AtomicU64::new(0) });
        let (clients, opened): (Vec<_>, Vec<_>) =
            invited.iter().enumerate().map(|(client, it)| tab(client, it, &pipe)).unzip();
        let mut tasks = JoinSet::new();
        tasks.spawn(write(stdin, queue));
        let ready = timeout(START_TIMEOUT, ready(&mut lines, &clients));
        ready.await.with_context(|| format!("{name}: no tabs")).flatten().with_context(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            format!("Chromium cannot be used: {}", log.lines().next().unwrap_or("it says nothing"))
        })?;
        tasks.spawn(listen(lines, clients, answers));
        Ok((Self { process, pipe: Some(pipe), _tasks: tasks }, opened))
    }

    /// Ends it, once nobody has a tab any more.
    ///
    /// # Errors
    /// When it does not end within 10 s.
    pub async fn close(mut self) -> anyhow::Result<()> {
        // Without orders to come, the script is at its end.
        drop(self.pipe.take());
        self.process.ended().await
    }
}

impl Tab {
    pub fn node(&self) -> Option<String> {
        self.state.node.lock().clone()
    }

    /// # Errors
    /// When the client says that it is refused for good, or the browser has ended.
    pub async fn publish(&self, channel: &Channel, data: Message) -> anyhow::Result<Place> {
        let id = self.pipe.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        const ENDED: &str = "the browser has ended";
        self.pipe.answers.lock().as_mut().context(ENDED)?.insert(id, answer);
        let order = json!({"id": id, "client": self.client, "channel": &**channel, "data": data});
        self.pipe.orders.send(order.to_string()).await.context(ENDED)?;
        answered.await.context(ENDED)?.map_err(|reason| anyhow!(reason))
    }
}

/// The first line.
fn setting(invited: &[Invitation]) -> Value {
    let hash = invited.first().map(|one| one.certificate_sha256).unwrap_or_default();
    let clients: Vec<Value> = invited
        .iter()
        .map(|Invitation { kind, urls, channels, .. }| {
            let transport = match kind.transport {
                TransportKind::WebTransport => "webtransport",
                TransportKind::WebSocket => "websocket",
            };
            let channels: Vec<&str> = channels.iter().map(|channel| &**channel).collect();
            json!({"urls": urls, "transport": transport, "channels": channels})
        })
        .collect();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"certificate_sha256": hash, "clients": clients})
}

fn tab(client: usize, invited: &Invitation, pipe: &Arc<Pipe>) -> (Client, Opened) {
    let state = Arc::new(State::default());
    let (mut ears, mut heard) = (HashMap::new(), Vec::new());
    for channel in &invited.channels {
        let (ear, hearing) = mpsc::channel(UNHEARD);
        ears.insert(channel.to_string(), ear);
        heard.push((channel.clone(), hearing));
    }
    let tab = Tab { client, state: state.clone(), pipe: pipe.clone() };
    (Client { state, ears }, (tab, heard))
}

/// Waits until all are subscribed.
async fn ready(lines: &mut Lines<BufReader<ChildStdout>>, clients: &[Client]) -> anyhow::Result<()> {
    loop {
        let line = lines.next_line().await?.context("it has ended")?;
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            Line::Ready => return Ok(()),
            Line::News { client, all } => tell(clients, client, all).await,
            Line::Published { .. } | Line::Refused { .. } => {}
        }
    }
}

/// Writes orders until nobody gives any.
async fn write(mut stdin: ChildStdin, mut orders: mpsc::Receiver<String>) {
    while let Some(mut order) = orders.recv().await {
        order.push('\n');
        // It has ended, which its reader tells.
        if stdin.write_all(order.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Hands on what is told, until the end.
async fn listen(
    mut lines: Lines<BufReader<ChildStdout>>,
    clients: Vec<Client>,
    answers: Arc<Mutex<Option<Answers>>>,
) {
    let answer = |id, answer| {
        let waiting = answers.lock().as_mut().and_then(|waiting| waiting.remove(&id));
        // Nobody waits any more when the bench has given up.
        waiting.map(|waiting| waiting.send(answer));
    };
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Line::News { client, all }) => tell(&clients, client, all).await,
            Ok(Line::Published { id, place }) => answer(id, Ok(place)),
            Ok(Line::Refused { id, reason }) => answer(id, Err(reason)),
            Ok(Line::Ready) => {}
            Err(error) => eprintln!("a browser said {line}: {error}"),
        }
    }
    // Who waits for an answer is told so.
    drop(answers.lock().take());
}

async fn tell(clients: &[Client], client: usize, all: Vec<News>) {
    let Some(Client { state, ears }) = clients.get(client) else { return };
    for news in all {
        let (channel, heard) = match news {
            News::Node(node) => {
                *state.node.lock() = node;
                continue;
            }
            News::Publication { channel, data, place } => {
                let wrong = format!("{data} is no message");
                let message = serde_json::from_value(data);
                (channel, message.map_or(Heard::Wrong(wrong), |message| Heard::Publication(message, place)))
            }
            News::Gap { channel, place } => (channel, Heard::Gap(place)),
            News::Ended { channel, reason } => (channel, Heard::Wrong(reason)),
        };
        if let Some(ear) = ears.get(&channel) {
            // Nobody reads any more when the bench has finished.
            let _ = ear.send(heard).await;
        }
    }
}
