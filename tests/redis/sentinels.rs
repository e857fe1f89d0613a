//! Sentinels for tests: stopped when they are dropped.

use crate::{
    patience::eventually,
    server::{RedisServer, free_port},
};
use std::{
    fs,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// Three sentinels, two of which agree that a master is gone when it is silent for some time.
pub struct Sentinels {
    pub running: Vec<(Child, u16, TempDir)>,
}

#[allow(dead_code, reason = "each test binary uses a part")]
impl Sentinels {
    pub async fn watch(master: &RedisServer, silence_ms: u64) -> Self {
        let running = (0..3).map(|_| Self::launch(master.port(), silence_ms)).collect();
        let sentinels = Self { running };
        for (_, port, _) in &sentinels.running {
            eventually("agreement", async || knows_all(*port).await).await;
        }
        sentinels
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
        let port = self.running[0].1;
        let asked = async {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("SENTINEL").arg("FAILOVER").arg("main").query_async::<()>(&mut connection).await
        };
        asked.await.is_ok()
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
