//! What goes to the terminal: lines on stdout, and words for the person on stderr.

use anyhow::Context as _;
use std::{
    io::{ErrorKind, Write as _},
    time::Duration,
};
use time::OffsetDateTime;

/// Prints to stdout. A closed pipe is an error like any other, not a panic.
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to stdout")
}

/// Whether `error` says that nobody reads stdout any more, as after `| head`.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Tells the person something on stderr. Where nobody listens, there is nobody to tell of that either.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// `text` on one line, and without anything that a terminal would obey: what comes from a node may say anything.
///
/// White space that breaks lines becomes a space, other control characters (C0, C1) and those that turn or break lines
/// (Unicode's bidirectional controls and separators) become JSON's `\uXXXX`. So JSON stays the same JSON, since it can
/// hold the former only between its values and the latter only in its strings.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => line.push(' '),
            character if is_unsafe(character) => line.push_str(&format!("\\u{:04x}", u32::from(character))),
            character => line.push(character),
        }
    }
    line
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Milliseconds since 1970 as RFC 3339 in UTC; the bare number where there is no such date.
pub(crate) fn timestamp(time_ms: u64) -> String {
    match OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000) {
        Ok(moment) => {
            let (hour, minute, second, milli) = moment.to_hms_milli();
            let date = moment.date();
            format!("{date}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
        }
        Err(_) => time_ms.to_string(),
    }
}

/// A time as people read it.
pub(crate) fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(one_line("a\u{1b}[2J\u{9b}\u{7f}\u{202e}b\nc"), "a\\u001b[2J\\u009b\\u007f\\u202eb c");
        assert_eq!(one_line("grüße 世界"), "grüße 世界");
    }

    #[test]
    fn json_stays_the_same_json() {
        let text = "{\r\n\t\"a\": \"\u{85}\u{2028}x\" }";
        let line = one_line(text);
        assert!(!line.contains(['\n', '\u{85}', '\u{2028}']));
        let value = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&line), value(text));
    }

    #[test]
    fn a_time_is_a_date_in_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(1_784_716_503_007), "2026-07-22T10:35:03.007Z");
        assert_eq!(timestamp(u64::MAX), u64::MAX.to_string());
    }
}
