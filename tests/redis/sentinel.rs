//! A Redis whose master changes, watched by sentinels.

use crate::{
    nodes::{client, config_on, keep_publishing, node_of, read_on, subscribe},
    replication::replica_of,
};
use skywave::{
    broker::{Broker, BrokerError, ReadFrom},
    host::Host,
    redis::{ConnectError, Endpoint, ownership::Ownership},
    region::keys::RegionKeys as _,
};
use skywave_client::TransportChoice;
use skywave_protocol::Position;
use skywave_testing::{
    RedisServer, Relay, Sentinel, Sentinels, eventually,
    node::broker::{Node, at, channel, offsets, settings_at},
    soon,
};
use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_promoted_goes_on_and_its_new_epoch_is_told() {
    let mut master = RedisServer::start().await;
    let replica = replica_of(&master).await;
    let sentinels = Sentinels::watch(&master, 500).await;
    let (here, there) =
        (node_of(&config_on(&sentinels.url())).await, node_of(&config_on(&sentinels.url())).await);
    let publisher = client(&[&here], TransportChoice::WebSocket).await;
    let subscriber = client(&[&there], TransportChoice::WebSocket).await;
    let mut subscription = subscribe(&subscriber, "chat:1").await;
    let done = Arc::new(AtomicBool::new(false));
    // Again and again with its key, until there is a master.
    let publishing = keep_publishing(publisher, "chat:1", done.clone());
    let (last, told_before) = read_on(&mut subscription, 0, 20).await;
    master.kill();
    eventually("the failover", async || replica.is_master().await).await;
    let promoted_at = replica.run::<u64>("XLEN sky:{6}:log").await;
    eventually("publications", async || replica.run::<u64>("XLEN sky:{6}:log").await > promoted_at + 20)
        .await;
    done.store(true, Ordering::Release);
    let count = soon(publishing).await.unwrap();
    let (last, told) = read_on(&mut subscription, last, count).await;
    // What the replica did not have yet is lost, and that was told.
    assert!((told_before || told) && last == count);
}

/// An address that leads to another server from some moment on, as a name or a virtual address does: connections that
/// stand stay where they are.
async fn address(target: Arc<AtomicU16>) -> u16 {
    counting_address(target, Arc::default()).await
}

/// As [`address`]; counts connections.
async fn counting_address(target: Arc<AtomicU16>, connections: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::AcqRel);
            let target = (Ipv4Addr::LOCALHOST, target.load(Ordering::Acquire));
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_demoted_is_left_by_who_only_reads_though_connections_stand() {
    let master = RedisServer::start().await;
    let replica = replica_of(&master).await;
    let target = Arc::new(AtomicU16::new(master.port()));
    let url = format!("redis://127.0.0.1:{}", address(target.clone()).await);
    let node = Node::with(settings_at(&url)).await.unwrap();
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    eventually("replication", async || replica.run::<u64>("EXISTS sky:partitions").await == 1).await;
    // It hears nothing of a master; who reads what is said next is led there once more.
    master.run::<()>("REPLICAOF 127.0.0.1 1").await;
    eventually("the tail", async || node.reconnects("tail") == 1 && node.broker.deaf_for().is_zero()).await;
    replica.run::<()>("REPLICAOF NO ONE").await;
    target.store(replica.port(), Ordering::Release);
    let accepted = node.insist("chat:1", 2, "k").await;
    assert_ne!(accepted.epoch, epoch);
    let seen = at(&epoch, 1);
    eventually("what the new master has", async || offsets(&node.read(&seen).await) == [accepted.offset])
        .await;
    node.deliveries(2).await;
}

/// Which connections of a node are broken and made anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    Tail,
    AllOthers,
}

/// A replica that took over from its master, which lives on and does not know, and a node that has some of its
/// connections to the one and some to the other.
struct Torn {
    node: Node,
    new_master: RedisServer,
    /// What the node saw before.
    seen: Position,
    /// The port of who is said to be the master.
    told: Arc<AtomicU16>,
    /// How often it was asked for.
    asked: Arc<AtomicUsize>,
    old_master: RedisServer,
}

impl Torn {
    async fn start(broken: Broken) -> Self {
        let torn = Self::untold().await;
        torn.tell();
        let clients: String = torn.old_master.run("CLIENT LIST").await;
        for client in clients.lines().filter(|client| client.contains("name=skywave-")) {
            let is_tail = client.contains("name=skywave-tail ");
            if broken != Broken::Nothing && is_tail == (broken == Broken::Tail) {
                let id = client.split(' ').find_map(|word| word.strip_prefix("id=")).unwrap();
                torn.old_master.run::<u64>(&format!("CLIENT KILL ID {id}")).await;
            }
        }
        torn
    }

    /// Whoever asks is led to the new master from now on.
    fn tell(&self) {
        self.told.store(self.new_master.port(), Ordering::Release);
    }

    /// Whoever asks is led to the old master still.
    async fn untold() -> Self {
        Self::untold_by(async |said, _| format!("redis://127.0.0.1:{said}")).await
    }

    /// As [`Self::untold`]; whoever asks does so at the URL that is given for two ports: that of who is said to be the
    /// master, and the old master's own.
    async fn untold_by(url: impl AsyncFnOnce(u16, u16) -> String) -> Self {
        let old_master = RedisServer::start().await;
        let new_master = replica_of(&old_master).await;
        let (told, asked) = (Arc::new(AtomicU16::new(old_master.port())), Arc::default());
        let port = counting_address(told.clone(), Arc::clone(&asked)).await;
        let node = Node::with(settings_at(&url(port, old_master.port()).await)).await.unwrap();
        let first = node.publish(1).await;
        node.deliveries(1).await;
        let log = node.redis.keys.log(node.redis.keys.partition(&channel()));
        let length = format!("XLEN {log}");
        eventually("replication", async || new_master.run::<u64>(&length).await == 1).await;
        new_master.run::<()>("REPLICAOF NO ONE").await;
        Self { node, new_master, seen: at(&first.epoch, 1), told, asked, old_master }
    }

    /// Holds that for who saw what the new master accepted, whatever `happens`.
    async fn gets_nothing_again(&self, happens: impl AsyncFnOnce()) {
        let Self { node, new_master, seen, .. } = self;
        assert!(offsets(&node.read(seen).await).is_empty());
        let second = Node::new(new_master).await.publish(2).await;
        let seen = at(&second.epoch, 1);
        // As a session does.
        let reading = soon(async {
            loop {
                match node.broker.read(&channel(), ReadFrom::Position(seen.clone())).await {
                    Ok(chunk) if chunk.coming.is_empty() => return chunk,
                    Ok(chunk) => assert!(chunk.lost.is_empty() && chunk.publications.is_empty(), "{chunk:?}"),
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let (chunk, ()) = tokio::join!(reading, happens());
        assert!(chunk.lost.is_empty() && chunk.publications.is_empty(), "{chunk:?}");
        node.deliveries(2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_does_not_know_that_another_took_over_is_left_once_the_other_is_followed() {
    let Torn { node, new_master, seen, .. } = &Torn::start(Broken::Tail).await;
    eventually("the tail", async || node.reconnects("tail") == 1).await;
    let second = Node::new(new_master).await.publish(2).await;
    node.deliveries(2).await;
    let chunk = node.read(seen).await;
    assert!(!chunk.coming.is_empty(), "what the old master tells is taken for all: {chunk:?}");
    eventually("what the new one has", async || offsets(&node.read(seen).await) == [second.offset]).await;
    let third = node.insist("chat:1", 3, "k").await;
    assert_eq!((third.epoch, third.offset), (second.epoch, 2));
    node.deliveries(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_what_a_new_master_began_gets_nothing_again_of_the_old_one_that_does_not_know_it() {
    let torn = Torn::start(Broken::Nothing).await;
    torn.gets_nothing_again(async || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_what_a_new_master_began_waits_while_whoever_is_asked_names_the_old_one() {
    let torn = Torn::untold().await;
    torn.gets_nothing_again(async || {
        let before = torn.asked.load(Ordering::Acquire);
        eventually("asking", async || torn.asked.load(Ordering::Acquire) > before).await;
        torn.tell();
    })
    .await;
}

/// Names the server at this port as the master, whatever it is asked, until it falls silent; gives its own port.
async fn sentinel_that_names(master: u16, is_silent: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Ok((client, _)) = listener.accept().await {
            if is_silent.load(Ordering::Acquire) {
                unanswered.push(client);
            } else {
                tokio::spawn(name_master(client, master));
            }
        }
    });
    port
}

/// The URL of sentinels, each of which names a server until it falls silent.
async fn sentinels_that_name<const COUNT: usize>(masters: [(u16, Arc<AtomicBool>); COUNT]) -> String {
    let mut hosts = Vec::new();
    for (master, is_silent) in masters {
        hosts.push(format!("127.0.0.1:{}", sentinel_that_names(master, is_silent).await));
    }
    format!("redis+sentinel://{}/main", hosts.join(","))
}

async fn name_master(client: TcpStream, master: u16) -> io::Result<()> {
    let mut lines = BufReader::new(client).lines();
    let length = |line: String| line[1..].parse::<usize>().unwrap();
    // An array of words, each behind a line with its length.
    while let Some(line) = lines.next_line().await? {
        let mut words = Vec::new();
        for _ in 0..2 * length(line) {
            words.extend(lines.next_line().await?);
        }
        let master = master.to_string();
        let answer = match &*words[1] {
            "SENTINEL" => format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{master}\r\n", master.len()),
            _ => "+OK\r\n".to_owned(),
        };
        lines.get_mut().write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_what_a_new_master_began_gets_nothing_again_though_two_of_three_sentinels_are_silent() {
    let falls_silent = Arc::new(AtomicBool::default());
    let torn = Torn::untold_by(async |said, _| {
        let silent = || (said, falls_silent.clone());
        sentinels_that_name([silent(), silent(), (said, Arc::default())]).await
    })
    .await;
    falls_silent.store(true, Ordering::Release);
    torn.tell();
    torn.gets_nothing_again(async || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_what_a_new_master_began_gets_nothing_again_though_the_first_sentinel_names_the_old_one() {
    let torn = Torn::untold_by(async |said, old| {
        sentinels_that_name([(old, Arc::default()), (said, Arc::default())]).await
    })
    .await;
    torn.tell();
    torn.gets_nothing_again(async || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_what_a_new_master_began_gets_nothing_again_though_others_say_what_is_not_so() {
    let torn = Torn::untold().await;
    for number in 0..100 {
        let lie = ReadFrom::Position(at(&format!("fffffffffff{number:05x}.e1"), 7));
        drop(torn.node.broker.read(&channel(), lie).await);
    }
    torn.gets_nothing_again(async || torn.tell()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_says_that_is_not_so_is_in_nobody_elses_way() {
    let (server, asked) = (RedisServer::start().await, Arc::new(AtomicUsize::default()));
    let port = counting_address(Arc::new(AtomicU16::new(server.port())), asked.clone()).await;
    let node = Node::with(settings_at(&format!("redis://127.0.0.1:{port}"))).await.unwrap();
    let first = node.publish(1).await;
    let lie = ReadFrom::Position(at("fffffffffffaaaaa.e1", 7));
    assert_eq!(node.broker.read(&channel(), lie).await.err(), Some(BrokerError::Unavailable));
    let before = asked.load(Ordering::Acquire);
    eventually("asking", async || asked.load(Ordering::Acquire) > before).await;
    assert_eq!(offsets(&node.read(&at(&first.epoch, 0)).await), [1]);
    node.publish(2).await;
    node.deliveries(2).await;
    assert_eq!((node.reconnects("tail"), node.doubts()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_master_that_does_not_know_that_another_took_over_is_followed_no_longer() {
    let Torn { node, .. } = &Torn::start(Broken::AllOthers).await;
    let second = node.insist("chat:1", 2, "k").await;
    assert_eq!(second.offset, 1);
    node.deliveries(2).await;
}

#[tokio::test]
async fn a_service_that_no_sentinel_knows_is_named() {
    let master = RedisServer::start().await;
    let sentinel = Sentinel::start(master.port(), 500);
    let address = ("127.0.0.1", sentinel.port());
    eventually("the sentinel", async || TcpStream::connect(address).await.is_ok()).await;
    let url = format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port());
    let refused = Node::with(settings_at(&url)).await.err().unwrap();
    assert!(matches!(&refused, ConnectError::NoMaster { service, .. } if service == "other"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_on_the_other_side_of_the_world_is_found() {
    let master = RedisServer::start().await;
    let far = async |port: u16| {
        let path = Relay::tcp(port).await;
        path.set(|weather| weather.delay = Duration::from_millis(150));
        path
    };
    let far_master = far(master.port()).await;
    let sentinel = Sentinel::start(far_master.address().port(), 500);
    let address = ("127.0.0.1", sentinel.port());
    eventually("the sentinel", async || TcpStream::connect(address).await.is_ok()).await;
    let far_sentinel = far(sentinel.port()).await;
    let url = format!("redis+sentinel://{}/main", far_sentinel.address());
    let address = settings_at(&url).address;
    let endpoint = Endpoint::new(&Host::machine(), &address, Ownership::of_own(&address)).unwrap();
    let connection = endpoint.connect_for("sky:key", "test").await;
    assert!(connection.is_ok(), "{:?}", connection.err());
}
