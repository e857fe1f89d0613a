//! What the doctor found, for people and as JSON.

use super::{
    certificate::Certificate,
    session::{NodeSays, Times},
};
use crate::cli::terminal::one_line;
use serde::Serialize;
use skywave_client::url::NodeUrl;
use std::{collections::BTreeMap, fmt};

/// All findings.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    url: String,
    pub verdict: Verdict,
    checks: Vec<Check>,
    pub certificate: Option<Certificate>,
    /// By how much the node's clock is ahead of this machine's.
    pub clock_offset_ms: Option<i64>,
    /// The times of each transport; none for one that does not work.
    pub transports: BTreeMap<&'static str, Option<Times>>,
    pub node: Option<Box<NodeSays>>,
}

/// Which transports work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Both,
    OnlyWebsocket,
    OnlyWebtransport,
    Neither,
}

impl Verdict {
    pub(crate) fn of(webtransport: bool, websocket: bool) -> Self {
        match (webtransport, websocket) {
            (true, true) => Self::Both,
            (false, true) => Self::OnlyWebsocket,
            (true, false) => Self::OnlyWebtransport,
            (false, false) => Self::Neither,
        }
    }

    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Both => 0,
            Self::OnlyWebsocket | Self::OnlyWebtransport => 1,
            Self::Neither => 2,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Both => "Both transports work.",
            Self::OnlyWebsocket => "Only the fallback, WebSocket, works.",
            Self::OnlyWebtransport => "Only WebTransport works; there is no fallback where UDP is blocked.",
            Self::Neither => "No transport works.",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    name: &'static str,
    outcome: Outcome,
    detail: String,
    advice: Option<String>,
}

impl Check {
    fn new(name: &'static str, outcome: Outcome, detail: impl fmt::Display) -> Self {
        Self { name, outcome, detail: one_line(&detail.to_string()), advice: None }
    }

    pub(crate) fn passed(name: &'static str, detail: impl fmt::Display) -> Self {
        Self::new(name, Outcome::Passed, detail)
    }

    pub(crate) fn failed(name: &'static str, detail: impl fmt::Display, advice: impl Into<String>) -> Self {
        Self::new(name, Outcome::Failed, detail).with_advice(advice)
    }

    /// Not looked at, and why.
    pub(crate) fn skipped(name: &'static str, why: impl fmt::Display) -> Self {
        Self::new(name, Outcome::Skipped, why)
    }

    pub(crate) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(one_line(&advice.into()));
        self
    }

    pub(crate) fn has_passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }
}

impl Report {
    /// Nothing found yet.
    pub(crate) fn new(url: &NodeUrl) -> Self {
        Self {
            url: url.to_string(),
            verdict: Verdict::Neither,
            checks: Vec::new(),
            certificate: None,
            clock_offset_ms: None,
            transports: BTreeMap::new(),
            node: None,
        }
    }

    pub(crate) fn add(&mut self, check: Check) {
        self.checks.push(check);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}\n", self.url)?;
        for Check { name, outcome, detail, advice } in &self.checks {
            let mark = match outcome {
                Outcome::Passed => '✓',
                Outcome::Failed => '✗',
                Outcome::Skipped => '–',
            };
            writeln!(formatter, "{mark} {name:<16} {detail}")?;
            if let Some(advice) = advice {
                writeln!(formatter, "  {:<16} → {advice}", "")?;
            }
        }
        writeln!(formatter, "\n{}", self.verdict.describe())
    }
}
