//! What the broker runs inside Redis.

use skywave_redis::{Script, script::WRITING, scripts};

/// Before scripts that begin positions.
pub(crate) const WHOLE: &str = include_str!("whole.lua");
/// Before scripts that compare ids of the log.
pub(crate) const STREAM_ID: &str = include_str!("stream_id.lua");
const BEGUN: &str = include_str!("begun.lua");
const REACHED_LIFE: &str = include_str!("reached_life.lua");

scripts! {
    /// All of them.
    SCRIPTS:
    PUBLISH = Script::of_a_life("publish", &[WRITING, BEGUN, WHOLE, include_str!("publish.lua")]);
    READ = Script::of_a_life("read", &[BEGUN, STREAM_ID, REACHED_LIFE, include_str!("read.lua")]);
    LIFE_OF = Script::of_a_life("life_of", &[STREAM_ID, REACHED_LIFE, include_str!("life_of.lua")]);
}
