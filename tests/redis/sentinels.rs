//! Sentinels for tests: stopped when they are dropped.

use crate::{
    patience::eventually,
    server::{PATIENCE, RedisServer, free_port},
};
use redis::{Client, FromRedisValue, RedisResult};
use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Three sentinels, two of which agree that a master is gone when it is silent for some time.
pub struct Sentinels {
    pub running: Vec<(Child, u16, TempDir)>,
}

#[allow(dead_code, reason = "each test binary uses a part")]
impl Sentinels {
    pub async fn watch(master: &RedisServer, silence_ms: u64) -> Self {
        let running = (0..3).map(|_| Self::launch(master.port(), silence_ms)).collect();
        let mut sentinels = Self { running };
        // They may do nothing for 30 s where they could not run for 2 s.
        let deadline = Instant::now() + 4 * PATIENCE;
        while !sentinels.agree().await {
            assert!(Instant::now() < deadline, "the sentinels do not agree");
            for one in &mut sentinels.running {
                // Another process has taken the port that was free a moment ago.
                if one.0.try_wait().unwrap().is_some() {
                    *one = Self::launch(master.port(), silence_ms);
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        sentinels
    }

    async fn agree(&self) -> bool {
        for (_, port, _) in &self.running {
            if !knows_all(*port).await {
                return false;
            }
        }
        true
    }

    /// From now on a master may be silent for so long.
    pub async fn believe_in_it_for(&self, silence_ms: u64) {
        for (_, port, _) in &self.running {
            eventually("patience", async || {
                let words = ["SET", "main", "down-after-milliseconds", &silence_ms.to_string()];
                ask::<()>(*port, &words).await.is_ok()
            })
            .await;
        }
    }

    pub fn launch(master: u16, silence_ms: u64) -> (Child, u16, TempDir) {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main {silence_ms}\nsentinel failover-timeout main 3000\n",
            directory.path().display()
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        let child = command.arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        (child, port, directory)
    }

    /// Has one of them promote the replica, though the master is well.
    pub async fn fail_over(&self) -> bool {
        ask::<()>(self.running[0].1, &["FAILOVER", "main"]).await.is_ok()
    }

    /// The first of them cannot be reached: the others are asked.
    pub fn url(&self) -> String {
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

async fn ask<T: FromRedisValue>(sentinel: u16, words: &[&str]) -> RedisResult<T> {
    let client = Client::open(format!("redis://127.0.0.1:{sentinel}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("SENTINEL").arg(words).query_async(&mut connection).await
}

async fn knows_all(sentinel: u16) -> bool {
    let Ok(facts) = ask::<Vec<String>>(sentinel, &["MASTER", "main"]).await else { return false };
    let fact = |name: &str| facts.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    fact("num-other-sentinels").as_deref() == Some("2") && fact("num-slaves").as_deref() == Some("1")
}
