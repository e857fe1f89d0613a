//! What sessions and links do with each sign of life.

use crate::{Case, Rounds, again};
use skywave_protocol::heartbeat::{
    Action, Activity, Heartbeat, HeartbeatConfig, PathKind, PhiConfig, PhiDetector,
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const RTT: Duration = Duration::from_millis(40);
const BEAT: Duration = Duration::from_secs(2);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("note that a frame came, and ask what is due", |_| received()),
        Case::new("send a ping and take its pong", |_| pinged()),
        Case::new("hear a link's beat, and judge it", |_| judged()),
    ]
}

fn heartbeat(now: Instant) -> Heartbeat {
    Heartbeat::new(&HeartbeatConfig::default(), PathKind::Udp, Activity::Foreground, now)
}

fn received() -> Rounds {
    let mut now = Instant::now();
    let mut heartbeat = heartbeat(now);
    again(move || {
        now += RTT;
        heartbeat.received(now);
        black_box(heartbeat.poll(now));
    })
}

fn pinged() -> Rounds {
    let mut now = Instant::now();
    let mut heartbeat = heartbeat(now);
    again(move || {
        now += heartbeat.schedule().interval;
        if let Action::Ping { seq, .. } = heartbeat.poll(now) {
            now += RTT;
            black_box(heartbeat.pong(seq, now));
        }
    })
}

fn judged() -> Rounds {
    let mut now = Instant::now();
    let mut detector = PhiDetector::new(PhiConfig::default(), now);
    again(move || {
        now += BEAT;
        detector.heard(BEAT, now);
        black_box(detector.phi(now));
    })
}
