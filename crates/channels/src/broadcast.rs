//! A frame for many receivers, written at most once per form.

use bytes::Bytes;
use skywave_protocol::{
    ErrorCode, Form, ServerFrame,
    form::Outgoing,
    frame::{self, Error},
};
use std::sync::{Arc, OnceLock};

/// A publication on its way to its subscribers.
pub type Publication = Broadcast<frame::Publication>;
/// An event on its way to its subscribers.
pub type Event = Broadcast<frame::Event>;
/// A change of presence on its way to those who asked.
pub type PresenceChanged = Broadcast<frame::PresenceChanged>;

/// A frame and what it is in each form that somebody needed, shared by reference.
#[derive(Debug)]
pub struct Broadcast<F> {
    frame: F,
    written: OnceLock<Written>,
}

/// A frame in one form, and in those that were needed after it: few, of which mostly the first is asked for.
#[derive(Debug)]
struct Written {
    form: &'static Form,
    bytes: Bytes,
    next: OnceLock<Box<Written>>,
}

impl Written {
    fn new<'a>(frame: impl Into<Outgoing<'a>>, form: &'static Form) -> Self {
        Self { form, bytes: write(frame, form), next: OnceLock::new() }
    }
}

impl<F> Broadcast<F>
where
    for<'a> Outgoing<'a>: From<&'a F>,
{
    pub fn new(frame: F) -> Arc<Self> {
        Arc::new(Self { frame, written: OnceLock::new() })
    }

    pub fn frame(&self) -> &F {
        &self.frame
    }

    /// The frame in a form; the first caller pays for it, all share it.
    pub fn written(&self, form: &'static Form) -> &Bytes {
        let mut written = self.written.get_or_init(|| Written::new(&self.frame, form));
        while !written.form.is(form) {
            written = written.next.get_or_init(|| Box::new(Written::new(&self.frame, form)));
        }
        &written.bytes
    }
}

/// Writes a frame for one receiver.
pub fn write<'a>(frame: impl Into<Outgoing<'a>>, form: &Form) -> Bytes {
    form.write(frame.into()).unwrap_or_else(|error| {
        // Our own frames can always be written; should one not, its receiver is told rather than left waiting.
        tracing::error!(%error, "a frame could not be written");
        let told = ServerFrame::Error(Error::new(None, ErrorCode::Internal, "a frame could not be written"));
        form.write((&told).into()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::{Channel, Encoding, Json, Text, form};

    #[test]
    fn a_broadcast_reads_like_the_frame_and_is_written_once() {
        let publication = frame::Publication {
            channel: Channel::new("chat:1").unwrap(),
            origin: Text::new("eu").unwrap(),
            epoch: Text::new("e").unwrap(),
            offset: 1,
            time_ms: 2,
            key: None,
            user: None,
            data: Json::parse("[1]").unwrap().into(),
        };
        let broadcast = Broadcast::new(publication.clone());
        let text = broadcast.written(&form::JSON_TEXT);
        assert_eq!(Encoding::Json.decode_server(text), Ok(ServerFrame::Publication(publication)));
        for form in [&form::JSON_TEXT, &form::JSON, &form::MESSAGE_PACK] {
            assert_eq!(*broadcast.written(form), form.write(broadcast.frame().into()).unwrap());
            assert_eq!(broadcast.written(form).as_ptr(), broadcast.written(form).as_ptr());
        }
        assert_eq!(broadcast.written(&form::JSON_TEXT).as_ptr(), text.as_ptr());
    }
}
