//! A Redis that is reached over the network which a node is handed: here one in memory, in virtual time.

use redis::Value;
use skywave::{
    metrics::Metrics,
    redis::{CallError, Redis, Request},
};
use skywave_testing::{
    machine::{Cables, Machine},
    node::broker::settings_at,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream},
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
    time::sleep,
};

type Keys = Arc<Mutex<HashMap<String, String>>>;

/// A Redis that knows no more than keys, and what a connection asks first. It ends with its task.
async fn serve(mut connections: UnboundedReceiver<DuplexStream>, keys: Keys) {
    let mut serving = JoinSet::new();
    while let Some(stream) = connections.recv().await {
        serving.spawn(answer(BufReader::new(stream), keys.clone()));
    }
}

async fn answer(mut stream: BufReader<DuplexStream>, keys: Keys) {
    while let Some(words) = command(&mut stream).await {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let reply = reply(&words, &keys);
        stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
    }
}

fn reply(words: &[&str], keys: &Keys) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    match words {
        ["CLIENT", ..] => "+OK\r\n".to_owned(),
        ["INFO", "server"] => bulk("redis_version:7.2.0\r\nrun_id:1\r\nredis_mode:standalone\r\n"),
        ["INFO", ..] => bulk("maxmemory_policy:noeviction\r\n"),
        ["SCRIPT", "EXISTS", hashes @ ..] => {
            format!("*{}\r\n{}", hashes.len(), ":1\r\n".repeat(hashes.len()))
        }
        ["ROLE"] => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_owned(),
        ["GET", key] => keys.lock().unwrap().get(*key).map_or("$-1\r\n".to_owned(), |value| bulk(value)),
        ["SET", key, value, ..] => {
            keys.lock().unwrap().entry((*key).to_owned()).or_insert_with(|| (*value).to_owned());
            "+OK\r\n".to_owned()
        }
        _ => "-ERR unknown command\r\n".to_owned(),
    }
}

/// The next command; none when the connection is over.
async fn command(stream: &mut BufReader<DuplexStream>) -> Option<Vec<String>> {
    let count = number(stream, '*').await?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let mut word = vec![0; number(stream, '$').await? + "\r\n".len()];
        stream.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8(word).unwrap().trim_end().to_owned());
    }
    Some(words)
}

async fn number(stream: &mut BufReader<DuplexStream>, kind: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.strip_prefix(kind)?.trim_end().parse().ok()
}

#[test]
fn calls_go_over_the_network_that_is_handed_in_and_go_on_when_the_server_comes_back() {
    // Without a driver for sockets.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(async {
        let (cables, keys) = (Cables::default(), Keys::default());
        let serving = || tokio::spawn(serve(cables.serve("redis.test", 6379), keys.clone()));
        let (server, machine) = (serving(), Machine::new(1, &cables));
        let address = settings_at("redis://redis.test").address;
        let metrics = Metrics::new().unwrap().redis;
        let redis = Redis::connect(&machine.host, &address, "commands", metrics).await.unwrap();
        let call = |words: &[&str]| redis.commands.call(Request::command(words));
        call(&["SET", "key", "value"]).await.unwrap();
        server.abort();
        sleep(Duration::from_secs(600)).await;
        assert_eq!(call(&["GET", "key"]).await, Err(CallError::Away));
        let _server = serving();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(call(&["GET", "key"]).await, Ok(Value::BulkString("value".into())));
    });
}
