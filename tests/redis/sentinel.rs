//! A Redis whose master changes, watched by sentinels.

use crate::{
    nodes::{client, config_on, keep_publishing, node_of, read_on, subscribe},
    replication::replica_of,
    server::{RedisServer, free_port},
    world::{Node, at, eventually, offsets, settings_at, soon},
};
use skywave::{
    broker::Broker,
    redis::{ConnectError, Endpoint, ownership::Ownership},
};
use skywave_client::TransportChoice;
use skywave_regions::relay::{Relay, Way, Weather};
use std::{
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// Three sentinels, two of which agree that a master is gone when it is silent for half a second.
struct Sentinels {
    running: Vec<(Child, u16, TempDir)>,
}

impl Sentinels {
    async fn watch(master: &RedisServer) -> Self {
        let running = (0..3).map(|_| Self::launch(master.port())).collect();
        let sentinels = Self { running };
        for (_, port, _) in &sentinels.running {
            eventually("agreement", async || knows_all(*port).await).await;
        }
        sentinels
    }

    fn launch(master: u16) -> (Child, u16, TempDir) {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            directory.path().display()
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        let child = command.arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        (child, port, directory)
    }

    /// The first of them cannot be reached: the others are asked.
    fn url(&self) -> String {
        let hosts: Vec<_> = self.running.iter().map(|(_, port, _)| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://127.0.0.1:1,{}/main", hosts.join(","))
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for (child, _, _) in &mut self.running {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

async fn knows_all(sentinel: u16) -> bool {
    let asked = async {
        let client = redis::Client::open(format!("redis://127.0.0.1:{sentinel}"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("SENTINEL").arg("MASTER").arg("main").query_async::<Vec<String>>(&mut connection).await
    };
    let Ok(facts) = asked.await else { return false };
    let fact = |name: &str| facts.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    fact("num-other-sentinels").as_deref() == Some("2") && fact("num-slaves").as_deref() == Some("1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_promoted_goes_on_and_its_new_epoch_is_told() {
    let mut master = RedisServer::start().await;
    let replica = replica_of(&master).await;
    let sentinels = Sentinels::watch(&master).await;
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
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
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

#[tokio::test]
async fn a_service_that_no_sentinel_knows_is_named() {
    let master = RedisServer::start().await;
    let (sentinel, port, _directory) = Sentinels::launch(master.port());
    let sentinels = Sentinels { running: vec![(sentinel, port, _directory)] };
    eventually("the sentinel", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
    let url = sentinels.url().replace("/main", "/other");
    let refused = Node::with(settings_at(&url)).await.err().unwrap();
    assert!(matches!(&refused, ConnectError::NoMaster(service) if service == "other"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_on_the_other_side_of_the_world_is_found() {
    let master = RedisServer::start().await;
    let far = async |port: u16| {
        let way = Way { delay: Duration::from_millis(150), ..Way::CLEAR };
        let target = (Ipv4Addr::LOCALHOST, port).into();
        Relay::tcp(Ipv4Addr::LOCALHOST.into(), target, Weather::both(way), 1).await.unwrap()
    };
    let far_master = far(master.port()).await;
    let (sentinel, port, directory) = Sentinels::launch(far_master.address().port());
    let _sentinels = Sentinels { running: vec![(sentinel, port, directory)] };
    eventually("the sentinel", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
    let far_sentinel = far(port).await;
    let url = format!("redis+sentinel://{}/main", far_sentinel.address());
    let address = settings_at(&url).address;
    let endpoint = Endpoint::new(&address, Ownership::of_own(&address)).unwrap();
    let connection = endpoint.connect_for("sky:key", "test").await;
    assert!(connection.is_ok(), "{:?}", connection.err());
}
