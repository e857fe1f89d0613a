//! A node with one session, and who reads it.

use super::{CHANNELS, Start};
use crate::{
    content::named,
    peer::Peer,
    reader::{decode, open_lane},
    region::{Name, OTHER, Region, Seen, position},
};
use skywave::{
    broker::Chunk,
    hub::outbox::{LaneId, Outbox, Task},
};
use skywave_protocol::{Text, form};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// However much there is to be delivered, it is within so many rounds of reading and taking.
const MAX_ROUNDS: usize = 300;

/// A node with one session, and who reads it.
pub struct Node {
    pub outbox: Outbox,
    calls: Arc<Calls>,
    pub channels: [Subscribed; CHANNELS],
}

/// Whether those who wait for the outbox were called since they looked.
struct Calls {
    session: AtomicBool,
    transport: AtomicBool,
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.session.store(true, Ordering::Relaxed);
        self.transport.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
pub struct Subscribed {
    /// So much of the region's log was heard.
    pub heard: usize,
    /// Something happened that the node is yet to notice.
    pub is_uncertain: bool,
    pub lane: Option<LaneId>,
    /// So many came since it was subscribed to.
    pub present: u64,
    pub start: Seen,
    pub peer: Peer,
    pub reading: Option<Reading>,
    pub last: Option<Chunk>,
}

pub struct Reading {
    from: Seen,
    is_first: bool,
    /// How long the region's log was when it answered.
    answer: Option<(Chunk, usize)>,
}

impl Node {
    /// With an outbox of so many bytes, subscribed to nothing.
    pub fn new(max_bytes: usize) -> Self {
        let outbox = Outbox::new(&form::JSON, max_bytes);
        outbox.identify(Text::new("me").unwrap());
        let calls = Arc::new(Calls { session: AtomicBool::new(true), transport: AtomicBool::new(true) });
        Self { outbox, calls, channels: Default::default() }
    }

    pub fn hear(&mut self, channel: usize, region: &Region, count: usize) {
        for _ in 0..count {
            let subscribed = &mut self.channels[channel];
            let Some((name, size)) = region.log.get(subscribed.heard).copied() else { return };
            subscribed.heard += 1;
            if region.is_heard(name) {
                self.deliver(channel, name, size);
            }
        }
    }

    pub fn deliver(&mut self, channel: usize, name: Name, size: usize) {
        let Some(lane) = self.channels[channel].lane else { return };
        let before = self.outbox.bytes();
        self.outbox.publication(lane, &named(name, size));
        let is_kept = self.outbox.bytes() != before && !self.forget_dropped();
        // Of what comes while a queue is dropped, nothing is kept.
        if is_kept {
            self.channels[channel].peer.heard.insert(name);
        }
    }

    /// What was dropped is no longer there. Whether anything was.
    pub fn forget_dropped(&mut self) -> bool {
        let is_dropped = self.outbox.take_counts().queues_dropped > 0;
        if is_dropped {
            self.channels.iter_mut().for_each(|one| one.peer.heard.clear());
        }
        is_dropped
    }

    pub fn doubt(&mut self, channel: usize) {
        self.channels[channel].is_uncertain = false;
        if let Some(lane) = self.channels[channel].lane {
            self.outbox.doubt(lane);
        }
    }

    pub fn join(&mut self, channel: usize, region: &Region, from: &Start) {
        let subscribed = &mut self.channels[channel];
        if subscribed.lane.is_some() {
            return;
        }
        subscribed.lane = Some(open_lane(&self.outbox));
        let seen = match from {
            Start::Head => region.head(),
            Start::Beginning => Seen::new(),
            Start::Missing(count) => region.after(region.log.len().saturating_sub(*count)),
        };
        let coming = if region.is_coming { vec![region.heads[OTHER].origin()] } else { Vec::new() };
        let start = Chunk { start: position(&seen), coming, complete: true, ..Chunk::default() };
        let answer = matches!(from, Start::Head).then_some((start, 0));
        subscribed.present = 0;
        subscribed.start = seen.clone();
        subscribed.peer = Peer { seen: seen.clone(), ..Peer::default() };
        subscribed.reading = Some(Reading { from: seen, is_first: true, answer });
    }

    pub fn leave(&mut self, channel: usize) {
        let subscribed = &mut self.channels[channel];
        subscribed.reading = None;
        if let Some(lane) = subscribed.lane.take() {
            self.outbox.close_lane(lane);
            while self.outbox.take_closed_lane().is_some() {}
        }
    }

    /// Begins to read what is asked for. Whether anything was.
    pub fn poll(&mut self) -> bool {
        let was_called = self.calls.session.swap(false, Ordering::Relaxed);
        let waker = Waker::from(self.calls.clone());
        let mut begun = false;
        while let Poll::Ready(task) = self.outbox.poll_task(&Context::from_waker(&waker), |_| true) {
            assert!(begun || was_called, "nobody was called for {task:?}");
            let Task::Fill(lane) = task else { panic!("{task:?}") };
            let subscribed = self.channels.iter_mut().find(|one| one.lane == Some(lane)).unwrap();
            assert!(subscribed.reading.is_none(), "a lane is read once at a time");
            let from = subscribed.peer.seen.clone();
            assert_eq!(
                self.outbox.position(lane),
                Some(position(&from)),
                "the lane stands where its peer does"
            );
            subscribed.reading = Some(Reading { from, is_first: false, answer: None });
            begun = true;
        }
        // A session has its transport look behind it, in the same breath.
        self.calls.transport.store(true, Ordering::Relaxed);
        self.forget_dropped();
        begun
    }

    pub fn answer(&mut self, channel: usize, region: &Region, most: usize) {
        if let Some(reading) = &mut self.channels[channel].reading {
            reading.answer = Some((region.read(&reading.from, most), region.log.len()));
        }
    }

    pub fn fill(&mut self, channel: usize, region: &Region) {
        let subscribed = &mut self.channels[channel];
        let (Some(lane), Some(reading)) = (subscribed.lane, subscribed.reading.take()) else { return };
        let (chunk, length) =
            reading.answer.unwrap_or_else(|| (region.read(&reading.from, 256), region.log.len()));
        // Nothing is told as lost before the node heard all that the answer knows of.
        if chunk.loss().is_some() {
            let count = length.saturating_sub(subscribed.heard);
            self.hear(channel, region, count);
        }
        if reading.is_first {
            self.outbox.set_position(lane, chunk.start.clone());
        }
        crate::reader::fill(&self.outbox, lane, &chunk);
        self.channels[channel].last = Some(chunk);
        self.forget_dropped();
    }

    /// Takes frames as a transport does, lane by lane. How many there were.
    pub fn take(&mut self, most: usize) -> usize {
        let was_called = self.calls.transport.swap(false, Ordering::Relaxed);
        let waker = Waker::from(self.calls.clone());
        self.outbox.register(&Context::from_waker(&waker));
        let mut taken = 0;
        while let Some(lane) = self.outbox.ready_lane() {
            while taken < most {
                let Some(frame) = self.outbox.take(lane) else { break };
                let subscribed = self.channels.iter_mut().find(|one| one.lane == Some(lane)).unwrap();
                let is_joining = subscribed.reading.as_ref().is_some_and(|reading| reading.is_first);
                assert!(!is_joining, "nothing comes before `subscribed`");
                subscribed.peer.take(&decode(frame));
                taken += 1;
            }
            if taken == most {
                self.outbox.put_back(lane);
                // It comes back by itself.
                self.calls.transport.store(true, Ordering::Relaxed);
                break;
            }
        }
        assert!(taken == 0 || was_called, "nobody was called for what can be taken");
        taken
    }

    /// Everything that is under way ends.
    pub fn settle(&mut self, regions: &[Region; CHANNELS]) {
        for round in 0.. {
            assert!(round < MAX_ROUNDS, "it does not come to an end");
            for (channel, region) in regions.iter().enumerate() {
                self.hear(channel, region, region.log.len());
                if self.channels[channel].is_uncertain {
                    self.doubt(channel);
                }
                self.answer(channel, region, 256);
                self.fill(channel, region);
            }
            let taken = self.take(usize::MAX);
            // To look for what there is to read may set other frames free.
            if !self.poll() && taken + self.take(usize::MAX) == 0 {
                return;
            }
        }
    }
}
