//! Answers to HTTP requests.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use http_body_util::Full;

/// All of them, so that one whose body goes on as long as its session is changed for here.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What a request is refused with.
#[derive(Debug, Clone, Copy)]
pub struct Rejection {
    pub status: StatusCode,
    /// For a developer.
    message: &'static str,
}

impl Rejection {
    pub fn new(status: StatusCode, message: &'static str) -> Self {
        Self { status, message }
    }
}

impl From<Rejection> for Answer {
    fn from(Rejection { status, message }: Rejection) -> Self {
        let mut answer = text(status, message);
        if status == StatusCode::UPGRADE_REQUIRED {
            answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        answer
    }
}

pub(crate) fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
