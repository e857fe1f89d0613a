//! Asks the servers of a cluster which of them has which slots.

use crate::{
    dialling::{Contact, Dialling},
    errors::ConnectError,
    hedging,
    layout::Layout,
    ownership::Ownership,
    reply::{self, Malformed},
    secret::Secret,
    server::{Place, Server},
    slot::{SLOTS, Slots},
};
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use redis::Value;
use skywave_host::Host;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// An answer serves all who ask within so long.
const FRESH: Duration = Duration::from_millis(50);
/// The most masters of a cluster, as its specification recommends.
const MAX_SERVERS: usize = 1_000;
/// The most servers that are asked before it is given up for now.
const MAX_ASKED: usize = 8;
/// The most ranges of slots in an answer: each slot by itself.
const MAX_RANGES: usize = SLOTS as usize;
/// The longest name of a host.
const MAX_HOST_BYTES: usize = 253;

#[derive(Debug)]
pub(crate) struct Cluster {
    host: Host,
    ownership: Arc<Ownership>,
    /// Those of the configuration.
    seeds: Vec<Contact>,
    /// As its servers are reached, but for host and port.
    like: Contact,
    /// The masters that were known last.
    masters: ArcSwap<Vec<Contact>>,
    /// Who is asked next, so that one who knows less than others is not asked for ever.
    next: AtomicUsize,
    /// Also keeps those who ask together from asking twice.
    known: Mutex<Option<(Instant, Layout)>>,
}

impl Cluster {
    /// # Errors
    /// When a URL cannot be read.
    pub(crate) fn new(
        dialling: &Dialling,
        seeds: &[Secret],
        ownership: Arc<Ownership>,
    ) -> Result<Self, ConnectError> {
        let seeds = seeds.iter().map(|url| dialling.server(url)).collect::<Result<Vec<_>, _>>()?;
        let like = seeds.first().cloned().ok_or(ConnectError::Url("a cluster has a server"))?;
        Ok(Self {
            host: dialling.host().clone(),
            ownership,
            seeds,
            like,
            masters: ArcSwap::default(),
            next: AtomicUsize::new(0),
            known: Mutex::new(None),
        })
    }

    /// The masters and their slots, as one of the servers knows them now.
    ///
    /// # Errors
    /// `NoCluster` when none tells who has which slot.
    pub(crate) async fn layout(&self) -> Result<Layout, ConnectError> {
        let mut known = self.known.lock().await;
        if let Some((at, layout)) = &*known
            && at.elapsed() < FRESH
        {
            return Ok(layout.clone());
        }
        let layout = self.ask_any().await?;
        *known = Some((Instant::now(), layout.clone()));
        Ok(layout)
    }

    async fn ask_any(&self) -> Result<Layout, ConnectError> {
        let masters = self.masters.load_full();
        let servers: Vec<_> = masters.iter().chain(&self.seeds).collect();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % servers.len();
        let (before, after) = servers.split_at(first);
        let mut questions = Vec::with_capacity(servers.len());
        for server in after.iter().chain(before).take(MAX_ASKED) {
            questions.push(self.ask(server).boxed());
        }
        let asked = hedging::ask(questions).await;
        let (layout, masters) = asked.map_err(|error| ConnectError::NoCluster(error.to_string()))?;
        self.masters.store(Arc::new(masters));
        Ok(layout)
    }

    async fn ask(&self, server: &Contact) -> Result<(Layout, Vec<Contact>), ConnectError> {
        let mut connection = server.commands().await?;
        // CLUSTER SHARDS tells more, but no server before 7.0 and not every service that is like Redis knows it.
        let answer: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection.commands).await?;
        let ranges = ranges(answer)?;
        let asked = server.host().ok_or(ConnectError::Unidentified("address"))?;
        let (mut servers, mut contacts, mut numbers) = (Vec::new(), Vec::new(), HashMap::new());
        let mut owned = Vec::with_capacity(ranges.len());
        for Range { first, last, host, port } in ranges {
            let host = host.unwrap_or_else(|| asked.to_owned());
            let name: Arc<str> = name_of(&host, port).into();
            let number = match numbers.get(&name) {
                Some(number) => *number,
                None if servers.len() < MAX_SERVERS => {
                    let contact = self.like.at(host, port);
                    contacts.push(contact.clone());
                    servers.push(self.member(name.clone(), contact));
                    let number = (servers.len() - 1) as u16;
                    numbers.insert(name, number);
                    number
                }
                None => return Err(Malformed("number of servers").into()),
            };
            owned.push((first, last, number));
        }
        let slots = Slots::of_ranges(owned).ok_or(ConnectError::Unidentified("slots, all of them"))?;
        Ok((Layout { servers, slots }, contacts))
    }

    fn member(&self, name: Arc<str>, contact: Contact) -> Server {
        Server::new(name, Place::Member(contact), self.host.clone(), self.ownership.clone())
    }

    /// The server to which an ASK leads, by its address there.
    ///
    /// # Errors
    /// When it is no address.
    pub(crate) fn server(&self, address: &str) -> Result<Server, ConnectError> {
        let (host, port) = address.rsplit_once(':').ok_or(Malformed("address"))?;
        let port = port.parse().map_err(|_| Malformed("port"))?;
        let host = checked(host.trim_matches(['[', ']']))?.ok_or(Malformed("host"))?;
        let name = name_of(&host, port).into();
        Ok(self.member(name, self.like.at(host, port)))
    }
}

/// What a server is called in a [`Layout`], and by ASK.
fn name_of(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

/// Slots that one master has.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    /// `None`: as the server that was asked.
    host: Option<String>,
    port: u16,
}

/// What CLUSTER SLOTS answers: the ranges, each with its master and then its replicas.
fn ranges(answer: Value) -> Result<Vec<Range>, Malformed> {
    let Value::Array(ranges) = answer else { return Err(Malformed("slots")) };
    if ranges.len() > MAX_RANGES {
        return Err(Malformed("number of ranges"));
    }
    ranges.into_iter().map(range).collect()
}

fn range(value: Value) -> Result<Range, Malformed> {
    let Value::Array(parts) = value else { return Err(Malformed("range")) };
    let mut parts = parts.into_iter();
    let (Some(first), Some(last), Some(Value::Array(master))) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed("range"));
    };
    let mut master = master.into_iter();
    let (Some(host), Some(port)) = (master.next(), master.next()) else { return Err(Malformed("master")) };
    let number = |value| reply::text(value)?.parse::<u16>().map_err(|_| Malformed("number"));
    let host = match host {
        Value::Nil => None,
        host => checked(&reply::text(host)?)?,
    };
    Ok(Range { first: number(first)?, last: number(last)?, host, port: number(port)? })
}

/// A host's name or address; `None` when it is that of the server that says it.
fn checked(host: &str) -> Result<Option<String>, Malformed> {
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'%');
    match host {
        "" => Ok(None),
        host if host.len() <= MAX_HOST_BYTES && host.bytes().all(is_host) => Ok(Some(host.to_owned())),
        // A server that does not know its own name says `?`.
        _ => Err(Malformed("host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use skywave_protocol::Text;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn answer(first: i64, last: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(Vec::new())]);
        Value::Array(vec![Value::Array(vec![Value::Int(first), Value::Int(last), master])])
    }

    #[test]
    fn a_range_belongs_to_its_first_server() {
        let read = ranges(answer(0, 5_460, text("10.0.0.1"), 6_379)).unwrap();
        let expected = Range { first: 0, last: 5_460, host: Some("10.0.0.1".into()), port: 6_379 };
        assert_eq!(read, [expected]);
        assert_eq!(ranges(answer(0, 1, Value::Nil, 1)).unwrap()[0].host, None);
        assert_eq!(ranges(answer(0, 1, text(""), 1)).unwrap()[0].host, None);
    }

    #[test]
    fn what_is_no_answer_of_a_cluster_is_refused() {
        for bad in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(1)])]),
            answer(0, 70_000, text("a"), 1),
            answer(-1, 1, text("a"), 1),
            answer(0, 1, text("a"), 70_000),
            answer(0, 1, text("?"), 1),
            answer(0, 1, text("a/b"), 1),
            answer(0, 1, text(&"a".repeat(300)), 1),
        ] {
            assert!(ranges(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_ask_leads_to_a_server_by_its_name() {
        let url = Secret::new("redis://u:p@a:1");
        let region = Text::new("eu").unwrap();
        let address = Address {
            url: url.clone(),
            ca: None,
            prefix: "sky".to_owned(),
            partitions: 1,
            region,
            scripts: &[],
        };
        let ownership = Ownership::of_own(&address);
        let dialling = Dialling::new(&Host::machine(), &url, None).unwrap();
        let cluster = Cluster::new(&dialling, &[url], ownership).unwrap();
        assert_eq!(&*cluster.server("10.0.0.1:7001").unwrap().name, "10.0.0.1:7001");
        for bad in ["", "a", "a:", ":1", "a:70000", "a b:1"] {
            assert!(cluster.server(bad).is_err(), "{bad}");
        }
    }
}
