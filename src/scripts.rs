//! All scripts that a node runs inside Redis.

use crate::{cluster, redis::Scripts, region};

/// By their owners.
pub const ALL: Scripts = &[
    region::broker::scripts::SCRIPTS,
    region::presence::scripts::SCRIPTS,
    region::bridge::scripts::SCRIPTS,
    region::lease::SCRIPTS,
    cluster::scripts::SCRIPTS,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::script::WRITING;
    use std::collections::BTreeSet;

    #[test]
    fn scripts_that_read_need_no_write() {
        let of_a_life = ALL.iter().copied().flatten().filter(|script| script.is_of_a_life);
        let reading = of_a_life.filter(|script| !script.source().contains(WRITING));
        let reading: BTreeSet<_> = reading.map(|script| script.name).collect();
        assert_eq!(
            reading,
            BTreeSet::from(["read", "life_of", "pull", "members", "census", "standing", "holdings"])
        );
    }

    #[test]
    fn metrics_tell_scripts_apart() {
        let names: BTreeSet<_> = ALL.iter().copied().flatten().map(|script| script.name).collect();
        assert_eq!(names.len(), ALL.iter().copied().flatten().count());
    }
}
