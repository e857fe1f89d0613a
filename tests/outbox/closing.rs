//! The end of an outbox, and of its lanes.

use crate::{
    content::publication,
    reader::{drain, live_lane, open_lane, outbox, task},
};
use skywave::hub::outbox::Task;
use skywave_protocol::CloseCode;

#[test]
fn the_first_reason_to_close_stands() {
    let outbox = outbox();
    outbox.close(CloseCode::Replaced);
    outbox.close(CloseCode::Shutdown);
    assert_eq!(task(&outbox), Some(Task::Close(CloseCode::Replaced)));
}

#[test]
fn a_closed_lane_is_reused_only_after_the_transport_gave_it_back() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    outbox.publication(lane, &publication(1));
    outbox.close_lane(lane);
    assert_eq!(outbox.bytes(), 0);
    assert_ne!(open_lane(&outbox), lane);
    assert_eq!(outbox.take_closed_lane(), Some(lane));
    assert_eq!(open_lane(&outbox), lane);
    assert!(drain(&outbox).is_empty());
}
