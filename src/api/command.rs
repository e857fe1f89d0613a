//! From a POST with a JSON body to a command and its answer.

use super::{
    Api,
    failure::{Failure, json},
};
use crate::node::Node;
use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::{MethodRouter, post},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use skywave_protocol::ErrorCode;
use std::time::Duration;

/// The largest body of a request that carries no payload: a position with all its origins fits.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// So much of a body that is too large is read and thrown away, so that its sender gets to read why.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;
/// How long a command may wait until others are done.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// A request of the HTTP API. Its fields are those of the JSON body; unknown ones are refused, so that a typo is told.
pub(crate) trait Command: DeserializeOwned + Send + 'static {
    type Answer: Serialize;

    /// The largest body of such a request.
    fn max_body_bytes(_node: &Node) -> usize {
        MAX_BODY_BYTES
    }

    fn run(self, api: &Api) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

#[derive(Serialize)]
struct Envelope<T> {
    result: T,
}

/// Takes `C` by POST.
pub(crate) fn command<C: Command>() -> MethodRouter<Api> {
    post(answer::<C>)
}

async fn answer<C: Command>(State(api): State<Api>, request: Request) -> Response {
    match run::<C>(&api, request).await {
        Ok(result) => json(StatusCode::OK, &Envelope { result }),
        Err(failure) => failure.into(),
    }
}

async fn run<C: Command>(api: &Api, request: Request) -> Result<C::Answer, Failure> {
    if !is_json(request.headers()) {
        // A form on a foreign page cannot send this type.
        return Err(Failure::new(ErrorCode::BadRequest, "the body has to be of the type application/json")
            .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let _turn = api.turns.take(TURN_TIMEOUT).await?;
    let reading = read(request.into_body(), C::max_body_bytes(&api.node));
    let body = tokio::time::timeout(BODY_TIMEOUT, reading).await.map_err(|_| {
        Failure::new(ErrorCode::Timeout, "the body did not arrive in time")
            .with_status(StatusCode::REQUEST_TIMEOUT)
    })??;
    let command: C = parse(&body)?;
    tokio::time::timeout(COMMAND_TIMEOUT, command.run(api)).await.map_err(|_| {
        Failure::new(ErrorCode::Timeout, "no answer in time; the command may have had its effect")
    })?
}

fn parse<C: Command>(body: &[u8]) -> Result<C, Failure> {
    // serde would take an array for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Failure::new(ErrorCode::BadRequest, "the body has to be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| Failure::new(ErrorCode::BadRequest, error.to_string()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

async fn read(mut body: Body, max_bytes: usize) -> Result<Bytes, Failure> {
    let most = max_bytes.saturating_add(MAX_DISCARDED_BYTES);
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut bytes = BytesMut::new();
    let mut received = 0usize;
    while announced <= most
        && received <= most
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|_| Failure::new(ErrorCode::BadRequest, "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received <= max_bytes {
            bytes.extend_from_slice(&data);
        }
    }
    if received.max(announced) > max_bytes {
        let message = format!("the body has more than {max_bytes} bytes");
        return Err(Failure::new(ErrorCode::LimitReached, message));
    }
    Ok(bytes.freeze())
}
