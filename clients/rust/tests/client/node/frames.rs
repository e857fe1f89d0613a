//! The frames that a node sends, with what does not matter filled in.

use skywave_client::{Channel, Json, Payload, Position};
use skywave_protocol::{
    ErrorCode, Point, RequestId, ServerFrame,
    frame::{
        self, Connect, Connected, Heartbeat, Limits, Publication, Publish, Published, SessionId, Subscribed,
    },
    position::{Epoch, Origin},
};

pub fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

pub fn json(value: &str) -> Payload {
    Json::parse(value).unwrap().into()
}

pub fn connected_frame(connect: &Connect) -> Connected {
    Connected {
        id: connect.id,
        session: SessionId::new("s1").unwrap(),
        resume: "secret".into(),
        node: "fake".into(),
        region: Origin::new("eu").unwrap(),
        user: None,
        expires_at_ms: None,
        resumed: connect.resume.is_some(),
        heartbeat: Heartbeat { interval_ms: 60_000, timeout_ms: 10_000 },
        limits: Limits {
            frame_bytes: 65536,
            channels_per_session: 0,
            requests_per_second: 0,
            publishes_per_second: 0,
            idempotency_ms: 0,
        },
        regions: Vec::new(),
        prefer_url: None,
    }
}

pub fn connected(connect: &Connect) -> ServerFrame {
    ServerFrame::Connected(connected_frame(connect))
}

/// The position after `offset` of origin `eu`; 0 is an empty channel.
pub fn position(offset: u64) -> Position {
    if offset == 0 {
        return Position::new();
    }
    [(Origin::new("eu").unwrap(), Point { epoch: Epoch::new("e1").unwrap(), offset })].into_iter().collect()
}

pub fn subscribed(id: Option<RequestId>, name: &str, offset: u64, recovered: Option<bool>) -> ServerFrame {
    ServerFrame::Subscribed(Subscribed {
        id,
        channel: channel(name),
        subscription: None,
        position: position(offset),
        recovered,
        reason: None,
        recovers: None,
        presence: None,
    })
}

/// `subscribed` of a node that numbers its subscriptions.
pub fn subscribed_as(subscription: u64, id: Option<RequestId>, name: &str, offset: u64) -> ServerFrame {
    match subscribed(id, name, offset, None) {
        ServerFrame::Subscribed(frame) => {
            ServerFrame::Subscribed(Subscribed { subscription: Some(subscription), ..frame })
        }
        other => other,
    }
}

/// Whose the stream is that begins with it.
pub fn stream_of(subscription: u64, name: &str) -> ServerFrame {
    ServerFrame::Stream(frame::Stream { channel: channel(name), subscription })
}

/// The answer to `unsubscribe`.
pub fn unsubscribed(request: &frame::Unsubscribe) -> ServerFrame {
    ServerFrame::Unsubscribed(frame::Unsubscribed {
        id: Some(request.id),
        channel: request.channel.clone(),
        code: None,
        reason: None,
    })
}

pub fn refusal(id: RequestId, code: ErrorCode) -> ServerFrame {
    ServerFrame::Error(frame::Error::new(Some(id), code, "no"))
}

pub fn publication(name: &str, offset: u64) -> ServerFrame {
    keyed_publication(name, offset, None)
}

pub fn keyed_publication(name: &str, offset: u64, key: Option<&str>) -> ServerFrame {
    ServerFrame::Publication(Publication {
        channel: channel(name),
        origin: Origin::new("eu").unwrap(),
        epoch: Epoch::new("e1").unwrap(),
        offset,
        time_ms: 0,
        key: key.map(|key| frame::Key::new(key).unwrap()),
        user: None,
        data: json(&offset.to_string()),
    })
}

pub fn published(publish: &Publish, offset: u64) -> ServerFrame {
    ServerFrame::Published(Published {
        id: publish.id,
        channel: publish.channel.clone(),
        origin: Origin::new("eu").unwrap(),
        epoch: Epoch::new("e1").unwrap(),
        offset,
    })
}
