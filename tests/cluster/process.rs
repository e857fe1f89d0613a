//! Nodes in processes of their own, and the command that drains one.

use crate::world::settings;
use skywave_client::{Client, TransportChoice};
use skywave_testing::{
    Port, Process, RedisServer,
    node::{connect, options},
    process::command,
    soon,
};
use std::process::{Output, Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
};

pub async fn start(redis: &RedisServer, id: &str) -> Process {
    start_with(redis, id, &[]).await
}

/// As [`start`], with these variables in its environment.
pub async fn start_with(redis: &RedisServer, id: &str, variables: &[(&str, String)]) -> Process {
    // Its own until it listens there.
    let port = Port::free();
    let (url, place) =
        (format!("https://localhost:{}", port.number()), format!("127.0.0.1:{}", port.number()));
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Process::serve(settings(redis, id, &url, &place, &[]).into_iter().chain(variables)).await
}

/// An anonymous client of a node.
pub async fn client(node: &Process, transport: TransportChoice) -> Client {
    connect(options(vec![node.url()], transport)).await
}

/// A node with whatever port.
fn serving(redis: &RedisServer, id: &str) -> Command {
    command(["serve", "--dev"], settings(redis, id, "https://localhost", "127.0.0.1:0", &[]))
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
    let mut child = serving(redis, id).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = BufReader::new(child.stderr.take().unwrap());
    (child, told)
}

/// Runs a node that is to end by itself to its end.
pub async fn serve(redis: &RedisServer, id: &str) -> Output {
    soon(serving(redis, id).output()).await.unwrap()
}

/// Runs `skywave drain` for this node to its end.
pub async fn drain(node: &Process, arguments: &[&str]) -> Output {
    let admin = format!("http://{}", node.admin());
    let arguments = [&["drain", "--admin", &admin], arguments].concat();
    soon(command(arguments, [] as [(&str, &str); 0]).output()).await.unwrap()
}
