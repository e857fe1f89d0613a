//! A Redis server for one test: on a free port, with its own directory, stopped when it is dropped.

use crate::{PATIENCE, Port, clock};
use redis::{AsyncConnectionConfig, Client, FromRedisValue, ToRedisArgs, aio::MultiplexedConnection};
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// In settings: a port that is free, and stays the server's.
pub const FREE_PORT: &str = "a free port";

pub struct RedisServer {
    child: Option<Child>,
    directory: TempDir,
    port: Port,
    settings: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// Those that its settings name.
    _ports: Vec<Port>,
}

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
        Self::of(tempfile::tempdir().unwrap(), settings, Vec::new()).await
    }

    /// A server with a clock of its own, which [`Self::set_clock`] moves.
    pub async fn with_clock() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let environment = clock::in_directory(directory.path());
        Self::of(directory, &[], environment).await
    }

    /// Sets the clock of a server that has one of its own so many seconds ahead of ours.
    pub async fn set_clock(&self, ahead: i64) {
        clock::set(self.directory.path(), ahead);
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let theirs: Vec<i64> = self.run("TIME").await;
        assert!((theirs[0] - ahead).abs_diff(ours.as_secs() as i64) <= 10, "its clock is not moved");
    }

    async fn of(directory: TempDir, settings: &[&str], environment: Vec<(&'static str, String)>) -> Self {
        let mut ports = Vec::new();
        let mut one = |setting: &&str| match *setting {
            FREE_PORT => {
                let port = Port::free();
                let number = port.number().to_string();
                ports.push(port);
                number
            }
            other => other.to_owned(),
        };
        let settings = settings.iter().map(&mut one).collect();
        let mut server =
            Self { child: None, directory, port: Port::free(), settings, environment, _ports: ports };
        server.relaunch().await;
        server
    }

    /// Starts the server that was killed, on the same port and with what it had on disk.
    pub async fn relaunch(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(self.directory.path()).args(&self.settings);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.stdout(Stdio::null()).spawn().expect("redis-server is needed"));
        let deadline = Instant::now() + PATIENCE;
        while self.try_run::<String>("PING").await.is_none() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "redis-server ends at once: {ended:?}");
            assert!(Instant::now() < deadline, "redis-server does not answer");
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Runs a command, written as on the command line without quotes.
    pub async fn run<T: FromRedisValue>(&self, line: &str) -> T {
        self.run_words(&line.split(' ').collect::<Vec<_>>()).await
    }

    /// Runs a command of these words.
    pub async fn run_words<T: FromRedisValue>(&self, words: &[impl ToRedisArgs + Sync]) -> T {
        self.try_run_words(words).await.unwrap()
    }

    /// As [`Self::run`], of a server that may be silent, or refuse.
    pub async fn try_run<T: FromRedisValue>(&self, line: &str) -> Option<T> {
        let words: Vec<_> = line.split(' ').collect();
        let asked = self.try_run_words(&words);
        timeout(Duration::from_secs(2), asked).await.ok()?.ok()
    }

    /// As [`Self::try_run`], until it is done: what was begun does not stay for ever on a server that becomes a replica
    /// meanwhile, which closes all connections, or is slow.
    pub async fn insist(&self, line: &str) {
        let deadline = Instant::now() + 2 * PATIENCE;
        while self.try_run::<redis::Value>(line).await.is_none() {
            assert!(Instant::now() < deadline, "{line} is not done");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// For so long whoever connects needs a password that nobody knows; those who are connected are cut first or not.
    pub async fn lock_out(&self, cut: bool, time: Duration) {
        self.try_run::<()>("CONFIG SET requirepass secret").await;
        if cut {
            for kind in ["normal", "pubsub"] {
                drop(self.unlocked(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await);
            }
        }
        sleep(time).await;
        let deadline = Instant::now() + 2 * PATIENCE;
        while self.try_run::<String>("PING").await.is_none() {
            assert!(Instant::now() < deadline, "it stays locked");
            drop(self.unlocked(&["CONFIG", "SET", "requirepass", ""]).await);
        }
    }

    /// Runs a command on a server that is locked.
    async fn unlocked(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let url = format!("redis://:secret@127.0.0.1:{}", self.port());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let mut connection = Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    pub async fn try_run_words<T: FromRedisValue>(
        &self,
        words: &[impl ToRedisArgs + Sync],
    ) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.try_connect().await?).await
    }

    /// How often a command was called since the server started, inside scripts as well.
    pub async fn calls(&self, command: &str) -> u64 {
        let statistics: String = self.run("INFO commandstats").await;
        let line =
            statistics.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
    }

    /// From now on keeps the commands that clients give it, for [`Self::given`].
    pub async fn keep_commands(&self) {
        self.run::<()>("CONFIG SET slowlog-max-len 10000 slowlog-log-slower-than 0").await;
        self.run::<()>("SLOWLOG RESET").await;
    }

    /// How many commands clients gave it that begin with these words; what scripts do is not among them.
    pub async fn given(&self, words: &[&str]) -> usize {
        type Entry = (u64, u64, u64, Vec<Vec<u8>>, String, String);
        let entries: Vec<Entry> = self.run("SLOWLOG GET -1").await;
        let begins = |given: &[Vec<u8>]| {
            words
                .iter()
                .enumerate()
                .all(|(at, word)| given.get(at).is_some_and(|given| given == word.as_bytes()))
        };
        entries.iter().filter(|(_, _, _, given, ..)| begins(given)).count()
    }

    /// Whether it takes writes; not while it is just becoming a master, when all its connections are closed.
    pub async fn is_master(&self) -> bool {
        let role = self.try_run::<Vec<redis::Value>>("ROLE").await;
        role.is_some_and(|role| role.first() == Some(&redis::Value::BulkString("master".into())))
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
