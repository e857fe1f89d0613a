//! What presence runs inside Redis.

use skywave_redis::{Script, script::WRITING, scripts};

const ROOMS: &str = include_str!("rooms.lua");

scripts! {
    /// All of them.
    SCRIPTS:
    ARRIVE = Script::of_a_life("arrive", &[WRITING, ROOMS, include_str!("arrive.lua")]);
    DEPART = Script::of_a_life("depart", &[WRITING, ROOMS, include_str!("depart.lua")]);
    SWEEP = Script::of_a_life("sweep", &[WRITING, ROOMS, include_str!("sweep.lua")]);
    RENEW = Script::of_a_life("renew", &[WRITING, include_str!("renew.lua")]);
    MEMBERS = Script::of_a_life("members", &[include_str!("members.lua")]);
    CENSUS = Script::of_a_life("census", &[ROOMS, include_str!("census.lua")]);
    HOLDINGS = Script::of_a_life("holdings", &[ROOMS, include_str!("holdings.lua")]);
    STANDING = Script::of_a_life("standing", &[ROOMS, include_str!("standing.lua")]);
}
