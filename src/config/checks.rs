//! Checks of single texts: names, URLs, origins. The error says what was expected.

use super::section::is_loopback;
use reqwest::Url;
use skywave_protocol::CONNECT_PATH;
use std::net::IpAddr;

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

/// `https://HOST[:PORT][/PATH]`. Nodes have [`CONNECT_PATH`] below it, which may be given or left out. One place gets
/// one text: in lower case, without the default port, without a slash at the end, without what is below PATH.
///
/// # Errors
/// What was expected.
pub fn nodes_url(text: &str) -> Result<String, &'static str> {
    let expected = "expected https://HOST[:PORT][/PATH]";
    let url = Url::parse(text).map_err(|_| expected)?;
    if url.scheme() != "https" || !url.has_host() || url.query().is_some() || has_more_than_a_place(&url) {
        return Err(expected);
    }
    let path = url.path().trim_end_matches('/');
    let base = path.strip_suffix(CONNECT_PATH).unwrap_or(path).trim_end_matches('/');
    Ok(url.origin().ascii_serialization() + base)
}

/// The path in what [`nodes_url`] gave: empty, or from its first slash on.
pub(super) fn base_path(url: &str) -> &str {
    let place = url.strip_prefix("https://").unwrap_or(url);
    place.find('/').map_or("", |at| &place[at..])
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
    url.has_host() && url.path() == "/" && url.query().is_none() && !has_more_than_a_place(url)
}

fn has_more_than_a_place(url: &Url) -> bool {
    url.fragment().is_some() || !url.username().is_empty() || url.password().is_some()
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
