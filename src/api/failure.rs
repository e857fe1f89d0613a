//! How a request fails: an HTTP status, and the protocol's error code as JSON.

use crate::broker::BrokerError;
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use skywave_protocol::ErrorCode;
use std::borrow::Cow;

/// The seconds after which a transient failure is worth another try.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request is not answered with a result.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    problem: Problem,
}

/// `error` in the answer.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    code: u16,
    reason: &'static str,
    message: Cow<'static, str>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a Problem,
}

impl Failure {
    /// A failure with the status that fits its code.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let problem = Problem { code: code.code(), reason: code.reason(), message: message.into() };
        Self { status: status(code), problem }
    }

    /// The same with a status that says more than its code does.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Without its status, as a part of an answer.
    pub(crate) fn into_problem(self) -> Problem {
        self.problem
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Unauthenticated | ErrorCode::TokenExpired => StatusCode::UNAUTHORIZED,
        ErrorCode::UnknownNamespace => StatusCode::NOT_FOUND,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotSubscribed | ErrorCode::AlreadySubscribed | ErrorCode::NotAvailable => {
            StatusCode::CONFLICT
        }
        ErrorCode::LimitReached => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Self {
        let mut response = json(failure.status, &Envelope { error: &failure.problem });
        if matches!(failure.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if failure.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 wants a challenge; this scheme has no registered name.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("X-API-Key"));
        }
        response
    }
}

/// An answer that no cache keeps.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(%error, "an answer of the HTTP API could not be written");
            let text =
                r#"{"error":{"code":100,"reason":"internal","message":"the answer could not be written"}}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, text.into())
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_try_again_is_told_when() {
        let retry_after = |code| {
            let response = Response::from(Failure::new(code, "not now"));
            response.headers().get(header::RETRY_AFTER).cloned()
        };
        assert_eq!(retry_after(ErrorCode::Unavailable), Some(RETRY_AFTER));
        assert_eq!(retry_after(ErrorCode::RateLimited), Some(RETRY_AFTER));
        assert_eq!(retry_after(ErrorCode::BadRequest), None);
        assert_eq!(retry_after(ErrorCode::Timeout), None);
    }
}
