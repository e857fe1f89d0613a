//! Rendezvous hashing: all nodes agree on which of them suits a user, and few users move when one of them goes.
//!
//! Highest random weight (Thaler & Ravishankar, "Using name-based mappings to increase hit rates", 1998), with a bound
//! on each node's load ("Consistent hashing with bounded loads", Mirrokni, Thorup & Zadimoghaddam, 2016): a first
//! choice that is full is passed over for the next.

/// The weight of a node for a key. All versions of all nodes must agree on it.
pub(crate) fn weight(key: &str, node: &str) -> u64 {
    // The node's hash is mixed first: two that differ in one bit must not stay near each other.
    mix(fnv1a(key.as_bytes()) ^ mix(fnv1a(node.as_bytes())))
}

/// Orders nodes by their weight for `key`, the one that suits it best first.
pub(super) fn rank<T>(key: &str, nodes: &mut [T], id: impl Fn(&T) -> &str) {
    nodes.sort_by(|one, other| {
        let weights = weight(key, id(other)).cmp(&weight(key, id(one)));
        weights.then_with(|| id(one).cmp(id(other)))
    });
}

/// The node with the highest weight for `key` among those that `has_room` accepts.
pub(super) fn choose<'a, T>(
    key: &str,
    nodes: impl IntoIterator<Item = &'a T>,
    id: impl Fn(&T) -> &str,
    has_room: impl Fn(&T) -> bool,
) -> Option<&'a T> {
    let with_room = nodes.into_iter().filter(|node| has_room(node));
    with_room.max_by(|one, other| {
        let weights = weight(key, id(one)).cmp(&weight(key, id(other)));
        weights.then_with(|| id(other).cmp(id(one)))
    })
}

/// The 64-bit FNV-1a hash (draft-eastlake-fnv).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64 (Steele, Lea & Flood, 2014; constants of Stafford's variant 13).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn chosen<'a>(key: &str, nodes: &'a [String]) -> Option<&'a String> {
        choose(key, nodes, |node| node, |_| true)
    }

    fn nodes() -> impl Strategy<Value = Vec<String>> {
        prop::collection::btree_set("[a-z0-9]{1,12}", 1..12).prop_map(|nodes| nodes.into_iter().collect())
    }

    proptest! {
        #[test]
        fn only_the_lost_nodes_users_move(nodes in nodes(), lost in any::<prop::sample::Index>()) {
            let lost = nodes[lost.index(nodes.len())].clone();
            let left: Vec<_> = nodes.iter().filter(|node| **node != lost).cloned().collect();
            for user in 0..200 {
                let user = format!("user-{user}");
                let before = chosen(&user, &nodes).unwrap();
                if *before != lost {
                    prop_assert_eq!(chosen(&user, &left), Some(before));
                }
            }
        }

        #[test]
        fn the_order_of_the_list_makes_no_difference(nodes in nodes(), user in "[a-z]{0,20}") {
            let mut reversed = nodes.clone();
            reversed.reverse();
            prop_assert_eq!(chosen(&user, &nodes), chosen(&user, &reversed));
        }

        #[test]
        fn the_first_of_a_ranking_is_the_one_chosen_and_the_second_follows_it(
            nodes in nodes(), user in "[a-z]{0,20}",
        ) {
            let mut ranking = nodes.clone();
            rank(&user, &mut ranking, |node| node);
            prop_assert_eq!(chosen(&user, &nodes), ranking.first());
            let first = ranking[0].clone();
            let second = choose(&user, &nodes, |node| node, |node| *node != first);
            prop_assert_eq!(second, ranking.get(1));
            prop_assert_eq!(ranking.into_iter().collect::<BTreeSet<_>>(), nodes.into_iter().collect());
        }
    }

    #[test]
    fn users_spread_evenly_even_over_nodes_with_similar_names() {
        let nodes: Vec<_> = (1..=8).map(|number| format!("eu-{number}")).collect();
        let mut users: BTreeMap<&str, u32> = BTreeMap::new();
        for user in 0..8_000 {
            *users.entry(chosen(&format!("user-{user}"), &nodes).unwrap()).or_default() += 1;
        }
        // Six standard deviations around 1,000.
        assert!(users.len() == 8 && users.values().all(|count| (820..=1_180).contains(count)), "{users:?}");
    }

    #[test]
    fn weights_stay_what_they_are_for_ever() {
        assert_eq!(mix(0), 0);
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
        let nodes = ["a", "b", "c"].map(str::to_owned);
        let choices: String =
            (0..12).map(|user| chosen(&format!("u{user}"), &nodes).unwrap().as_str()).collect();
        assert_eq!(choices, "aacbcbacaccc");
    }
}
