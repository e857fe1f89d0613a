//! `drain`: moves sessions off a node, and shows how far it is.

use super::{
    UsageError, complete,
    connection::{self, parse_secret, read_secret, secret_variable, variable},
    terminal::{one_line, print_line, tell},
    usage,
};
use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Url, header::HeaderValue};
use serde_json::{Value, json};
use skywave::{
    cause,
    cluster::moving::MAX_PER_SECOND,
    config::{Secret, nodes_url},
};
use std::{io::IsTerminal as _, path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// Where a node on this machine is asked.
const DEFAULT_ADMIN: &str = "http://localhost:8080";
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often it is asked how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// The node's admin listener; else SKYWAVE_ADMIN, else http://localhost:8080
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The node's auth.api_key; else SKYWAVE_API_KEY. Others on this machine can see a command line
    #[arg(long, value_name = "KEY", value_parser = parse_secret, conflicts_with = "api_key_file")]
    api_key: Option<Secret>,
    /// A file with the node's auth.api_key
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Move so many sessions, chosen by the node, which goes on taking new ones; else all, and it takes no more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sessions: Option<u64>,
    /// Move so many a second, such as 50/s; else all within half of the node's drain.deadline
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<u32>,
    /// Where to, https://HOST[:PORT][/PATH]; else to the nodes of the region that suit them
    #[arg(long, value_name = "URL", value_parser = nodes_url)]
    to: Option<String>,
    /// Wait until they have moved
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this long
    #[arg(long, value_name = "DURATION", default_value = "1h", requires = "wait", value_parser = skywave::config::parse_duration)]
    timeout: Duration,
    /// The node's process ends, with 0, once all have moved; with --wait it is told to then
    #[arg(long, conflicts_with = "sessions")]
    exit: bool,
}

fn parse_rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    number
        .filter(|rate| (1..=MAX_PER_SECOND).contains(rate))
        .ok_or_else(|| format!("expected 1/s … {MAX_PER_SECOND}/s"))
}

pub(crate) fn run(arguments: &DrainArguments) -> anyhow::Result<()> {
    let admin = Admin::find(arguments)?;
    complete(connection::runtime()?, async {
        let began = Instant::now();
        // A node that ends cannot be told from one to which the way is gone. So who waits has it end once all have moved.
        let order = order(arguments);
        let ordered = admin.call("drain", &with_exit(&order, arguments.exit && !arguments.wait)).await?;
        let count = number(&ordered, "sessions")?;
        if !arguments.wait {
            return print_line(&format!("{count} sessions are to move"));
        }
        admin.wait(count, began + arguments.timeout).await?;
        if arguments.exit {
            admin.call("drain", &with_exit(&order, true)).await?;
        }
        print_line(&format!("{count} sessions have moved in {:.1} s", began.elapsed().as_secs_f64()))
    })
}

fn order(arguments: &DrainArguments) -> Value {
    let mut order = json!({});
    if let Some(sessions) = arguments.sessions {
        order["sessions"] = json!(sessions);
    }
    if let Some(rate) = arguments.rate {
        order["sessions_per_second"] = json!(rate);
    }
    if let Some(url) = &arguments.to {
        order["url"] = json!(url);
    }
    order
}

fn with_exit(order: &Value, exit: bool) -> Value {
    let mut order = order.clone();
    if exit {
        order["exit"] = json!(true);
    }
    order
}

fn number(answer: &Value, field: &str) -> anyhow::Result<u64> {
    answer[field]
        .as_u64()
        .with_context(|| format!("the answer has no {field}: is this a node of the same version?"))
}

/// A node's admin listener.
struct Admin {
    http: reqwest::Client,
    url: Url,
    api_key: Option<Secret>,
}

/// Why a node gave no result.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("cannot reach the node at {host}: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("the node at {0} does not answer in time")]
    Late(String),
    #[error("{reason} ({status}): {message}")]
    Refused { status: u16, reason: String, message: String },
    #[error("what answers at {0} is no node")]
    NoNode(String),
}

impl Admin {
    fn find(arguments: &DrainArguments) -> Result<Self, UsageError> {
        let given = match &arguments.admin {
            Some(admin) => admin.clone(),
            None => variable("SKYWAVE_ADMIN")?.unwrap_or_else(|| DEFAULT_ADMIN.to_owned()),
        };
        let url =
            Url::parse(&given).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| usage("--admin: expected http://HOST[:PORT][/PATH]"))?;
        let from_file =
            arguments.api_key_file.as_deref().map(|path| read_secret(path, "API key")).transpose()?;
        let api_key = match arguments.api_key.clone().or(from_file) {
            Some(key) => Some(key),
            None => secret_variable("SKYWAVE_API_KEY")?,
        };
        if api_key.as_ref().is_some_and(|key| HeaderValue::from_str(key.expose()).is_err()) {
            return Err(usage("the API key holds what no header can: is it the right one?"));
        }
        let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy();
        // Without TLS there is nobody to be vouched for, and a container may hold no authorities that could.
        let http = if url.scheme() == "http" { http.tls_certs_only([]) } else { http };
        let http = http.build().map_err(|error| usage(reason(&error)))?;
        Ok(Self { http, url, api_key })
    }

    /// What may be shown of the address.
    fn host(&self) -> String {
        format!(
            "{}:{}",
            self.url.host_str().unwrap_or_default(),
            self.url.port_or_known_default().unwrap_or_default()
        )
    }

    /// Where a command is: below whatever path a proxy has the listener under.
    fn endpoint(&self, command: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/api/v1/{command}", self.url.path().trim_end_matches('/')));
        url
    }

    async fn call(&self, command: &str, body: &Value) -> Result<Value, CallError> {
        let unreachable = |error: reqwest::Error| {
            if error.is_timeout() {
                return CallError::Late(self.host());
            }
            CallError::Unreachable { host: self.host(), reason: reason(&error.without_url()) }
        };
        let no_node = || CallError::NoNode(self.host());
        let mut request = self
            .http
            .post(self.endpoint(command))
            .header("content-type", "application/json")
            .body(body.to_string());
        if let Some(key) = &self.api_key {
            request = request.header("x-api-key", key.expose());
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|_| no_node())?;
        if status.is_success() && answer.get("result").is_some() {
            return Ok(answer["result"].take());
        }
        let error = &answer["error"];
        let word = |field: &str| error[field].as_str().map(one_line);
        let (Some(reason), Some(message)) = (word("reason"), word("message")) else { return Err(no_node()) };
        Err(CallError::Refused { status: status.as_u16(), reason, message })
    }

    /// Waits until the sessions that were ordered to move have moved, and tells on stderr how far it is.
    async fn wait(&self, count: u64, deadline: Instant) -> anyhow::Result<()> {
        let mut progress = Progress { count, told: None };
        loop {
            let asked = timeout_at(deadline, self.call("info", &json!({}))).await;
            let left = match asked {
                Ok(Ok(info)) => number(&info, "moving")?,
                // It may have much to do: nothing is known yet.
                Ok(Err(CallError::Late(_) | CallError::Refused { status: 429, .. })) | Err(_) => {
                    progress.told.unwrap_or(count)
                }
                Ok(Err(error)) => return Err(error.into()),
            };
            progress.tell(left);
            if left == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{left} of {count} sessions have not moved in time");
            }
            sleep(POLL_INTERVAL.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// Why a request failed.
fn reason(error: &reqwest::Error) -> String {
    one_line(&cause::root(error).to_string())
}

/// How many are left, told when it changes.
struct Progress {
    count: u64,
    told: Option<u64>,
}

impl Progress {
    fn tell(&mut self, left: u64) {
        if self.told.replace(left) == Some(left) {
            return;
        }
        let line = format!("{} of {} sessions have moved", self.count.saturating_sub(left), self.count);
        if std::io::stderr().is_terminal() {
            // Over the line before.
            tell_over(&line, left == 0);
        } else {
            tell(&line);
        }
    }
}

fn tell_over(line: &str, last: bool) {
    use std::io::Write as _;
    let end = if last { "\n" } else { "" };
    // Where nobody listens, there is nobody to tell of that either.
    let _ = write!(std::io::stderr(), "\r\x1b[K{line}{end}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_below_the_path_of_the_address() {
        let endpoint = |url: &str| {
            let http = reqwest::Client::new();
            Admin { http, url: url.parse().unwrap(), api_key: None }.endpoint("drain").to_string()
        };
        assert_eq!(endpoint("http://localhost:8080"), "http://localhost:8080/api/v1/drain");
        for address in ["https://example.com/nodes/eu-1", "https://example.com/nodes/eu-1/"] {
            assert_eq!(endpoint(address), "https://example.com/nodes/eu-1/api/v1/drain");
        }
    }

    #[tokio::test]
    async fn a_node_that_answers_late_has_not_ended() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let http = reqwest::Client::builder().timeout(Duration::from_millis(200)).no_proxy().build().unwrap();
        let admin = Admin { http, url, api_key: None };
        let late = admin.call("info", &json!({})).await;
        assert!(matches!(late, Err(CallError::Late(_))), "{late:?}");
        drop(listener);
        let ended = admin.call("info", &json!({})).await;
        assert!(matches!(ended, Err(CallError::Unreachable { .. })), "{ended:?}");
    }

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!(parse_rate("50/s"), Ok(50));
        assert_eq!(parse_rate("50"), Ok(50));
        for wrong in ["", "0/s", "-1", "1.5/s", "50/m", "1000001/s"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
