//! Why a node cannot go on.

use tokio::task::JoinError;

/// A part of the node has failed, without which it does not serve.
#[derive(Debug, thiserror::Error)]
#[error("a part of the node has failed, without which it does not serve: {0}")]
pub struct Failed(String);

impl Failed {
    /// By the end of a task that was to go on.
    pub(super) fn by(ended: Result<(), JoinError>) -> Self {
        Self(ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::tasks::Tasks;
    use futures_util::FutureExt;
    use std::future::pending;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn what_panicked_is_told_by_whoever_holds_all_tasks() {
        let inner = Tasks::new([pending().boxed(), async { panic!("a fault") }.boxed()]);
        let mut outer = JoinSet::new();
        outer.spawn(async move { inner.ended().await });
        let failed = Failed::by(outer.join_next().await.unwrap()).to_string();
        assert!(failed.contains("a fault"), "{failed}");
    }
}
