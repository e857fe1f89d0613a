//! Who is on a channel, as a client knows it from what it is told.

use skywave_protocol::frame::{self, PresenceChanged};
use std::collections::BTreeSet;

/// Of sessions, their ids.
pub type Members = BTreeSet<String>;

pub struct Roster {
    pub members: Members,
    /// The client missed something, and knows it by the count: it would have to ask.
    pub is_incomplete: bool,
}

impl Roster {
    pub fn new(listed: frame::Members) -> Self {
        let members: Members = listed.members.iter().map(|member| member.session.to_string()).collect();
        let is_incomplete = listed.count != members.len() as u64;
        Self { members, is_incomplete }
    }

    pub fn change(&mut self, change: &PresenceChanged) {
        for member in &change.left {
            self.members.remove(&*member.session);
        }
        for member in &change.joined {
            self.members.insert(member.session.to_string());
        }
        // A count alone may be right by chance.
        let is_count = change.joined.is_empty() && change.left.is_empty();
        self.is_incomplete |= is_count || change.count != self.members.len() as u64;
    }
}
