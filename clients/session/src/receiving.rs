//! What comes on a connection: frames to their channels and waiters, signs of life.

use crate::{
    Arrival, ConnectionId, Lane, Output, Reader, RequestError, Session, Settled, Time, carrier::Ending,
};
use skywave_protocol::{
    ClientFrame, DecodeError, Encoding, ErrorCode, RequestId, ServerFrame,
    frame::{self, Pong},
};

/// What a connection is to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Live,
    Retiring,
}

impl<R: Reader> Session<R> {
    fn place(&self, connection: ConnectionId) -> Option<(Place, Encoding)> {
        let live = self.live.iter().map(|one| (Place::Live, one));
        let retiring = self.retiring.iter().map(|(one, _)| (Place::Retiring, one));
        let (place, carrier) = live.chain(retiring).find(|(_, one)| one.id() == connection)?;
        Some((place, carrier.connection.encoding))
    }

    /// A frame came on a connection, perhaps on a stream of the node's that has this number.
    pub fn received(&mut self, connection: ConnectionId, frame: &[u8], stream: Option<u64>, now: Time) {
        let arrival = Arrival { stream, bytes: frame.len() };
        if self.opening.as_ref().is_some_and(|opening| opening.connection == connection) {
            return self.greeted(frame, arrival, now);
        }
        let Some((place, encoding)) = self.place(connection) else { return };
        if place == Place::Live {
            self.traffic.heard(now);
            self.trust();
        }
        match encoding.decode_server(frame) {
            Ok(frame) => self.frame(connection, frame, arrival, now),
            Err(DecodeError::Unknown { name, .. }) => tracing::debug!(name, "unknown frame"),
            Err(error @ DecodeError::Invalid { .. }) => self.misunderstood(place, &error, now),
            Err(error @ DecodeError::Malformed(_)) => self.fault(connection, &error.to_string(), now),
        }
    }

    /// The node broke the protocol: what the connection says further cannot be trusted.
    fn fault(&mut self, connection: ConnectionId, problem: &str, now: Time) {
        tracing::warn!(problem, "protocol fault; resuming on another connection");
        self.over(connection, Ending::lost(format!("protocol fault: {problem}")), now);
    }

    /// A frame of a known name says something unknown, as that of a newer node may. It harms nothing else: to whoever
    /// waits for it the node has failed for the moment, since it may have done what was asked; and where a publication
    /// is missing for it, its channel recovers.
    fn misunderstood(&mut self, place: Place, problem: &DecodeError, now: Time) {
        tracing::warn!(%problem, "a frame cannot be understood");
        if let Some(id) = problem.id() {
            let message = format!("the answer cannot be understood: {problem}");
            self.refused(place, id, RequestError::local(ErrorCode::Internal, message), now);
        } else if let DecodeError::Invalid { name, channel: Some(channel), .. } = problem
            && matches!(name.as_str(), "subscribed" | "unsubscribed")
            && place == Place::Live
        {
            // How the channel stands nobody knows: it is asked for again.
            let (id, code, reason) = (None, None, None);
            let ended = frame::Unsubscribed { id, channel: channel.clone(), code, reason };
            let arrival = Arrival { stream: None, bytes: 0 };
            self.channel_frame(place, ServerFrame::Unsubscribed(ended), arrival, now);
        }
    }

    pub(crate) fn frame(
        &mut self,
        connection: ConnectionId,
        frame: ServerFrame,
        arrival: Arrival,
        now: Time,
    ) {
        let Some((place, encoding)) = self.place(connection) else { return };
        match frame {
            ServerFrame::Publication(_)
            | ServerFrame::Event(_)
            | ServerFrame::Gap(_)
            | ServerFrame::PresenceChanged(_)
            | ServerFrame::Stream(_) => self.channel_frame(place, frame, arrival, now),
            ServerFrame::Subscribed(frame::Subscribed { id, .. })
            | ServerFrame::Unsubscribed(frame::Unsubscribed { id, .. }) => {
                if let Some(id) = id {
                    let settled = self.traffic.replied(id, now);
                    self.settled(place, settled, now);
                }
                self.channel_frame(place, frame, arrival, now);
            }
            ServerFrame::Published(frame::Published { id, .. })
            | ServerFrame::History(frame::History { id, .. })
            | ServerFrame::Presence(frame::Presence { id, .. })
            | ServerFrame::Result(frame::CallResult { id, .. })
            | ServerFrame::Refreshed(frame::Refreshed { id, .. }) => {
                let settled = self.traffic.answered(id, frame, now);
                self.settled(place, settled, now);
            }
            ServerFrame::Error(error) => match error.id {
                Some(id) => self.refused(place, id, error.into(), now),
                None => tracing::warn!(code = error.code, message = %error.message, "the node complains"),
            },
            ServerFrame::Ping(ping) if place == Place::Live => self.traffic.pinged(&ping),
            ServerFrame::Ping(ping) => self.answer_beside(connection, encoding, ping.seq),
            ServerFrame::Drain(drain) if place == Place::Live => self.drain(drain, now),
            // It is the last frame; the transport's own close adds nothing.
            ServerFrame::Disconnect(last) => self.over(connection, last.into(), now),
            ServerFrame::Connected(_) | ServerFrame::Drain(_) => {}
        }
    }

    fn channel_frame(&mut self, place: Place, frame: ServerFrame, arrival: Arrival, now: Time) {
        // On a connection that retires, the live one brings the same.
        if place == Place::Live
            && let Err(problem) = self.traffic.channel_frame(frame, arrival, now)
            && let Some(live) = self.live()
        {
            self.fault(live, &problem.to_string(), now);
        }
    }

    fn refused(&mut self, place: Place, id: RequestId, error: RequestError, now: Time) {
        let settled = self.traffic.failed(id, error, now);
        self.settled(place, settled, now);
    }

    /// What came of a request of the session itself.
    fn settled(&mut self, place: Place, settled: Option<Settled>, now: Time) {
        match settled {
            Some(Settled::TokenTaken { token, expires_at_ms }) if place == Place::Live => {
                self.token_taken(Some(token), Some(expires_at_ms), now);
            }
            Some(Settled::TokenRefused { token, error, is_own }) => {
                if !error.transient {
                    self.token_refused(Some(&token));
                }
                if is_own {
                    tracing::warn!(%error, "the token was not refreshed");
                    self.tokens.failed(now);
                }
            }
            _ => {}
        }
    }

    /// Shows that this client is there, on a connection that it has left.
    fn answer_beside(&mut self, connection: ConnectionId, encoding: Encoding, seq: u32) {
        // It can be encoded, and fits whatever the node takes.
        if let Ok(frame) = encoding.encode(&ClientFrame::Pong(Pong { seq })) {
            self.put_out(Output::Send { connection, frame, lane: Lane::Datagram });
        }
    }
}
