//! Checks of single texts: names, URLs, origins. The error says what was expected.
use std::net::IpAddr;

use reqwest::Url;

use super::section::is_loopback;

/// A name of 1 … `max_bytes` characters that is safe in keys, labels and URLs.
pub(super) fn identifier(text: &str, max_bytes: usize, wide: bool) -> Result<String, String> {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'-' | b'_')
            || wide && (byte.is_ascii_uppercase() || byte == b'.')
    };
    if (1..=max_bytes).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    let alphabet = if wide { "A-Z a-z 0-9 . _ -" } else { "a-z 0-9 _ -" };
    Err(format!("expected 1 … {max_bytes} of {alphabet}"))
}

/// `https://HOST[:PORT]`, without a trailing slash.
pub(crate) fn https_origin(text: &str) -> Result<String, &'static str> {
    let expected = "expected https://HOST[:PORT] without a path";
    let url = Url::parse(text).map_err(|_| expected)?;
    if url.scheme() == "https" && is_bare(&url) {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(expected)
    }
}

/// The origin of a web page as browsers send it: `https://HOST[:PORT]`, or `http://…`.
pub(super) fn web_origin(text: &str) -> Result<String, &'static str> {
    let expected = "expected the origin of a page, such as \"https://app.example.com\"";
    let url = Url::parse(text).map_err(|_| expected)?;
    if matches!(url.scheme(), "https" | "http") && is_bare(&url) {
        Ok(url.origin().ascii_serialization())
    } else {
        Err(expected)
    }
}

fn is_bare(url: &Url) -> bool {
    url.has_host()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

/// `https://…`, or `http://…` on this machine.
pub(super) fn jwks_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "expected an https:// URL")?;
    let is_local = url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(is_loopback)
    });
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_local => Ok(url),
        "http" => Err("keys are fetched over plain http from loopback only: use https"),
        _ => Err("expected an https:// URL"),
    }
}
