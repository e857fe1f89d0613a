//! A node in a process of its own, which can be killed and put to sleep.

use crate::{
    server::RedisServer,
    world::{environment, soon},
};
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub struct Process {
    child: Child,
    port: u16,
    admin: String,
}

impl Process {
    pub async fn start(redis: &RedisServer, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skywave"));
        command.args(["serve", "--dev"]).env_clear().envs(environment(redis, settings));
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = soon(lines.next_line()).await.unwrap().expect("the node ends before it serves");
        let listener = |name| ready.split(' ').find_map(|word| word.strip_prefix(name)).unwrap();
        let port = listener("public=").rsplit(':').next().unwrap().parse().unwrap();
        Self { child, port, admin: listener("admin=").to_owned() }
    }

    /// How many pings it has sent.
    pub async fn pings(&self) -> u64 {
        let metrics = soon(reqwest::get(format!("http://{}/metrics", self.admin))).await.unwrap();
        let metrics = soon(metrics.text()).await.unwrap();
        let of_transports = metrics.lines().filter(|line| line.starts_with("skywave_pings_total{"));
        of_transports.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Ends it without a farewell.
    pub async fn kill(&mut self) {
        soon(self.child.kill()).await.unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}
