//! The scripts that run inside Redis, each in one atomic step.

/// A script, as it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Publish,
    Read,
    LifeOf,
    Lease,
    Claim,
    Release,
}

/// All of them, in the order of their declaration.
pub const ALL_SCRIPTS: [Script; 6] =
    [Script::Publish, Script::Read, Script::LifeOf, Script::Lease, Script::Claim, Script::Release];

impl Script {
    pub fn source(self) -> &'static str {
        match self {
            Self::Publish => {
                concat!(include_str!("../broker/redis/life.lua"), include_str!("../broker/redis/publish.lua"))
            }
            Self::Read => {
                concat!(include_str!("../broker/redis/life.lua"), include_str!("../broker/redis/read.lua"))
            }
            Self::LifeOf => {
                concat!(include_str!("../broker/redis/life.lua"), include_str!("../broker/redis/life_of.lua"))
            }
            Self::Lease => include_str!("../region/lease.lua"),
            Self::Claim => include_str!("../region/claim.lua"),
            Self::Release => include_str!("../region/release.lua"),
        }
    }

    /// It begins with `life.lua`, whose first arguments the connection supplies.
    pub fn is_of_a_life(self) -> bool {
        matches!(self, Self::Publish | Self::Read | Self::LifeOf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_stand_at_their_number() {
        assert!(ALL_SCRIPTS.iter().enumerate().all(|(index, script)| *script as usize == index));
    }
}
