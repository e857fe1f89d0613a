//! One transport of a client, and whether what comes on it is what the protocol promises.

use crate::{
    asked::{Asked, Message, Wanted},
    roster::Roster,
    truth::Truth,
};
use skywave_client::{
    CertificateCheck, Encoding,
    transport::{Connection, Control, DialOptions, Dialer, Lane, Receiver, TransportKind, Via},
};
use skywave_protocol::{
    Admission, Channel, ClientFrame, Payload, Point, Position, RequestId, ServerFrame, Text,
    codec::EncodedFrame,
    frame::{
        Connect, Connected, Gap, Pong, PresenceChanged, Publication, Publish, SubscribeOptions, Subscribed,
    },
};
use skywave_testing::soon;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// How much of what passed is shown where something fails.
const KEPT_LINES: usize = 60;
const MAX_LINE: usize = 800;

/// A subscription that was answered.
pub struct Room {
    number: u64,
    pub position: Position,
    pub roster: Option<Roster>,
}

pub struct Peer {
    name: String,
    truth: Arc<Truth>,
    pub encoding: Encoding,
    outgoing: mpsc::UnboundedSender<(EncodedFrame, Lane)>,
    receiver: Receiver,
    control: Control,
    pub connected: Option<Connected>,
    last_id: u32,
    pub asked: HashMap<RequestId, Asked>,
    /// Channels of `connect` that are not answered yet.
    pub carried: HashMap<Channel, Option<Position>>,
    pub rooms: HashMap<Channel, Room>,
    /// Of each channel's last subscription.
    last_numbers: HashMap<Channel, u64>,
    /// Whose frames a channel's stream carries.
    streams: HashMap<u64, (Channel, u64)>,
    /// What came of a subscription before its answer.
    early: HashMap<u64, VecDeque<ServerFrame>>,
    is_over: bool,
    log: VecDeque<String>,
}

impl Peer {
    pub async fn open(
        name: String,
        url: &str,
        kind: TransportKind,
        options: DialOptions,
        truth: Arc<Truth>,
    ) -> Self {
        let options = DialOptions { certificate: CertificateCheck::Insecure, ..options };
        let dialing = async { Dialer::new(options).unwrap().dial(&url.parse().unwrap(), kind).await };
        let Connection { mut sender, receiver, control, encoding, kind } = soon(dialing).await.unwrap();
        let (outgoing, mut queue) = mpsc::unbounded_channel::<(EncodedFrame, Lane)>();
        tokio::spawn(async move {
            while let Some((frame, lane)) = queue.recv().await {
                if sender.send(&frame, lane).await.is_err() {
                    return;
                }
            }
            sender.close(0, "").await;
        });
        Self {
            name: format!("{name} on {kind} in {encoding:?}"),
            truth,
            encoding,
            outgoing,
            receiver,
            control,
            connected: None,
            last_id: 0,
            asked: HashMap::new(),
            carried: HashMap::new(),
            rooms: HashMap::new(),
            last_numbers: HashMap::new(),
            streams: HashMap::new(),
            early: HashMap::new(),
            is_over: false,
            log: VecDeque::new(),
        }
    }

    // ---- asking ----

    pub fn next_id(&mut self) -> RequestId {
        self.last_id += 1;
        RequestId::new(self.last_id).unwrap()
    }

    pub fn send(&mut self, frame: &ClientFrame) {
        self.note(|| format!("> {frame:?}"));
        let may_be_lost = matches!(frame, ClientFrame::Emit(_) | ClientFrame::Pong(_));
        let lane = if may_be_lost { Lane::Datagram } else { Lane::Reliable };
        // Whether it is over shows when it is read.
        let _ = self.outgoing.send((self.encoding.encode(frame).unwrap(), lane));
    }

    pub fn ask(&mut self, asked: Asked, frame: impl FnOnce(RequestId) -> ClientFrame) {
        let id = self.next_id();
        self.ask_as(id, asked, &frame(id));
    }

    pub fn ask_as(&mut self, id: RequestId, asked: Asked, frame: &ClientFrame) {
        self.asked.insert(id, asked);
        self.send(frame);
    }

    pub fn connect(
        &mut self,
        (token, resume): (String, Option<Arc<str>>),
        attempt: u64,
        subscriptions: BTreeMap<Channel, SubscribeOptions>,
    ) {
        self.carried = subscriptions
            .iter()
            .map(|(channel, options)| (channel.clone(), options.position.clone()))
            .collect();
        let id = self.next_id();
        let (token, attempt) = (Some(token.into()), Some(attempt));
        let connect = Connect { id, token, resume, attempt, subscriptions, client: None, network: None };
        self.send(&ClientFrame::Connect(connect));
    }

    pub fn publish(&mut self, message: &Message) {
        let Message { channel, number, data } = message.clone();
        let key = Text::new(number.to_string()).ok();
        self.ask(Asked::Publish(message.clone()), |id| {
            ClientFrame::Publish(Publish { id, channel, key, data })
        });
    }

    /// The path breaks.
    pub fn cut(&self) {
        self.control.cut();
    }

    // ---- hearing ----

    /// Takes what comes until then; whether the transport still stands.
    pub async fn hear(&mut self, until: Instant) -> bool {
        while !self.is_over {
            let received = tokio::select! {
                biased;
                () = sleep_until(until) => return true,
                received = self.receiver.receive() => received,
            };
            match received {
                Ok(received) => {
                    let frame = self.encoding.decode_server(&received.frame).unwrap();
                    self.note(|| format!("{:?} {frame:?}", received.via));
                    self.frame(frame, received.via);
                }
                Err(closed) => {
                    self.truth.count(format!("closed: {closed}"));
                    self.is_over = true;
                }
            }
        }
        false
    }

    /// The most that a frame may have.
    pub fn frame_bytes(&self) -> usize {
        self.connected.as_ref().unwrap().limits.frame_bytes as usize
    }

    /// Whether all that it asked for is answered.
    pub fn is_answered(&self) -> bool {
        self.connected.is_some() && self.asked.is_empty() && self.carried.is_empty()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        self.log.push_back(line().chars().take(MAX_LINE).collect());
        if self.log.len() > KEPT_LINES {
            self.log.pop_front();
        }
    }

    fn frame(&mut self, frame: ServerFrame, via: Via) {
        match frame {
            ServerFrame::Connected(connected) => assert!(self.connected.replace(connected).is_none()),
            ServerFrame::Stream(stream) => {
                let Via::Stream(id) = via else { panic!("a stream's name on {via:?}") };
                self.streams.insert(id, (stream.channel, stream.subscription));
            }
            ServerFrame::Publication(Publication { ref channel, .. })
            | ServerFrame::Gap(Gap { ref channel, .. })
            | ServerFrame::PresenceChanged(PresenceChanged { ref channel, .. }) => {
                let channel = channel.clone();
                self.of_channel(&channel, frame, via);
            }
            ServerFrame::Subscribed(subscribed) => self.subscribed(subscribed),
            ServerFrame::Unsubscribed(unsubscribed) => {
                let channel = unsubscribed.channel;
                match unsubscribed.id {
                    Some(id) => match self.asked.remove(&id) {
                        Some(Asked::Unsubscribe(asked)) => assert_eq!(asked, channel),
                        other => panic!("unsubscribed from {channel} for {other:?}"),
                    },
                    // There were too many of them in `connect`.
                    None => assert!(self.carried.remove(&channel).is_some(), "{channel} ended"),
                }
                self.rooms.remove(&channel);
            }
            ServerFrame::Published(published) => match self.asked.remove(&published.id) {
                Some(Asked::Publish(Message { channel, number, .. })) => {
                    assert_eq!(published.channel, channel);
                    self.truth.stands(number, &channel, &published.epoch, published.offset);
                }
                other => panic!("published for {other:?}"),
            },
            ServerFrame::History(history) => self.answered(history.id, "history"),
            ServerFrame::Presence(presence) => self.answered(presence.id, "presence"),
            ServerFrame::Refreshed(refreshed) => self.answered(refreshed.id, "refresh"),
            ServerFrame::Error(error) => {
                let asked = error.id.and_then(|id| self.asked.remove(&id));
                let what = match &asked {
                    Some(asked) => asked.name(),
                    // Of an event there is no telling which one it was.
                    None if error.id.is_none() => "event",
                    None => panic!("nobody asked for {error:?}"),
                };
                self.truth.count(format!("{what}: {}", error.reason));
            }
            ServerFrame::Ping(ping) => self.send(&ClientFrame::Pong(Pong { seq: ping.seq })),
            ServerFrame::Disconnect(disconnect) => {
                self.truth.count(format!("disconnect: {}", disconnect.reason));
                self.is_over = true;
            }
            ServerFrame::Event(_) | ServerFrame::Drain(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }

    fn answered(&mut self, id: RequestId, what: &str) {
        let asked = self.asked.remove(&id);
        assert_eq!(asked.as_ref().map(Asked::name), Some(what));
    }

    fn of_channel(&mut self, channel: &Channel, frame: ServerFrame, via: Via) {
        let present = self.rooms.get(channel).map(|room| room.number);
        let Via::Stream(id) = via else {
            assert!(!matches!(via, Via::Datagram), "a datagram of {channel}");
            assert!(present.is_some(), "a frame of {channel}, which is not subscribed to");
            return self.take(frame);
        };
        let (of, number) = self.streams.get(&id).expect("a stream that does not say whose it is");
        assert_eq!(of, channel);
        if present == Some(*number) {
            self.take(frame);
        } else if self.last_numbers.get(channel).is_none_or(|last| number > last) {
            self.early.entry(*number).or_default().push_back(frame);
        }
    }

    fn subscribed(&mut self, subscribed: Subscribed) {
        let Subscribed { id, channel, subscription, position, recovered, presence, .. } = subscribed;
        let (wanted, head) = match id {
            Some(id) => match self.asked.remove(&id) {
                Some(Asked::Subscribe(wanted)) if wanted.channel == channel => {
                    let is_at_head = wanted.position.is_none() && !wanted.has_history;
                    (wanted.position, wanted.head.filter(|_| is_at_head))
                }
                other => panic!("subscribed to {channel} for {other:?}"),
            },
            None => (self.carried.remove(&channel).expect("not asked for in `connect`"), None),
        };
        // There is room for all history.
        assert_eq!(recovered, wanted.as_ref().map(|_| true), "{channel} from {wanted:?}");
        for (origin, point) in wanted.iter().flat_map(Position::iter) {
            assert_eq!(position.get(origin), Some(point), "{channel} from {wanted:?}");
        }
        if let Some(head) = head {
            let here = position.iter().next().map(|(_, point)| point.offset);
            assert!(here >= Some(head.offset), "{channel}: {here:?} is before {head:?}");
        }
        let number = subscription.unwrap();
        let last = self.last_numbers.insert(channel.clone(), number);
        assert!(last < Some(number), "{channel}: {number} after {last:?}");
        let room = Room { number, position, roster: presence.map(Roster::new) };
        assert!(self.rooms.insert(channel, room).is_none(), "subscribed twice");
        for frame in self.early.remove(&number).unwrap_or_default() {
            self.take(frame);
        }
    }

    /// Takes a frame of a subscription: each publication follows the one before.
    fn take(&mut self, frame: ServerFrame) {
        match frame {
            ServerFrame::Publication(Publication { channel, origin, epoch, offset, data, .. }) => {
                let position = &mut self.rooms.get_mut(&channel).unwrap().position;
                let admission = position.admit(&origin, &epoch, offset);
                assert_eq!(admission, Admission::Next, "{channel}: {epoch}/{offset} after {position:?}");
                position.advance(&origin, &epoch, offset);
                self.truth.stands(number_of(&data), &channel, &epoch, offset);
                self.truth.count("received");
            }
            ServerFrame::PresenceChanged(change) => {
                let room = self.rooms.get_mut(&change.channel).unwrap();
                let roster = room.roster.as_mut().expect("nobody asked who comes and goes");
                roster.change(&change);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The channels of which something is still to come, with what it has and what there is.
    pub fn behind(&self) -> Vec<(Channel, Option<Point>, Point)> {
        let behind = self.rooms.iter().filter_map(|(channel, room)| {
            let head = self.truth.head(channel)?;
            let here = room.position.iter().next().map(|(_, point)| point.clone());
            let is_there = here.as_ref().is_some_and(|here| here.offset >= head.offset);
            (!is_there).then(|| (channel.clone(), here, head))
        });
        behind.collect()
    }

    /// What is still wrong with what it knows of who is there, now that all have settled.
    pub fn misknown(&self) -> Option<String> {
        self.rooms.iter().find_map(|(channel, room)| {
            let roster = room.roster.as_ref().filter(|roster| !roster.is_incomplete)?;
            let (known, right) = (&roster.members, self.truth.members(channel));
            (*known != right).then(|| format!("{channel}: {known:?}, and it is {right:?}"))
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.name);
            self.log.iter().for_each(|line| println!("  {line}"));
        }
    }
}

fn number_of(data: &Payload) -> u64 {
    let Payload::Json(json) = data else { panic!("{data:?}") };
    let (number, _): (u64, String) = serde_json::from_str(json.get()).unwrap();
    number
}

impl Wanted {
    pub fn new(channel: Channel, truth: &Truth) -> Self {
        let head = truth.head(&channel);
        Self { channel, position: None, has_history: false, head }
    }
}
