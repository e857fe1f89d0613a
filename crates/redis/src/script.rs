//! A script that runs inside Redis, in one atomic step.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::sync::OnceLock;

/// The head of scripts that need to know in which life their partition is.
const LIFE: &str = include_str!("life.lua");
/// Before scripts of a life that write: a server that takes no writes refuses them, and goes on answering those that
/// read.
pub const WRITING: &str = include_str!("writing.lua");

/// A script, as its owner declares it with [`scripts!`](crate::scripts).
#[derive(Debug)]
pub struct Script {
    /// What metrics call it.
    pub name: &'static str,
    /// It begins with `life.lua`, whose first arguments the connection supplies.
    pub is_of_a_life: bool,
    parts: &'static [&'static str],
    source: OnceLock<String>,
    hash: OnceLock<String>,
}

impl Script {
    /// Of these parts, one after the other.
    pub const fn new(name: &'static str, parts: &'static [&'static str]) -> Self {
        Self::with(name, false, parts)
    }

    /// Of `life.lua` and these parts.
    pub const fn of_a_life(name: &'static str, parts: &'static [&'static str]) -> Self {
        Self::with(name, true, parts)
    }

    const fn with(name: &'static str, is_of_a_life: bool, parts: &'static [&'static str]) -> Self {
        Self { name, is_of_a_life, parts, source: OnceLock::new(), hash: OnceLock::new() }
    }

    pub fn source(&self) -> &str {
        let head = if self.is_of_a_life { LIFE } else { "" };
        self.source.get_or_init(|| [head].iter().chain(self.parts).copied().collect())
    }

    /// Its SHA-1 in hexadecimal digits, by which Redis knows it once it is loaded.
    pub fn hash(&self) -> &str {
        self.hash.get_or_init(|| {
            let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.source().as_bytes());
            hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

/// The scripts of several owners.
pub type Scripts = &'static [&'static [&'static Script]];

/// Declares the scripts of an owner, and the list of them all.
#[macro_export]
macro_rules! scripts {
    ($(#[$comment:meta])* $all:ident: $($name:ident = $script:expr;)+) => {
        $(pub static $name: $crate::Script = $script;)+
        $(#[$comment])*
        pub static $all: &[&$crate::Script] = &[$(&$name),+];
    };
}
