//! A node in a process of its own, and the command that drains it.

use crate::{
    server::RedisServer,
    world::{settings, soon},
};
use skywave_client::{CertificateCheck, Client, ClientOptions, TransportChoice};
use std::{
    net::{SocketAddr, TcpListener},
    process::{Output, Stdio},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
};

pub struct Process {
    pub child: Child,
    url: String,
    pub plain: SocketAddr,
    admin: String,
}

impl Process {
    pub async fn start(redis: &RedisServer, id: &str) -> Self {
        Self::start_with(redis, id, &[]).await
    }

    /// As [`Self::start`], with these variables in its environment.
    pub async fn start_with(redis: &RedisServer, id: &str, variables: &[(&str, String)]) -> Self {
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let (url, place) = (format!("https://localhost:{port}"), format!("127.0.0.1:{port}"));
            let mut command = Command::new(env!("CARGO_BIN_EXE_skywave"));
            command.args(["serve", "--dev"]).env_clear().envs(settings(redis, id, &url, &place, &[]));
            command.envs(variables.iter().cloned());
            command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
            let mut child = command.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            // Another process may have taken the port meanwhile: then it ends without a word.
            if let Some(ready) = soon(lines.next_line()).await.unwrap() {
                let (_, places) = ready.split_once("plain=").unwrap();
                let (plain, admin) = places.split_once(" admin=").unwrap();
                return Self { child, url, plain: plain.parse().unwrap(), admin: format!("http://{admin}") };
            }
        }
        panic!("the node does not start");
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks it to end.
    pub async fn terminate(&self) {
        terminate(&self.child).await;
    }

    /// An anonymous client of it.
    pub async fn client(&self, transport: TransportChoice) -> Client {
        let certificate = CertificateCheck::Insecure;
        let options = ClientOptions { transport, certificate, ..ClientOptions::new(self.url.clone()) };
        soon(Client::connect(options)).await.unwrap()
    }
}

/// Asks a process to end.
pub async fn terminate(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(soon(Command::new("kill").args(["-TERM", &pid]).status()).await.unwrap().success());
}

/// Starts a node; what it logs.
pub async fn start_told(redis: &RedisServer, id: &str) -> (Child, BufReader<ChildStderr>) {
    let (mut child, told) = begin(redis, id);
    let mut ready = BufReader::new(child.stdout.take().unwrap()).lines();
    soon(ready.next_line()).await.unwrap().expect("it has ended");
    (child, told)
}

/// Begins to start a node; what it logs.
pub fn begin(redis: &RedisServer, id: &str) -> (Child, BufReader<ChildStderr>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skywave"));
    let settings = settings(redis, id, "https://localhost", "127.0.0.1:0", &[]);
    command.args(["serve", "--dev"]).env_clear().envs(settings).kill_on_drop(true);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = BufReader::new(child.stderr.take().unwrap());
    (child, told)
}

/// Runs a node that is to end by itself to its end.
pub async fn serve(redis: &RedisServer, id: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skywave"));
    let settings = settings(redis, id, "https://localhost", "127.0.0.1:0", &[]);
    command.args(["serve", "--dev"]).env_clear().envs(settings).kill_on_drop(true);
    soon(command.stdin(Stdio::null()).output()).await.unwrap()
}

/// Runs `skywave drain` for this node to its end.
pub async fn drain(node: &Process, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skywave"));
    command.args(["drain", "--admin", &node.admin]).args(arguments).env_clear().kill_on_drop(true);
    soon(command.stdin(Stdio::null()).output()).await.unwrap()
}
