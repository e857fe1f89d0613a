//! What the owner of a heartbeat can rely on.

mod busy;
mod calls;
mod pauses;
mod session;
mod silence;

use skywave_protocol::heartbeat::Heartbeat;

#[test]
fn it_is_small() {
    assert!(size_of::<Heartbeat>() <= 200, "{} bytes", size_of::<Heartbeat>());
}
