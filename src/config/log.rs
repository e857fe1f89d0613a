//! `[log]`: what goes to stderr.

use super::section::Section;

/// `[log]`: what goes to stderr.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `level`: `off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,skywave::session=debug`.
    /// Default: `info`.
    pub level: String,
    /// `format`: `text` or `json`. Default: `text`.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            level: section.parsed("level", log_level).unwrap_or_else(|| "info".to_owned()),
            format: section.choice(
                "format",
                LogFormat::Text,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
        }
    }
}

fn log_level(text: &str) -> Result<String, String> {
    for directive in text.split(',') {
        // A bare word would be taken for the name of a module, which hides a misspelt level.
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !["off", "error", "warn", "info", "debug", "trace"].contains(&level) {
            return Err(format!("{level:?} is no level: off, error, warn, info, debug or trace"));
        }
    }
    let filter = tracing_subscriber::EnvFilter::builder().parse(text);
    filter.map(|_| text.to_owned()).map_err(|error| error.to_string())
}
