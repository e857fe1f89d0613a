//! How much load a node may have beside its peers, and what it sheds when it has more. Pure.

/// A node sheds when it has so much more than the mean …
const HOT_SHARE: f64 = 1.2;
/// … and at least so many sessions more: small numbers always differ.
const HOT_SURPLUS: f64 = 50.0;
/// Shedding ends here, and nobody is sent to a node with more. It is well below where shedding begins, so that what was
/// moved does not move again.
const EVEN_SHARE: f64 = 1.1;
const EVEN_SURPLUS: f64 = 25.0;

/// The mean load of nodes.
pub(super) fn mean(loads: impl IntoIterator<Item = usize>) -> f64 {
    let (count, sum) =
        loads.into_iter().fold((0.0, 0.0), |(count, sum), load| (count + 1.0, sum + load as f64));
    if count == 0.0 { 0.0 } else { sum / count }
}

/// The most sessions that a node gets because it suits them.
pub(super) fn even(mean: f64) -> usize {
    (mean * EVEN_SHARE).max(mean + EVEN_SURPLUS) as usize
}

/// How many sessions a node with `load` should shed, where `mean` is that of its region. `shedding`: it has begun.
pub(super) fn surplus(load: usize, mean: f64, shedding: bool) -> usize {
    let is_hot = load as f64 > (mean * HOT_SHARE).max(mean + HOT_SURPLUS);
    if is_hot || shedding { load.saturating_sub(even(mean)) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shed_below_a_fifth_or_fifty_sessions_above_the_mean() {
        assert_eq!(surplus(150, 100.0, false), 0);
        assert_eq!(surplus(1_200, 1_000.0, false), 0);
        assert_eq!(surplus(0, 0.0, false), 0);
    }

    #[test]
    fn a_hot_node_sheds_until_it_is_even_and_then_stops() {
        let (mut loads, mut shedding, mut moved) = ([3_000usize, 1_000, 1_000], false, 0);
        loop {
            let shed = surplus(loads[0], mean(loads), shedding).min(loads[0] / 100 + 1);
            shedding = shed > 0;
            if !shedding {
                break;
            }
            loads[0] -= shed;
            loads[1 + moved % 2] += shed;
            moved += shed;
        }
        assert!(loads[0] <= even(mean(loads)) && loads[0] > 1_800, "{loads:?}");
        for load in loads {
            assert_eq!(surplus(load, mean(loads), false), 0, "nobody else is hot now");
        }
    }

    #[test]
    fn a_node_that_is_filled_by_preference_is_never_hot_by_it() {
        for mean in [0.0, 1.0, 40.0, 400.0, 90_000.0] {
            assert_eq!(surplus(even(mean), mean, false), 0);
        }
    }
}
