//! Who may use the admin listener: those with the key, and no web page that merely found it.

use super::{Api, failure::Failure};
use crate::refusals::Refusal;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    extract::{Request, State},
    http::{StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use skywave_protocol::ErrorCode;
use std::net::IpAddr;

/// Refuses requests without the configured key. Where none is configured the listener is on loopback, or the node
/// runs with `--dev`.
pub(crate) async fn require_key(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Some(key) = &api.node.config.auth.api_key {
        let given = request.headers().get("x-api-key").map_or(&b""[..], |value| value.as_bytes());
        if verify_slices_are_equal(given, key.expose().as_bytes()).is_err() {
            api.node.refused(Refusal::ApiKey);
            return Failure::new(ErrorCode::Unauthenticated, "the header X-API-Key lacks the key").into();
        }
    }
    next.run(request).await
}

/// Where nothing but loopback keeps strangers out, refuses requests for any other host. Otherwise a web page could let
/// its own name resolve to 127.0.0.1, and talk to the node as if it were its own server (DNS rebinding).
pub(crate) async fn require_local_host(State(api): State<Api>, request: Request, next: Next) -> Response {
    let config = &api.node.config;
    let relies_on_loopback = config.dev || config.auth.api_key.is_none();
    if relies_on_loopback && !is_for_local_host(&request) {
        api.node.refused(Refusal::Host);
        let message =
            "without an API key and with --dev, only requests to localhost or a loopback address are taken";
        return Failure::new(ErrorCode::Forbidden, message).with_status(StatusCode::FORBIDDEN).into();
    }
    next.run(request).await
}

fn is_for_local_host(request: &Request) -> bool {
    let header = || request.headers().get(header::HOST)?.to_str().ok()?.parse().ok();
    let authority = request.uri().authority().cloned().or_else(header);
    authority.is_some_and(|authority: Authority| is_local_host(authority.host()))
}

fn is_local_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(uri: &str, host: Option<&str>) -> Request {
        let builder = axum::http::Request::builder().uri(uri);
        host.into_iter()
            .fold(builder, |builder, host| builder.header("host", host))
            .body(Body::empty())
            .unwrap()
    }

    #[test]
    fn localhost_and_loopback_addresses_are_local_with_any_port() {
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.8.8.8:1", "[::1]:8080", "[::ffff:127.0.0.1]"]
        {
            assert!(is_for_local_host(&request("/", Some(host))), "{host}");
        }
    }

    #[test]
    fn names_that_merely_look_local_are_not() {
        let strange = [
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com:8080",
            "localhost.",
            "0.0.0.0:8080",
            "10.0.0.1",
            "[::]:8080",
            "",
            "[::1",
        ];
        for host in strange {
            assert!(!is_for_local_host(&request("/", Some(host))), "{host}");
        }
        assert!(!is_for_local_host(&request("/", None)));
    }

    #[test]
    fn a_whole_uri_counts_for_more_than_the_host_header() {
        assert!(!is_for_local_host(&request("http://example.com/", Some("localhost"))));
        assert!(is_for_local_host(&request("http://localhost/", Some("example.com"))));
    }
}
