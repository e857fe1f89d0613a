//! A Redis server for one test: on a free port, with its own directory, stopped when it is dropped.

use redis::{Client, FromRedisValue, aio::MultiplexedConnection};
use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Nothing in these tests takes so long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct RedisServer {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
}

#[allow(dead_code, reason = "each test binary uses a part")]
impl RedisServer {
    /// A server that keeps nothing when it ends.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A server that has written each acknowledged command to disk.
    pub async fn durable() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    pub async fn with(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { child: None, directory, port: 0, settings };
        // Another process may take the port that was free a moment ago.
        for _ in 0..10 {
            server.port = free_port();
            if server.launch().await {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    /// Starts the process; `false` when it ends at once.
    async fn launch(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(self.directory.path()).args(&self.settings);
        self.child = Some(command.stdout(Stdio::null()).spawn().expect("redis-server is needed"));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if let Some(child) = &mut self.child
                && child.try_wait().unwrap().is_some()
            {
                return false;
            }
            let pinged =
                async { redis::cmd("PING").query_async::<String>(&mut self.try_connect().await?).await };
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), pinged).await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("redis-server does not answer");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// Runs a command, written as on the command line without quotes.
    pub async fn run<T: FromRedisValue>(&self, line: &str) -> T {
        self.run_words(&line.split(' ').collect::<Vec<_>>()).await
    }

    /// Runs a command of these words.
    pub async fn run_words<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_run_words(words).await.unwrap()
    }

    async fn try_run_words<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.try_connect().await?).await
    }

    /// Whether it takes writes; not while it is just becoming a master, when all its connections are closed.
    pub async fn is_master(&self) -> bool {
        let role = self.try_run_words::<Vec<redis::Value>>(&["ROLE"]).await;
        role.is_ok_and(|role| role.first() == Some(&redis::Value::BulkString("master".into())))
    }

    /// Runs commands in one step, written like those of [`Self::run`].
    pub async fn transaction(&self, lines: &[String]) {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            pipeline.cmd(words[0]).arg(&words[1..]);
        }
        pipeline.query_async::<redis::Value>(&mut self.try_connect().await.unwrap()).await.unwrap();
    }

    /// Breaks every connection to the server.
    pub async fn cut_connections(&self) {
        for kind in ["normal", "pubsub"] {
            self.run::<u64>(&format!("CLIENT KILL TYPE {kind} SKIPME yes")).await;
        }
    }

    /// Ends the process without a farewell.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills the server and starts it again on the same port, with what it had on disk.
    pub async fn restart(&mut self) {
        self.kill();
        self.relaunch().await;
    }

    /// Starts the server that was killed.
    pub async fn relaunch(&mut self) {
        for _ in 0..10 {
            if self.launch().await {
                return;
            }
        }
        panic!("redis-server does not start again");
    }

    /// Stops the process where it is, connections open, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Also when it is frozen, or has ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[allow(dead_code, reason = "each test binary uses a part")]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
