//! A subscriber of a node, who knows by what it is told who is there.

use skywave::{
    broker::Chunk,
    hub::{Hub, Membership, outbox::Outbox},
    presence::Presence,
};
use skywave_protocol::{Channel, Encoding, ServerFrame, form};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::time::Instant;

pub struct Ear {
    outbox: Arc<Outbox>,
    membership: Membership,
    pub known: BTreeSet<String>,
    /// A list would have to be asked for: the count is another one.
    pub is_incomplete: bool,
    pub trace: VecDeque<String>,
    begun: Instant,
}

impl Ear {
    /// `None` while nobody can tell who is there.
    pub async fn of(
        hub: &Arc<Hub>,
        presence: &Arc<Presence>,
        channel: &Channel,
        begun: Instant,
    ) -> Option<Self> {
        let outbox = Arc::new(Outbox::new(&form::JSON_TEXT, 1 << 20));
        let membership = hub.join(channel.clone(), &outbox, true);
        let listed = presence.members(channel).await.ok()?;
        let known: BTreeSet<_> = listed.members.iter().map(|member| member.session.to_string()).collect();
        outbox.fill(membership.lane(), &Chunk { complete: true, ..Chunk::default() });
        let mut ear = Self { outbox, membership, known, is_incomplete: false, trace: VecDeque::new(), begun };
        ear.note(format!("list {:?}", ear.known));
        Some(ear)
    }

    fn note(&mut self, what: String) {
        self.trace.push_back(format!("{:?} {what}", self.begun.elapsed()));
        if self.trace.len() > 60 {
            self.trace.pop_front();
        }
    }

    /// Takes what it is told; who of `movers` is told to have left.
    pub fn hear(&mut self, movers: &BTreeSet<String>) -> Vec<String> {
        let mut lost = Vec::new();
        while let Some(lane) = self.outbox.ready_lane() {
            assert_eq!(lane, self.membership.lane());
            while let Some(frame) = self.outbox.take(lane) {
                let frame = Encoding::Json.decode_server(&frame).unwrap();
                let ServerFrame::PresenceChanged(change) = frame else { panic!("{frame:?}") };
                let name = |member: &skywave_protocol::frame::Member| member.session.to_string();
                let (joined, left): (Vec<_>, Vec<_>) =
                    (change.joined.iter().map(name).collect(), change.left.iter().map(name).collect());
                self.note(format!("joined {joined:?} left {left:?} count {}", change.count));
                for one in left {
                    if self.known.remove(&one) && movers.contains(&one) {
                        lost.push(one);
                    }
                }
                self.known.extend(joined);
                self.is_incomplete = change.count != self.known.len() as u64;
            }
        }
        lost
    }
}
