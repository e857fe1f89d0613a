//! The scripts that run inside Redis, each in one atomic step.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::sync::LazyLock;

/// A script, as it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Publish,
    Read,
    LifeOf,
    Pull,
    Apply,
    Survey,
    Fill,
    Lose,
    Say,
    Lease,
    Claim,
    Release,
    Arrive,
    Depart,
    Sweep,
    RenewHolder,
    Members,
    Census,
    Holdings,
    Directory,
}

/// All of them, in the order of their declaration.
pub const ALL_SCRIPTS: [Script; 20] = [
    Script::Publish,
    Script::Read,
    Script::LifeOf,
    Script::Pull,
    Script::Apply,
    Script::Survey,
    Script::Fill,
    Script::Lose,
    Script::Say,
    Script::Lease,
    Script::Claim,
    Script::Release,
    Script::Arrive,
    Script::Depart,
    Script::Sweep,
    Script::RenewHolder,
    Script::Members,
    Script::Census,
    Script::Holdings,
    Script::Directory,
];

impl Script {
    pub fn source(self) -> &'static str {
        match self {
            Self::Publish => {
                concat!(
                    include_str!("../broker/redis/life.lua"),
                    include_str!("../broker/redis/writing.lua"),
                    include_str!("../broker/redis/begun.lua"),
                    include_str!("../broker/redis/whole.lua"),
                    include_str!("../broker/redis/publish.lua")
                )
            }
            Self::Read => {
                concat!(
                    include_str!("../broker/redis/life.lua"),
                    include_str!("../broker/redis/begun.lua"),
                    include_str!("../broker/redis/stream_id.lua"),
                    include_str!("../broker/redis/reached_life.lua"),
                    include_str!("../broker/redis/read.lua")
                )
            }
            Self::LifeOf => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../broker/redis/stream_id.lua"),
                include_str!("../broker/redis/reached_life.lua"),
                include_str!("../broker/redis/life_of.lua")
            ),
            Self::Pull => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../region/bridge/entries.lua"),
                include_str!("../region/bridge/pull.lua")
            ),
            Self::Apply => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../broker/redis/writing.lua"),
                include_str!("../broker/redis/stream_id.lua"),
                include_str!("../region/bridge/fence.lua"),
                include_str!("../region/bridge/latest.lua"),
                include_str!("../broker/redis/whole.lua"),
                include_str!("../region/bridge/apply.lua")
            ),
            Self::Survey => concat!(
                include_str!("../region/bridge/entries.lua"),
                include_str!("../region/bridge/survey.lua")
            ),
            Self::Fill => concat!(
                include_str!("../region/bridge/entries.lua"),
                include_str!("../region/bridge/fence.lua"),
                include_str!("../region/bridge/latest.lua"),
                include_str!("../broker/redis/whole.lua"),
                include_str!("../region/bridge/fill.lua")
            ),
            Self::Lose => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../broker/redis/writing.lua"),
                include_str!("../region/bridge/fence.lua"),
                include_str!("../region/bridge/latest.lua"),
                include_str!("../region/bridge/lose.lua")
            ),
            Self::Say => {
                concat!(include_str!("../region/bridge/fence.lua"), include_str!("../region/bridge/say.lua"))
            }
            Self::Lease => include_str!("../region/lease.lua"),
            Self::Claim => include_str!("../cluster/claim.lua"),
            Self::Release => include_str!("../cluster/release.lua"),
            Self::Directory => include_str!("../cluster/directory.lua"),
            Self::Arrive => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../broker/redis/writing.lua"),
                include_str!("../presence/redis/rooms.lua"),
                include_str!("../presence/redis/arrive.lua")
            ),
            Self::Depart => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../broker/redis/writing.lua"),
                include_str!("../presence/redis/rooms.lua"),
                include_str!("../presence/redis/depart.lua")
            ),
            Self::Sweep => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../broker/redis/writing.lua"),
                include_str!("../presence/redis/rooms.lua"),
                include_str!("../presence/redis/sweep.lua")
            ),
            Self::Census => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../presence/redis/rooms.lua"),
                include_str!("../presence/redis/census.lua")
            ),
            Self::Holdings => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../presence/redis/rooms.lua"),
                include_str!("../presence/redis/holdings.lua")
            ),
            Self::RenewHolder => {
                concat!(
                    include_str!("../broker/redis/life.lua"),
                    include_str!("../broker/redis/writing.lua"),
                    include_str!("../presence/redis/renew.lua")
                )
            }
            Self::Members => concat!(
                include_str!("../broker/redis/life.lua"),
                include_str!("../presence/redis/members.lua")
            ),
        }
    }

    /// Its SHA-1 in hexadecimal digits, by which Redis knows it once it is loaded.
    pub fn hash(self) -> &'static str {
        static HASHES: LazyLock<[String; ALL_SCRIPTS.len()]> = LazyLock::new(|| {
            ALL_SCRIPTS.map(|script| {
                let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, script.source().as_bytes());
                hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
            })
        });
        &HASHES[self as usize]
    }

    /// What metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::LifeOf => "life_of",
            Self::Pull => "pull",
            Self::Apply => "apply",
            Self::Survey => "survey",
            Self::Fill => "fill",
            Self::Lose => "lose",
            Self::Say => "say",
            Self::Lease => "lease",
            Self::Claim => "claim",
            Self::Release => "release",
            Self::Arrive => "arrive",
            Self::Depart => "depart",
            Self::Sweep => "sweep",
            Self::RenewHolder => "renew",
            Self::Members => "members",
            Self::Census => "census",
            Self::Holdings => "holdings",
            Self::Directory => "directory",
        }
    }

    /// It begins with `life.lua`, whose first arguments the connection supplies.
    pub fn is_of_a_life(self) -> bool {
        !matches!(
            self,
            Self::Survey
                | Self::Fill
                | Self::Say
                | Self::Lease
                | Self::Claim
                | Self::Release
                | Self::Directory
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_a_life_begin_with_it() {
        let head = include_str!("../broker/redis/life.lua");
        assert!(ALL_SCRIPTS.iter().all(|script| script.source().starts_with(head) == script.is_of_a_life()));
    }

    #[test]
    fn scripts_that_read_need_no_write() {
        let check = include_str!("../broker/redis/writing.lua");
        let reading =
            [Script::Read, Script::LifeOf, Script::Pull, Script::Members, Script::Census, Script::Holdings];
        for script in ALL_SCRIPTS.into_iter().filter(|script| script.is_of_a_life()) {
            let writes = script.source().contains(check);
            assert_eq!(writes, !reading.contains(&script), "{}", script.name());
        }
    }

    #[test]
    fn scripts_stand_at_their_number() {
        assert!(ALL_SCRIPTS.iter().enumerate().all(|(index, script)| *script as usize == index));
    }
}
