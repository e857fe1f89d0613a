//! Whoever reads a lane: what it may be sent, said over sets of publications.

use crate::region::{Name, Seen, follows, is_unseen};
use skywave_protocol::ServerFrame;
use std::collections::BTreeSet;

/// Where a peer stands, and what the node could send it of what it has heard.
#[derive(Debug, Default)]
pub struct Peer {
    pub seen: Seen,
    pub heard: BTreeSet<Name>,
    /// How many are there, as it was told last, how many of them by name, and whether it knows that it missed some.
    pub count: u64,
    pub named: u64,
    pub has_missed: bool,
}

impl Peer {
    /// # Panics
    /// When the frame repeats, leaves out, moves back, or tells as lost what is there.
    pub fn take(&mut self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Publication(one) => {
                let name = Name::of(&one.origin, &one.epoch, one.offset);
                assert!(follows(&self.seen, name), "{name:?} does not follow {:?}", self.seen);
                self.seen.insert(name.origin, name);
            }
            ServerFrame::Gap(gap) => {
                let to = Name::of(&gap.origin, &gap.epoch, gap.offset);
                assert!(is_unseen(&self.seen, to), "a gap to {to:?} leads back from {:?}", self.seen);
                let is_lost = |name: &&Name| {
                    // The last of an epoch come before another, the rest before the gap's end.
                    let last = self.seen.contains_key(&to.origin) && follows(&self.seen, **name);
                    let within = name.epoch == to.epoch && name.offset <= to.offset;
                    name.origin == to.origin && is_unseen(&self.seen, **name) && (last || within)
                };
                let lost = self.heard.iter().find(is_lost);
                assert_eq!(lost, None, "told as lost by a gap to {to:?} from {:?}", self.seen);
                self.seen.insert(to.origin, to);
            }
            ServerFrame::PresenceChanged(change) => {
                assert!(change.count >= self.count, "{} are there, and then {}", self.count, change.count);
                self.count = change.count;
                self.named += change.joined.len() as u64;
                self.has_missed |= change.joined.is_empty();
            }
            other => panic!("{other:?}"),
        }
    }
}
