//! The publish → deliver path: encoding, fan-out to many outboxes, and taking from one.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use skywave::{
    broadcast::{Broadcast, Publication},
    broker::{Broker, Chunk, Delivery, Publish, memory::MemoryBroker},
    config::Config,
    hub::{Hub, Membership, outbox::Outbox},
};
use skywave_protocol::{Channel, Form, Json, Payload, Position, form, frame, text::TooLong};
use std::{hint::black_box, iter, sync::Arc};

const SUBSCRIBERS: usize = 1000;
const BURST: u64 = 100;
const OUTBOX_BYTES: usize = 1024 * 1024;

fn channel() -> Channel {
    Channel::new("chat:bench").unwrap_or_else(|error| unreachable!("{error}"))
}

fn payload() -> Payload {
    let text = r#"{"text":"The quick brown fox jumps over the lazy dog","mood":"calm"}"#;
    Json::parse(text).unwrap_or_else(|error| unreachable!("{error}")).into()
}

fn publication(offset: u64) -> Arc<Publication> {
    let short = |name: &str| name.parse_text();
    Broadcast::new(frame::Publication {
        channel: channel(),
        origin: short("eu"),
        epoch: short("e"),
        offset,
        time_ms: 1_700_000_000_000,
        key: None,
        user: None,
        data: payload(),
    })
}

/// A bounded text of a literal that fits.
trait ParseText {
    fn parse_text<const MAX: usize>(&self) -> skywave_protocol::Text<MAX>;
}

impl ParseText for str {
    fn parse_text<const MAX: usize>(&self) -> skywave_protocol::Text<MAX> {
        skywave_protocol::Text::new(self).unwrap_or_else(|error: TooLong| unreachable!("{error}"))
    }
}

/// A hub with one channel and many subscribers that stand at its beginning.
fn audience(form: &'static Form) -> (Arc<Hub>, Vec<(Arc<Outbox>, Membership)>) {
    let hub = Arc::new(Hub::default());
    let subscribers = (0..SUBSCRIBERS)
        .map(|_| {
            let outbox = Arc::new(Outbox::new(form, OUTBOX_BYTES));
            let membership = hub.join(channel(), &outbox, false);
            outbox.set_position(membership.lane(), Position::new());
            outbox.fill(membership.lane(), &Chunk { complete: true, ..Chunk::default() });
            (outbox, membership)
        })
        .collect();
    (hub, subscribers)
}

fn drain(outbox: &Outbox) -> usize {
    let mut bytes = 0;
    while let Some(lane) = outbox.ready_lane() {
        while let Some(frame) = outbox.take(lane) {
            bytes += frame.len();
        }
    }
    bytes
}

/// As [`drain`], for a wire that is one pipe.
fn drain_in_turn(outbox: &Outbox) -> usize {
    iter::from_fn(|| outbox.next()).map(|frame| frame.len()).sum()
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for form in [&form::JSON, &form::MESSAGE_PACK] {
        group.bench_function(format!("{form:?}"), |bencher| {
            bencher.iter_batched(
                || publication(1),
                |publication| black_box(publication.written(form).len()),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out");
    group.throughput(Throughput::Elements(SUBSCRIBERS as u64));
    let (hub, subscribers) = audience(&form::MESSAGE_PACK);
    let mut offset = 0;
    group.bench_function(format!("to {SUBSCRIBERS} outboxes and out again"), |bencher| {
        bencher.iter(|| {
            offset += 1;
            hub.publication(&publication(offset));
            subscribers.iter().map(|(outbox, _)| drain(outbox)).sum::<usize>()
        });
    });
    group.finish();
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Elements(1));
    let no_settings: [(&str, &str); 0] = [];
    let namespaces = match Config::load(None, true, no_settings) {
        Ok(config) => config.channels,
        Err(error) => unreachable!("{error}"),
    };
    let broker = MemoryBroker::new("eu".parse_text(), namespaces, Arc::new(Hub::default()));
    group.bench_function("through the memory broker", |bencher| {
        bencher.iter(|| {
            let publish = Publish { channel: channel(), data: payload(), key: None, user: None };
            drop(black_box(broker.publish(publish)));
        });
    });
    group.finish();
}

fn outbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(BURST));
    let (hub, subscribers) = audience(&form::MESSAGE_PACK);
    let mut offset = 0;
    let (one, _) = &subscribers[0];
    let mut fill = || {
        for _ in 0..BURST {
            offset += 1;
            hub.publication(&publication(offset));
        }
        for (other, _) in &subscribers[1..] {
            drain(other);
        }
    };
    group.bench_function(format!("drain {BURST} frames"), |bencher| {
        bencher.iter_batched(&mut fill, |()| black_box(drain(one)), BatchSize::PerIteration);
    });
    group.bench_function(format!("drain {BURST} frames as one pipe"), |bencher| {
        bencher.iter_batched(&mut fill, |()| black_box(drain_in_turn(one)), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, encode, fan_out, publish, outbox);
criterion_main!(benches);
