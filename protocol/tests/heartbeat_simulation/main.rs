//! The adaptive heartbeat against a fixed one, on simulated paths in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a simulation that breaks is a failed test")]

mod adaptive;
mod fixed;
mod network;
mod outcome;
mod table;

use network::Transport;
use outcome::{Measure, Policy};
use skywave_protocol::heartbeat::{Activity, HeartbeatConfig};
use std::sync::LazyLock;
use table::Table;

static TABLE: LazyLock<Table> = LazyLock::new(Table::measure);

#[test]
fn idle_and_background_sessions_beat_the_fixed_heartbeat_on_a_good_path() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let fixed = TABLE.summary(Policy::Fixed, "good", transport);
        for activity in [Activity::Idle, Activity::Background] {
            let adaptive = TABLE.summary(Policy::Adaptive(activity), "good", transport);
            let case = format!("{activity:?} on {transport:?}: {adaptive:?}, fixed: {fixed:?}");
            assert!(adaptive.pings < fixed.pings, "{case}");
            assert!(adaptive.noticed_p50 < fixed.noticed_p50, "{case}");
            assert!(adaptive.noticed_p99 < fixed.noticed_p99, "{case}");
            assert!(adaptive.false_alarms <= fixed.false_alarms, "{case}");
        }
    }
}

#[test]
fn idle_and_background_sessions_are_worse_nowhere() {
    for (cell, measures) in TABLE.trades() {
        if matches!(cell.policy, Policy::Adaptive(Activity::Idle | Activity::Background)) {
            assert_eq!(measures, [], "{cell:?}");
        }
    }
}

#[test]
fn foreground_sessions_pay_in_pings_and_on_lossy_tcp_in_false_alarms() {
    for (cell, measures) in TABLE.trades() {
        if cell.policy != Policy::Adaptive(Activity::Foreground) {
            continue;
        }
        for measure in measures {
            let very_lossy_tcp = cell.transport == Transport::Tcp && cell.path.name == "lossy 20 %";
            let listed = match measure {
                Measure::Pings => true,
                Measure::FalseAlarms => very_lossy_tcp,
                Measure::NoticedP50 | Measure::NoticedP99 => false,
            };
            assert!(listed, "{cell:?} trades {measure:?}");
        }
    }
}

/// On the other paths the round trips, or on TCP the repetitions, leave no room for it.
#[test]
fn the_death_of_a_foreground_session_is_noticed_within_eleven_seconds() {
    let bound = u64::try_from(HeartbeatConfig::default().foreground_max.as_micros()).unwrap() * 11 / 10;
    for (cell, summary) in TABLE.cells() {
        let permitted = match cell.transport {
            Transport::Udp => cell.path.name != "jittery",
            Transport::Tcp => ["good", "NAT 30 s", "NAT 120 s"].contains(&cell.path.name),
        };
        if cell.policy == Policy::Adaptive(Activity::Foreground) && permitted {
            // An answer that was under way when the client died comes in later.
            let under_way = cell.path.delay + cell.path.jitter;
            assert!(summary.noticed_p99 < bound + under_way, "{cell:?}: {summary:?}");
        }
    }
}

#[test]
fn a_saver_finds_the_nat_timer_and_stays_under_it() {
    let saver = |path, transport| TABLE.summary(Policy::Adaptive(Activity::Saver), path, transport);
    let on_udp = saver("NAT 120 s", Transport::Udp);
    assert_eq!(on_udp.false_alarms, 0, "a nudge of the client saves the session");
    assert!((31..36).contains(&on_udp.pings_per_hour()), "a ping about every 115 s: {on_udp:?}");
    let on_tcp = saver("NAT 120 s", Transport::Tcp);
    assert!(
        on_tcp.false_alarms <= 2 * outcome::LIVE_SESSIONS,
        "one cut to learn, one hours later: {on_tcp:?}"
    );
}

/// Rewrites the document with `UPDATE_GOLDEN=1`.
#[test]
fn the_documented_table_is_the_computed_one() {
    println!("{}", TABLE.markdown());
    table::compare_with_document(&TABLE.markdown());
}
