//! What a region has said of one partition and was not applied yet: bounded, since the log holds it as well.

use super::crossing::Heard;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// The most messages of a partition that wait.
const MAX_MESSAGES: usize = 4_096;
/// Bytes of messages that wait, of all partitions of a link.
const MAX_BYTES: usize = 32 << 20;

/// Where the messages of one partition wait.
pub(crate) struct Mailbox {
    max_bytes: usize,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Heard>,
    bytes: usize,
    /// Something was thrown away: only the log has everything.
    overflowed: bool,
}

impl Mailbox {
    /// One of so many; it is open.
    pub(crate) fn new(partitions: u16) -> Self {
        let max_bytes = MAX_BYTES / usize::from(partitions.max(1));
        Self { max_bytes, waiting: Mutex::default(), changed: Notify::new() }
    }

    /// Begins anew, with nothing.
    pub(crate) fn open(&self) {
        *self.waiting.lock() = Waiting::default();
    }

    pub(crate) fn push(&self, message: Heard) {
        let mut waiting = self.waiting.lock();
        let full = waiting.messages.len() >= MAX_MESSAGES
            || waiting.bytes + message.bytes > self.max_bytes && !waiting.messages.is_empty();
        if waiting.overflowed {
            return;
        }
        if full {
            *waiting = Waiting { overflowed: true, ..Waiting::default() };
        } else {
            waiting.bytes += message.bytes;
            waiting.messages.push_back(message);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Makes the reader look into the log.
    pub(crate) fn give_up(&self) {
        *self.waiting.lock() = Waiting { overflowed: true, ..Waiting::default() };
        self.changed.notify_one();
    }

    pub(crate) fn is_overflowed(&self) -> bool {
        self.waiting.lock().overflowed
    }

    /// Waits for messages and takes up to `count`; `None` when the log has to be read.
    pub(crate) async fn take(&self, count: usize) -> Option<Vec<Heard>> {
        loop {
            // Before the look, so that no change between look and wait is missed.
            let changed = self.changed.notified();
            {
                let mut waiting = self.waiting.lock();
                if waiting.overflowed {
                    return None;
                }
                if !waiting.messages.is_empty() {
                    let count = count.min(waiting.messages.len());
                    let taken: Vec<_> = waiting.messages.drain(..count).collect();
                    waiting.bytes -= taken.iter().map(|message| message.bytes).sum::<usize>();
                    return Some(taken);
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::crossing, *};
    use skywave_protocol::Text;

    fn message(bytes: usize) -> Heard {
        let parts = [&b"life"[..], b"5-1", b"chat:1", b"0", b"1", b"b", b"", b""];
        Heard::read(&crossing::message(parts, &vec![b'x'; bytes], b"1"), &Text::new("eu").unwrap()).unwrap()
    }

    #[tokio::test]
    async fn messages_are_taken_in_order_and_in_parts() {
        let mailbox = Mailbox::new(1);
        for bytes in 1..=5 {
            mailbox.push(message(bytes));
        }
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let taken = mailbox.take(2).await.unwrap();
            sizes.push(taken.iter().map(|one| one.bytes - message(0).bytes).collect::<Vec<_>>());
        }
        assert_eq!(sizes, [vec![1, 2], vec![3, 4], vec![5]]);
    }

    #[tokio::test]
    async fn too_many_or_too_large_a_backlog_is_thrown_away_and_told() {
        for (bytes, count) in [(0, MAX_MESSAGES + 1), (MAX_BYTES / 2, 2)] {
            let mailbox = Mailbox::new(1);
            for _ in 0..count {
                assert!(!mailbox.is_overflowed());
                mailbox.push(message(bytes));
            }
            mailbox.push(message(0));
            assert!(mailbox.is_overflowed() && mailbox.take(1).await.is_none());
            mailbox.open();
            mailbox.push(message(0));
            assert_eq!(mailbox.take(9).await.unwrap().len(), 1);
        }
    }
}
