//! From a publication to the outboxes of all who are subscribed, and out of these.

use crate::{
    Case, Rounds, each,
    publications::{channel, payload, publication, short},
};
use skywave_channels::{
    broker::{Broker, Chunk, Delivery, Publish, memory::MemoryBroker},
    hub::{Hub, Membership, outbox::Outbox},
    namespace::NamespaceConfig,
};
use skywave_host::Host;
use skywave_protocol::{Position, form};
use std::{collections::BTreeMap, hint::black_box, iter, sync::Arc};

const SUBSCRIBERS: usize = 1000;
const BURST: u64 = 100;
const OUTBOX_BYTES: usize = 1024 * 1024;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("fan a publication out to 1,000 outboxes, and take it", fan_out),
        Case::new("take 100 publications from an outbox, by lanes", |rounds| bursts(rounds, by_lanes)),
        Case::new("take 100 publications from an outbox, as one pipe", |rounds| bursts(rounds, as_one_pipe)),
        Case::new("publish through the memory broker", publish),
    ]
}

type Subscriber = (Arc<Outbox>, Membership);

/// A hub with one channel and subscribers that stand at its beginning.
fn audience(size: usize) -> (Arc<Hub>, Vec<Subscriber>) {
    let hub = Arc::new(Hub::default());
    let subscribe = || {
        let outbox = Arc::new(Outbox::new(&form::MESSAGE_PACK, OUTBOX_BYTES));
        let membership = hub.join(channel(), &outbox, false);
        outbox.set_position(membership.lane(), Position::new());
        outbox.fill(membership.lane(), &Chunk { complete: true, ..Chunk::default() });
        (outbox, membership)
    };
    let subscribers = iter::repeat_with(subscribe).take(size).collect();
    (hub, subscribers)
}

fn by_lanes(outbox: &Outbox) -> usize {
    let mut bytes = 0;
    while let Some(lane) = outbox.ready_lane() {
        while let Some(frame) = outbox.take(lane) {
            bytes += frame.len();
        }
    }
    bytes
}

fn as_one_pipe(outbox: &Outbox) -> usize {
    iter::from_fn(|| outbox.next()).map(|frame| frame.len()).sum()
}

fn fan_out(rounds: usize) -> Rounds {
    let (hub, subscribers) = audience(SUBSCRIBERS);
    each((1..=rounds as u64).map(publication), move |publication| {
        hub.publication(&publication);
        black_box(subscribers.iter().map(|(outbox, _)| by_lanes(outbox)).sum::<usize>());
    })
}

/// Fills an outbox and takes all of it, again and again.
fn bursts(rounds: usize, take: fn(&Outbox) -> usize) -> Rounds {
    let (hub, subscribers) = audience(1);
    let bursts =
        (0..rounds as u64).map(|round| (1..=BURST).map(move |offset| publication(round * BURST + offset)));
    let bursts = bursts.map(Iterator::collect::<Vec<_>>);
    each(bursts, move |burst| {
        for publication in burst {
            hub.publication(&publication);
        }
        black_box(subscribers.iter().map(|(outbox, _)| take(outbox)).sum::<usize>());
    })
}

fn publish(rounds: usize) -> Rounds {
    let chat = NamespaceConfig { history: 100, ..NamespaceConfig::default() };
    let namespaces = BTreeMap::from([("chat".to_owned(), chat)]);
    let broker =
        MemoryBroker::new(&Host::machine(), short("eu"), namespaces.into(), Arc::new(Hub::default()));
    let publishes =
        iter::repeat_with(|| Publish { channel: channel(), data: payload(), key: None, user: None });
    each(publishes.take(rounds), move |publish| drop(black_box(broker.publish(publish))))
}
