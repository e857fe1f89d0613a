//! What the bridge runs inside the Redis of its region and of the other one.

use crate::broker::scripts::{STREAM_ID, WHOLE};
use skywave_redis::{Script, script::WRITING, scripts};

const ENTRIES: &str = include_str!("entries.lua");
const FENCE: &str = include_str!("fence.lua");
const LATEST: &str = include_str!("latest.lua");

scripts! {
    /// All of them.
    SCRIPTS:
    PULL = Script::of_a_life("pull", &[ENTRIES, include_str!("pull.lua")]);
    APPLY = Script::of_a_life("apply", &[WRITING, STREAM_ID, FENCE, LATEST, WHOLE, include_str!("apply.lua")]);
    SURVEY = Script::new("survey", &[ENTRIES, include_str!("survey.lua")]);
    FILL = Script::new("fill", &[ENTRIES, FENCE, LATEST, WHOLE, include_str!("fill.lua")]);
    LOSE = Script::of_a_life("lose", &[WRITING, FENCE, LATEST, include_str!("lose.lua")]);
    SAY = Script::new("say", &[FENCE, include_str!("say.lua")]);
}
