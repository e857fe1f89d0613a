//! Which of a session's transports is the newest: one order that every node and every region's Redis decides alike.

use serde::{Deserialize, Serialize};

/// What a transport claims its session with; of two claims the greater one is newer, whichever arrives last.
///
/// All of it is settled when the transport opens. So the order does not depend on when, where or how often a claim is
/// heard: of any number of transports, all agree on the same one. The scripts compare in the same order: `claim.lua` of
/// fencing, and `rooms.lua` of presence. A claim is stored as a list of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "[u64; 4]", into = "[u64; 4]")]
pub struct Claim {
    /// How many times its client had sent `connect` by then; 0 from a client that does not count.
    pub attempt: u64,
    /// How often the session had been resumed, as the signed secret counts: 0 where it began. Two that were resumed
    /// with the same secret have the same.
    pub turn: u64,
    /// When the transport opened, by its node's clock.
    pub since_ms: u64,
    /// Names the transport: begins anywhere in each process, so that no two have the same.
    pub number: u64,
}

impl From<[u64; 4]> for Claim {
    fn from([attempt, turn, since_ms, number]: [u64; 4]) -> Self {
        Self { attempt, turn, since_ms, number }
    }
}

impl From<Claim> for [u64; 4] {
    fn from(Claim { attempt, turn, since_ms, number }: Claim) -> Self {
        [attempt, turn, since_ms, number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let fields = (0u64..4, 1u64..4, 0u64..3);
        prop::collection::vec(fields, 1..7).prop_map(|all| {
            let claim = |(number, (attempt, turn, since_ms))| Claim { attempt, turn, since_ms, number };
            (0u64..).zip(all).map(claim).collect()
        })
    }

    proptest! {
        /// `orders`: in which order each region hears the claims. Some are heard more than once, since failed claims
        /// are made up for. A transport is closed when a region refuses its claim, or its own one gives the session to
        /// another.
        #[test]
        fn whatever_the_order_in_which_regions_hear_of_them_all_keep_the_same_one_transport(
            claims in claims(),
            orders in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..20), 2..5),
            rotations in prop::collection::vec(any::<prop::sample::Index>(), 5),
            homes in prop::collection::vec(any::<prop::sample::Index>(), 7),
        ) {
            let home = |transport: usize| homes[transport].index(orders.len());
            let mut closed = vec![false; claims.len()];
            for (region, heard) in orders.iter().enumerate() {
                let again = heard.iter().map(|index| index.index(claims.len()));
                // In the end each is heard everywhere, in an order of the region's own.
                let mut all: Vec<_> = (0..claims.len()).collect();
                all.rotate_left(rotations[region].index(claims.len()));
                let mut holder: Option<usize> = None;
                for heard in again.chain(all) {
                    match holder {
                        Some(present) if claims[present] > claims[heard] => closed[heard] = true,
                        Some(present) if present != heard => {
                            closed[present] |= home(present) == region;
                            holder = Some(heard);
                        }
                        _ => holder = Some(heard),
                    }
                }
            }
            let newest = (0..claims.len()).max_by_key(|index| claims[*index]).unwrap();
            let left: Vec<_> = (0..claims.len()).filter(|index| !closed[*index]).collect();
            prop_assert_eq!(left, vec![newest]);
        }
    }

    #[test]
    fn attempts_count_before_turns_and_turns_before_time() {
        let claim = |attempt, turn, since_ms, number| Claim { attempt, turn, since_ms, number };
        let newest_first =
            [claim(3, 1, 1, 1), claim(2, 9, 1, 1), claim(2, 1, 9, 1), claim(2, 1, 1, 9), claim(0, 9, 9, 9)];
        assert!(newest_first.is_sorted_by(|one, other| one > other));
    }
}
