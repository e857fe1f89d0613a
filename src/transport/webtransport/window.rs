//! The send window of a session, and what of it is kept for those who have little to send.

/// Unacknowledged bytes of one session, beside its outbox.
pub(crate) const SEND_WINDOW: u64 = 512 * 1024;
/// Beyond these, for answers and for channels that have but one frame to send: a channel that fills the window does not
/// hold them up.
const SEND_RESERVE: u64 = 128 * 1024;

/// Writes into the part of the send window that lanes with a backlog leave alone. So what they have not got through yet
/// holds up no other lane, and no answer.
pub(crate) fn with_reserve<T>(quic: &quinn::Connection, write: impl FnOnce() -> T) -> T {
    quic.set_send_window(SEND_WINDOW + SEND_RESERVE);
    let written = write();
    quic.set_send_window(SEND_WINDOW);
    written
}
