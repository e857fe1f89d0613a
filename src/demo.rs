//! The demo page of a development node: a chat that shows its own connection.

use axum::{
    Json, Router,
    http::header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
    routing::{MethodRouter, get},
};
use serde::Serialize;
use skywave_protocol::{CONNECT_PATH, frame::Region};
use std::net::{Ipv4Addr, SocketAddr};

/// The page's files by path: content type and content.
const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("../demo/index.html")),
    ("/demo/style.css", "text/css; charset=utf-8", include_str!("../demo/style.css")),
    ("/demo/page.js", "text/javascript; charset=utf-8", include_str!("../demo/page.js")),
    ("/demo/pane.js", "text/javascript; charset=utf-8", include_str!("../demo/pane.js")),
    ("/demo/messages.js", "text/javascript; charset=utf-8", include_str!("../demo/messages.js")),
    ("/demo/frames.js", "text/javascript; charset=utf-8", include_str!("../demo/frames.js")),
    ("/demo/elements.js", "text/javascript; charset=utf-8", include_str!("../demo/elements.js")),
    ("/demo/skywave.js", "text/javascript; charset=utf-8", include_str!("../demo/skywave.js")),
    ("/demo/icon.svg", "image/svg+xml", include_str!("../demo/icon.svg")),
];

/// Where the node's other listeners are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub public: Option<SocketAddr>,
    pub plain: Option<SocketAddr>,
    pub certificate_sha256: Option<String>,
}

/// What the page has to know to connect, `/demo/config.json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PageConfig {
    /// Where WebTransport is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    webtransport: Option<String>,
    /// Where WebSocket is served without TLS: a browser would refuse the development certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    websocket: Option<String>,
    /// By which a browser knows the development certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    /// Where other regions serve WebTransport: the page learns of them once it is connected, and may go there.
    #[serde(skip)]
    others: Vec<String>,
}

impl PageConfig {
    pub(crate) fn new(places: &Places, regions: &[Region]) -> Self {
        let url = |scheme: &str, address| format!("{scheme}://{}{CONNECT_PATH}", reachable(address));
        Self {
            webtransport: places.public.map(|address| url("https", address)),
            websocket: places.plain.map(|address| url("ws", address)),
            certificate_sha256: places.certificate_sha256.clone(),
            others: regions.iter().map(|Region { url, .. }| format!("{url}{CONNECT_PATH}")).collect(),
        }
    }
}

/// Where this machine reaches a listener that may be bound to all of its addresses, which are those of IPv4 at least.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// Serves the page at `/`, its files and its configuration below `/demo/`.
pub(crate) fn router(config: &PageConfig) -> Router {
    let policy = content_security_policy(config);
    let config = config.clone();
    let configuration = get(async || ([(CACHE_CONTROL, "no-store")], Json(config)));
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, content_type, content)| {
            router.route(path, file(content_type, content, policy.clone()))
        })
        .route("/demo/config.json", configuration)
}

fn file(content_type: &'static str, content: &'static str, policy: String) -> MethodRouter {
    get(async move || {
        let headers = [
            (CONTENT_TYPE, content_type),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            // Embedded in the binary: another build has others at the same address.
            (CACHE_CONTROL, "no-cache"),
        ];
        (headers, [(CONTENT_SECURITY_POLICY, policy)], content)
    })
}

/// The page runs its own scripts and talks to this node and those of other regions, nothing else.
fn content_security_policy(config: &PageConfig) -> String {
    let own = [&config.webtransport, &config.websocket].into_iter().flatten();
    let listeners: String = own.chain(&config.others).map(|url| format!(" {url}")).collect();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{listeners}; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        body::Body,
        http::{HeaderMap, Request, StatusCode},
    };
    use http_body_util::BodyExt as _;
    use hyper_util::service::TowerToHyperService;
    use skywave_protocol::Text;

    async fn fetch(places: &Places, path: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let service = TowerToHyperService::new(router(&PageConfig::new(places, &[])));
        let response = hyper::service::Service::call(&service, request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.into()).unwrap())
    }

    fn places() -> Places {
        Places {
            public: Some("[::]:4433".parse().unwrap()),
            plain: Some("[::1]:8081".parse().unwrap()),
            certificate_sha256: Some("ab".repeat(32)),
        }
    }

    #[tokio::test]
    async fn the_page_learns_where_the_listeners_are() {
        let (status, headers, body) = fetch(&places(), "/demo/config.json").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        let config: serde_json::Value = serde_json::from_str(&body).unwrap();
        let expected = serde_json::json!({
            "webtransport": "https://127.0.0.1:4433/v1/connect",
            "websocket": "ws://[::1]:8081/v1/connect",
            "certificate_sha256": "ab".repeat(32),
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn the_page_may_reach_the_other_regions() {
        let us = Region { name: Text::new("us").unwrap(), url: "https://localhost:4452".into() };
        let config = PageConfig::new(&places(), &[us]);
        let policy = content_security_policy(&config);
        assert!(policy.contains(" https://localhost:4452/v1/connect;"), "{policy}");
    }

    #[tokio::test]
    async fn a_listener_that_is_off_is_left_out() {
        let nowhere = Places { public: None, plain: None, certificate_sha256: None };
        let (_, _, body) = fetch(&nowhere, "/demo/config.json").await;
        assert_eq!(body, "{}");
    }

    #[tokio::test]
    async fn every_file_that_the_page_names_is_served() {
        let names = references(include_str!("../demo/index.html"), "\"/demo/");
        assert!(names.len() >= 3, "{names:?}");
        for name in names {
            assert_eq!(fetch(&places(), &format!("/demo/{name}")).await.0, StatusCode::OK, "{name}");
        }
    }

    #[tokio::test]
    async fn every_module_that_a_script_imports_is_served() {
        for (path, _, content) in FILES {
            for name in references(content, " from './") {
                let found = fetch(&places(), &format!("/demo/{name}")).await.0;
                assert_eq!(found, StatusCode::OK, "{path} imports {name}");
            }
        }
    }

    /// What follows `before` in a text, up to the closing quote.
    fn references<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split(['"', '\'']).next()).collect()
    }

    #[tokio::test]
    async fn the_page_may_only_run_its_own_scripts_and_reach_this_node() {
        let (status, headers, body) = fetch(&places(), "/").await;
        assert_eq!(status, StatusCode::OK);
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(
            policy
                .contains("connect-src 'self' https://127.0.0.1:4433/v1/connect ws://[::1]:8081/v1/connect;"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!body.contains("<script>") && !body.contains(" style=") && !body.contains(" onclick="));
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
