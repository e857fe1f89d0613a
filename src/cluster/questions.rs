//! What an operator asks of all nodes of the region: each answers for itself, within a bounded time.

use super::{Cluster, inbox::Inbox, keys::ClusterKeys as _};
use crate::{
    auth::pattern::Pattern,
    host::Chance,
    redis::Request,
    registry::{Attached, Registry},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skywave_protocol::{Channel, CloseCode, frame::SessionId};
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};

/// How long the other nodes have to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most sessions or channels in one answer.
pub(crate) const MAX_LISTED: usize = 1_000;
/// The most questions of others that a node answers at a time, and as many orders …
const MAX_ANSWERING: usize = 16;
/// … and the most of each that are being answered or wait for it. Further ones stay without an answer.
const MAX_ASKED: usize = 4_096;
/// The most answers to a question that wait to be read.
const MAX_ANSWERS: usize = 1_024;

/// Another node asks.
const ASK: &str = "ask";
/// It answers what this one asked.
const ANSWER: &str = "answer";

/// Has the node hear what others ask and answer.
pub fn listen(inbox: &mut Inbox) {
    inbox.word(ASK, asked);
    inbox.word(ANSWER, |cluster, text| cluster.questions.answered(text));
}

/// A question to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Which sessions are connected.
    Sessions {
        who: Who,
        /// Only those whose id comes after this one.
        after: Option<String>,
        limit: usize,
    },
    /// Which channels have subscribers.
    Channels { pattern: Option<String>, prefix: String },
    /// To end sessions with a close code.
    Disconnect { who: Who, code: u16 },
}

impl Question {
    /// Whether it is carried out, whoever waits for the answer.
    fn is_order(&self) -> bool {
        matches!(self, Self::Disconnect { .. })
    }
}

/// Which sessions are meant: those that fit all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    pub user: Option<String>,
    pub session: Option<String>,
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Sessions {
        /// How many there are, listed or not.
        count: usize,
        /// By id.
        listed: Vec<Listed>,
    },
    Channels {
        count: usize,
        /// With their subscribers, those with the most first.
        listed: Vec<(Channel, usize)>,
    },
    Disconnected(usize),
}

/// A session that is connected to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    pub node: Arc<str>,
    pub transport: Arc<str>,
    pub address: SocketAddr,
    pub connected_at_ms: u64,
}

/// What the nodes answered.
#[derive(Debug)]
pub struct Gathered {
    pub answers: Vec<Answer>,
    /// The live nodes that did not answer in time.
    pub silent: Vec<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct Asked {
    number: u64,
    from: Arc<str>,
    question: Question,
}

#[derive(Serialize, Deserialize)]
struct Answered {
    number: u64,
    node: Arc<str>,
    answer: Answer,
}

/// A node and its answer.
type Reply = (Arc<str>, Answer);

/// The questions that this node has asked and that it answers. Orders wait for no questions: those take long where
/// there is much to list.
pub struct Questions {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Reply>>>,
    asked: Queue,
    ordered: Queue,
}

impl Questions {
    pub(crate) fn new(chance: &Chance) -> Self {
        Self {
            next: AtomicU64::new(chance.any()),
            waiting: Mutex::default(),
            asked: Queue::default(),
            ordered: Queue::default(),
        }
    }
}

/// Where what others ask waits for its turn.
struct Queue {
    places: Arc<Semaphore>,
    turns: Semaphore,
}

impl Default for Queue {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_ASKED)), turns: Semaphore::new(MAX_ANSWERING) }
    }
}

impl Questions {
    fn queue(&self, question: &Question) -> &Queue {
        if question.is_order() { &self.ordered } else { &self.asked }
    }

    /// Takes what a node answered, as it stands in a message.
    fn answered(&self, text: &str) -> Option<()> {
        let Answered { number, node, answer } = serde_json::from_str(text).ok()?;
        if let Some(waiting) = self.waiting.lock().get(&number)
            && waiting.try_send((node, answer)).is_err()
        {
            tracing::debug!("an answer comes too late, or there are too many");
        }
        Some(())
    }
}

/// A question that is waited for; dropped, its answers are passed over.
struct Waiting<'a> {
    questions: &'a Questions,
    number: u64,
    answers: mpsc::Receiver<Reply>,
}

impl<'a> Waiting<'a> {
    fn new(questions: &'a Questions) -> Self {
        let number = questions.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::channel(MAX_ANSWERS);
        questions.waiting.lock().insert(number, sender);
        Self { questions, number, answers }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.questions.waiting.lock().remove(&self.number);
    }
}

/// Asks all nodes of the region, this one among them.
pub async fn ask(cluster: &Arc<Cluster>, question: Question) -> Gathered {
    let mut waiting = Waiting::new(&cluster.questions);
    let mut silent: BTreeSet<_> = cluster.directory.peers().iter().map(|peer| peer.id.clone()).collect();
    let is_asked = !silent.is_empty() && send(cluster, waiting.number, &question);
    let deadline = Instant::now() + PATIENCE;
    let mut answers = vec![answer(cluster.clone(), question).await];
    let mut heard = BTreeSet::from([cluster.id.clone()]);
    while is_asked && !silent.is_empty() {
        let Ok(Some((from, answer))) = timeout_at(deadline, waiting.answers.recv()).await else { break };
        silent.remove(&from);
        if heard.insert(from) {
            answers.push(answer);
        }
    }
    Gathered { answers, silent: silent.into_iter().collect() }
}

/// Puts the question to the others; whether that was possible.
fn send(cluster: &Cluster, number: u64, question: &Question) -> bool {
    let Some(redis) = cluster.sharing.redis() else { return false };
    let asked = Asked { number, from: cluster.id.clone(), question: question.clone() };
    say(redis, &redis.keys.inbox_of_all(), ASK, &asked)
}

fn say(redis: &crate::redis::Redis, channel: &str, word: &str, message: &impl Serialize) -> bool {
    let sent = serde_json::to_string(message).map_err(|error| error.to_string()).and_then(|text| {
        let publish = Request::command(["PUBLISH", channel, &format!("{word} {text}")]);
        redis.commands.send(publish).map_err(|error| error.to_string())
    });
    sent.inspect_err(|error| tracing::debug!(error, word, "nothing can be said to other nodes")).is_ok()
}

/// Takes a question of another node, as it stands in a message. It is answered in a task of its own when its turn
/// comes, unless the other has given up waiting by then. An order is carried out all the same.
fn asked(cluster: &Arc<Cluster>, text: &str) -> Option<()> {
    let Asked { number, from, question } = serde_json::from_str(text).ok()?;
    if from == cluster.id {
        return Some(());
    }
    let Ok(place) = cluster.questions.queue(&question).places.clone().try_acquire_owned() else {
        tracing::warn!("too many questions of other nodes wait for their answers");
        return Some(());
    };
    let (cluster, deadline) = (cluster.clone(), Instant::now() + PATIENCE);
    tokio::spawn(async move {
        let Ok(_turn) = cluster.questions.queue(&question).turns.acquire().await else { return };
        if !question.is_order() && Instant::now() > deadline {
            return;
        }
        let answer = answer(cluster.clone(), question).await;
        if let Some(redis) = cluster.sharing.redis() {
            let answered = Answered { number, node: cluster.id.clone(), answer };
            say(redis, &redis.keys.inbox(&from), ANSWER, &answered);
        }
        drop(place);
    });
    Some(())
}

/// What this node answers for itself.
async fn answer(cluster: Arc<Cluster>, question: Question) -> Answer {
    match question {
        Question::Sessions { who, after, limit } => {
            sessions(&cluster, &who, after.as_deref(), limit.min(MAX_LISTED))
        }
        Question::Disconnect { who, code } => Answer::Disconnected(disconnect(&cluster, &who, code)),
        Question::Channels { pattern, prefix } => {
            // A node may have a million channels: their sorting must not hold up sessions.
            let listing =
                tokio::task::spawn_blocking(move || channels(&cluster, pattern.as_deref(), &prefix));
            listing.await.unwrap_or(Answer::Channels { count: 0, listed: Vec::new() })
        }
    }
}

fn matching(registry: &Registry, who: &Who) -> Vec<(SessionId, Attached)> {
    let Who { user, session } = who;
    let mut matching = Vec::new();
    registry.each(|id, attached| {
        let is_user = user.as_deref().is_none_or(|user| attached.user.as_deref() == Some(user));
        if is_user && session.as_deref().is_none_or(|session| **id == *session) {
            matching.push((id.clone(), attached.clone()));
        }
    });
    matching
}

fn sessions(cluster: &Cluster, who: &Who, after: Option<&str>, limit: usize) -> Answer {
    let mut matching = matching(&cluster.sessions, who);
    let count = matching.len();
    if let Some(after) = after {
        matching.retain(|(id, _)| **id > *after);
    }
    matching.sort_unstable_by(|(id, _), (other, _)| id.cmp(other));
    matching.truncate(limit);
    let listed = |(session, attached): (SessionId, Attached)| Listed {
        session,
        user: attached.user,
        node: cluster.id.clone(),
        transport: attached.transport.into(),
        address: attached.address,
        connected_at_ms: attached.connected_at_ms,
    };
    Answer::Sessions { count, listed: matching.into_iter().map(listed).collect() }
}

fn disconnect(cluster: &Cluster, who: &Who, code: u16) -> usize {
    let Some(code) = CloseCode::from_code(code) else { return 0 };
    if *who == Who::default() {
        return 0;
    }
    let matching = matching(&cluster.sessions, who);
    for (session, attached) in &matching {
        tracing::info!(%session, code = code.code(), "disconnected by the API");
        attached.outbox.close(code);
    }
    matching.len()
}

fn channels(cluster: &Cluster, pattern: Option<&str>, prefix: &str) -> Answer {
    let pattern = pattern.map(Pattern::new);
    if matches!(pattern, Some(None)) {
        return Answer::Channels { count: 0, listed: Vec::new() };
    }
    let pattern = pattern.flatten();
    let mut listed = cluster.hub.channels();
    listed.retain(|(channel, _)| {
        channel.starts_with(prefix) && pattern.as_ref().is_none_or(|pattern| pattern.matches(channel))
    });
    let count = listed.len();
    sort_by_subscribers(&mut listed);
    listed.truncate(MAX_LISTED);
    Answer::Channels { count, listed }
}

/// Those with the most subscribers first.
pub(crate) fn sort_by_subscribers(channels: &mut [(Channel, usize)]) {
    channels.sort_unstable_by(|(name, subscribers), (other_name, other)| {
        other.cmp(subscribers).then_with(|| name.cmp(other_name))
    });
}
