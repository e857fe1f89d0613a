//! `doctor`: how a node can be reached from here.

mod certificate;
mod network;
mod report;
mod session;

use super::{
    complete,
    connection::{self, Address, TokenArguments, TrustArguments, is_untrusted},
    terminal::{is_closed_pipe, milliseconds, one_line, print_line},
    usage,
};
use certificate::Certificate;
use clap::Args;
use report::{Check, Report, Verdict};
use session::{Answer, Failure, Opened};
use skywave::config::Secret;
use skywave_client::{
    CertificateCheck, TransportKind,
    transport::{DialError, DialOptions, Dialer},
    url::NodeUrl,
};
use std::process::ExitCode;

/// The clocks may differ by so many milliseconds before tokens that one side makes look expired to the other.
const MAX_CLOCK_OFFSET_MS: i64 = 5_000;
/// A certificate that ends within so many days is mentioned.
const FEW_DAYS: i64 = 3;

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Where the node is [default: SKYWAVE_URL, else https://localhost:4433]
    url: Option<String>,
    #[command(flatten)]
    token: TokenArguments,
    #[command(flatten)]
    trust: TrustArguments,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Whatever fails here ends with the code of wrong usage, which says that no transport works, as far as is known. The
/// code of other failures would say that one transport works.
pub(crate) fn run(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    Ok(examine(arguments).map_err(|error| usage(format!("{error:#}")))?)
}

fn examine(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let Address { url, .. } = Address::find(arguments.url.as_deref())?;
    let patient = Patient { check: arguments.trust.check(&url)?, token: arguments.token.find()?, url };
    let report = complete(connection::runtime()?, patient.examine())?;
    let text = if arguments.json { one_line(&serde_json::to_string(&report)?) } else { report.to_string() };
    match print_line(text.trim_end()) {
        // Whoever read has seen enough.
        Err(error) if is_closed_pipe(&error) => {}
        printed => printed?,
    }
    Ok(ExitCode::from(report.verdict.exit_code()))
}

/// The node to look at, and how.
struct Patient {
    url: NodeUrl,
    check: CertificateCheck,
    token: Option<Secret>,
}

impl Patient {
    async fn examine(&self) -> anyhow::Result<Report> {
        let mut report = Report::new(&self.url);
        let addresses = match network::resolve(&self.url).await {
            Ok(addresses) => addresses,
            Err(error) => {
                let advice = "check the host's name and this machine's DNS";
                report.add(Check::failed("address", error, advice));
                return Ok(report);
            }
        };
        let listed: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        report.add(Check::passed("address", listed.join(", ")));
        self.examine_tcp(&addresses, &mut report).await?;
        self.examine_transports(&mut report).await?;
        Ok(report)
    }

    /// What can be seen below the protocol: the port, the certificate, the clock.
    async fn examine_tcp(
        &self,
        addresses: &[std::net::SocketAddr],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let reached = match network::connect(addresses).await {
            Ok(reached) => reached,
            Err(error) => {
                let advice = "is the node running, is the port the public listener's, and does a firewall let it through?";
                report.add(Check::failed("tcp", error, advice));
                return Ok(());
            }
        };
        let text = format!("{} in {}", reached.address, milliseconds(reached.took));
        report.add(Check::passed("tcp", text));
        let clock = if self.url.is_tls() {
            match certificate::look(&self.url, reached.stream).await {
                Ok((certificate, stream)) => {
                    report.add(self.judge(&certificate));
                    report.certificate = Some(certificate);
                    network::server_time(&self.url, stream).await
                }
                Err(error) => {
                    let advice = "what listens there speaks no TLS: for a node's plain listener the address begins with http://";
                    report.add(Check::failed("certificate", error, advice));
                    return Ok(());
                }
            }
        } else {
            report.add(Check::skipped("certificate", "the address is without TLS"));
            network::server_time(&self.url, reached.stream).await
        };
        report.clock_offset_ms = clock.as_ref().ok().copied();
        report.add(match clock {
            Ok(offset_ms) => judge_clock(offset_ms),
            Err(error) => Check::skipped("clock", error),
        });
        Ok(())
    }

    /// Whether the certificate is one to trust, by the flags that were given.
    fn judge(&self, certificate: &Certificate) -> Check {
        let told = certificate.to_string();
        let check = match (&self.check, &certificate.distrusted) {
            (CertificateCheck::Insecure, None) | (CertificateCheck::WebPki, None) => {
                Check::passed("certificate", format!("{told}; trusted"))
            }
            (CertificateCheck::Insecure, Some(why)) => Check::passed(
                "certificate",
                format!("{told}; not trusted ({why}), left unchecked by --insecure"),
            ),
            (CertificateCheck::WebPki, Some(why)) => {
                let advice = connection::trust_advice(&self.url, &self.check);
                Check::failed("certificate", format!("{told}; not trusted: {why}"), advice)
            }
            (CertificateCheck::Sha256(digests), _) if digests.contains(&certificate.digest) => {
                Check::passed("certificate", format!("{told}; trusted by --certificate-sha256"))
            }
            (CertificateCheck::Sha256(_), _) => {
                let advice = connection::trust_advice(&self.url, &self.check);
                Check::failed("certificate", format!("{told}; not the one to be trusted"), advice)
            }
        };
        if check.has_passed() && certificate.days_left < FEW_DAYS {
            return check.with_advice("renew the certificate soon");
        }
        check
    }

    fn dialer(&self, http2: bool) -> anyhow::Result<Dialer> {
        let options = DialOptions { certificate: self.check.clone(), http2, ..DialOptions::default() };
        Ok(Dialer::new(options)?)
    }

    /// Opens a session over each transport, one after the other, so that none disturbs another's times.
    async fn examine_transports(&self, report: &mut Report) -> anyhow::Result<()> {
        let (plain, http2) = (self.dialer(false)?, self.dialer(true)?);
        let token = self.token.as_ref();
        let webtransport = session::open(&plain, &self.url, TransportKind::WebTransport, token).await;
        report.add(self.judge_udp(&webtransport));
        report.add(self.judge_transport("webtransport", &webtransport));
        let websocket = session::open(&plain, &self.url, TransportKind::WebSocket, token).await;
        report.add(self.judge_transport("websocket", &websocket));
        let over_http2 = session::open(&http2, &self.url, TransportKind::WebSocket, token).await;
        report.add(self.judge_transport("websocket_http2", &over_http2));
        report.verdict = Verdict::of(webtransport.is_ok(), websocket.is_ok() || over_http2.is_ok());
        self.compare_certificates(&webtransport, report);
        report.transports = [
            ("webtransport", webtransport.as_ref().ok()),
            ("websocket", websocket.as_ref().ok()),
            ("websocket_http2", over_http2.as_ref().ok()),
        ]
        .map(|(name, opened)| (name, opened.map(|opened| opened.times.clone())))
        .into();
        let answers: Vec<Answer> =
            [webtransport, websocket, over_http2].into_iter().flatten().map(|opened| opened.answer).collect();
        self.judge_node(answers, report);
        Ok(())
    }

    fn judge_udp(&self, webtransport: &Result<Opened, Failure>) -> Check {
        let port = self.url.port();
        match webtransport {
            Err(Failure::Dial(DialError::NotAllowed { .. })) => Check::skipped(
                "udp",
                "the address allows WebSocket alone; with https:// both transports are tried",
            ),
            Err(Failure::Dial(DialError::Unreachable)) => Check::failed(
                "udp",
                format!("nothing listens on UDP port {port}"),
                format!(
                    "a node serves UDP and TCP on the same port: where TCP works, map and forward UDP {port} too, in \
                     containers and load balancers"
                ),
            ),
            Err(Failure::Dial(DialError::TimedOut)) => Check::failed(
                "udp",
                format!("no answer on UDP port {port} within {} s", session::TIMEOUT.as_secs()),
                format!("a firewall or a load balancer drops it: let UDP {port} through, both ways"),
            ),
            Err(Failure::Dial(error @ (DialError::Resolve(_) | DialError::Connect(_)))) => {
                Check::failed("udp", error, "see whether this machine has a route to the address")
            }
            // Whatever went wrong after that, the other side has answered.
            Err(_) | Ok(_) => Check::passed("udp", format!("port {port} is let through")),
        }
    }

    fn judge_transport(&self, name: &'static str, outcome: &Result<Opened, Failure>) -> Check {
        let error = match outcome {
            Ok(opened) => return Check::passed(name, opened.times.to_string()),
            Err(error) => error,
        };
        let advice = match error {
            Failure::Dial(DialError::NotAllowed { .. }) => {
                return Check::skipped(name, "the address allows WebSocket alone");
            }
            Failure::Dial(error) if is_untrusted(error) => "see certificate".to_owned(),
            Failure::Dial(DialError::Refused { status }) => format!(
                "HTTP status {status} is no node's answer to a WebSocket, or it does not allow this one: what stands \
                 before the node has to let WebSocket through"
            ),
            Failure::Dial(DialError::Http2(_)) => {
                "HTTP/2 WebSocket (RFC 8441) is a bonus: clients do without it, by HTTP/1.1".to_owned()
            }
            Failure::Dial(DialError::Unreachable | DialError::TimedOut) if name == "webtransport" => {
                "see udp".to_owned()
            }
            Failure::Dial(DialError::Connect(_)) => "see tcp".to_owned(),
            _ => "see the node's log; is it a Skywave node at all?".to_owned(),
        };
        Check::failed(name, error, advice)
    }

    /// Says so when UDP and TCP end at different certificates, as behind a balancer that takes one of them.
    fn compare_certificates(&self, webtransport: &Result<Opened, Failure>, report: &mut Report) {
        let (Ok(Opened { certificate: Some(over_udp), .. }), Some(over_tcp)) =
            (webtransport, &report.certificate)
        else {
            return;
        };
        let digest = certificate::digest(over_udp);
        if digest != over_tcp.digest {
            let text =
                format!("WebTransport shows another certificate, with SHA-256 {}", certificate::hex(&digest));
            report.add(Check::passed("certificate", text).with_advice("that is fine, if you meant it so"));
        }
    }

    /// What the node said of itself, to the first transport that it let in.
    fn judge_node(&self, answers: Vec<Answer>, report: &mut Report) {
        let mut refused = None;
        for answer in answers {
            match answer {
                Answer::Connected(node) => {
                    report.add(Check::passed("node", &node));
                    report.node = Some(node);
                    return;
                }
                Answer::Refused { code, reason, message } => {
                    refused = refused.or(Some((code, reason, message)));
                }
            }
        }
        report.add(match refused {
            Some((code, reason, message)) => {
                let advice = connection::refusal_advice(code, self.token.is_some());
                let advice = advice.unwrap_or("the node is there, but takes no session now: see its log");
                let message = message.map(|message| format!(": {message}")).unwrap_or_default();
                Check::failed("node", format!("it refuses the session: {reason} ({code}){message}"), advice)
            }
            None => Check::skipped("node", "no session, so it said nothing"),
        });
    }
}

fn judge_clock(offset_ms: i64) -> Check {
    let seconds = offset_ms.abs() / 1000;
    let which = if offset_ms < 0 { "behind" } else { "ahead of" };
    if offset_ms.abs() <= MAX_CLOCK_OFFSET_MS {
        // The server tells whole seconds only.
        return Check::passed("clock", "the node's agrees with this machine's, as far as whole seconds tell");
    }
    Check::failed(
        "clock",
        format!("the node's is {seconds} s {which} this machine's"),
        "set both by NTP: tokens and certificates are judged by them",
    )
}
