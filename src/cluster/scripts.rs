//! What the nodes of a region run inside Redis to know each other.

use crate::redis::{Script, scripts};

scripts! {
    /// All of them.
    SCRIPTS:
    CLAIM = Script::new("claim", &[include_str!("claim.lua")]);
    RELEASE = Script::new("release", &[include_str!("release.lua")]);
    DIRECTORY = Script::new("directory", &[include_str!("directory.lua")]);
}
