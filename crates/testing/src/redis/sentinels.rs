//! Sentinels, which watch a master and promote its replica: stopped when they are dropped.

use crate::{PATIENCE, Port, RedisServer, eventually};
use redis::{Client, FromRedisValue, RedisResult};
use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// One that watches a master under the name `main`.
pub struct Sentinel {
    child: Child,
    port: Port,
    _directory: TempDir,
}

impl Sentinel {
    /// Of the master at this port, which counts as gone when it is silent for some time and two sentinels say so.
    pub fn start(master: u16, silence_ms: u64) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), Port::free());
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main {silence_ms}\nsentinel failover-timeout main 3000\n",
            port.number(),
            directory.path().display()
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        let child = command.arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        Self { child, port, _directory: directory }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let client = Client::open(format!("redis://127.0.0.1:{}", self.port()))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("SENTINEL").arg(words).query_async(&mut connection).await
    }

    /// Whether it knows two others, and the master's replica.
    async fn knows_all(&self) -> bool {
        let Ok(facts) = self.ask::<Vec<String>>(&["MASTER", "main"]).await else { return false };
        let fact = |name: &str| facts.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
        fact("num-other-sentinels").as_deref() == Some("2") && fact("num-slaves").as_deref() == Some("1")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Three of one master.
pub struct Sentinels(Vec<Sentinel>);

impl Sentinels {
    pub async fn watch(master: &RedisServer, silence_ms: u64) -> Self {
        let sentinels = Self((0..3).map(|_| Sentinel::start(master.port(), silence_ms)).collect());
        // They may do nothing for 30 s where they could not run for 2 s.
        let deadline = Instant::now() + 2 * PATIENCE;
        while !sentinels.agree().await {
            assert!(Instant::now() < deadline, "the sentinels do not agree");
            sleep(Duration::from_millis(20)).await;
        }
        sentinels
    }

    async fn agree(&self) -> bool {
        for sentinel in &self.0 {
            if !sentinel.knows_all().await {
                return false;
            }
        }
        true
    }

    /// From now on a master may be silent for so long.
    pub async fn believe_in_it_for(&self, silence_ms: u64) {
        let silence = silence_ms.to_string();
        for sentinel in &self.0 {
            eventually("patience", async || {
                sentinel.ask::<()>(&["SET", "main", "down-after-milliseconds", &silence]).await.is_ok()
            })
            .await;
        }
    }

    /// Has one of them promote the replica, though the master is well.
    pub async fn fail_over(&self) -> bool {
        self.0[0].ask::<()>(&["FAILOVER", "main"]).await.is_ok()
    }

    /// The first of them cannot be reached: the others are asked.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.0.iter().map(|one| format!("127.0.0.1:{}", one.port())).collect();
        format!("redis+sentinel://127.0.0.1:1,{}/main", hosts.join(","))
    }
}
