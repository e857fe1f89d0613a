//! The binary as a person runs it, and nodes for it to reach.

use serde_json::Value;
use skywave::server::Server;
use skywave_client::{Client, TransportChoice};
use skywave_testing::{
    eventually,
    node::{self, connect, options},
    process::{command, signal},
    soon,
};
use std::{
    path::Path,
    process::{Output, Stdio},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Runs the binary with nothing of this process's environment that could configure it.
pub fn skywave(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_skywave"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What stderr says of wrong usage or a wrong configuration; stdout says nothing then.
pub fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    stderr(output)
}

pub fn cert(directory: &Path, more: &[&str]) -> String {
    let arguments = [&["cert", "--out", directory.to_str().unwrap()], more].concat();
    stdout(&skywave(&arguments, &[]))
}

/// A token for alice that a secured node accepts.
pub fn token() -> String {
    let arguments = ["token", "--user", "alice", "--channels", "chat:*=subscribe,publish,emit,presence"];
    stdout(&skywave(&arguments, &[("SKYWAVE_AUTH__HMAC_SECRET", SECRET)]))
}

/// A node of this process, on free ports, with the development defaults.
pub struct Node {
    pub server: Server,
}

impl Node {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Lets in whom a token proves, and nobody else; tokens decide what they may do.
    pub async fn secured() -> Self {
        Self::with(&[
            ("AUTH__HMAC_SECRET", SECRET),
            ("AUTH__ANONYMOUS", "false"),
            ("CHANNELS__CHAT__ALLOW", ""),
            ("CHANNELS__DOC__ALLOW", ""),
        ])
        .await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let server = node::start(&[&[("LISTEN__PUBLIC", "localhost:0")], settings].concat()).await;
        Self { server }
    }

    pub fn url(&self) -> String {
        node::url(&self.server)
    }

    /// Runs the binary to its end, with this node in its environment.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        run(arguments, &[("SKYWAVE_URL", &self.url())]).await
    }

    /// Starts the binary, with this node in its environment.
    pub fn start_skywave(&self, arguments: &[&str]) -> Running {
        Running::start(arguments, &[("SKYWAVE_URL", &self.url())])
    }

    pub async fn client(&self) -> Client {
        connect(options(vec![self.url()], TransportChoice::Auto)).await
    }
}

/// Runs the binary to its end.
pub async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    soon(command(arguments, environment.iter().copied()).output()).await.unwrap()
}

/// The binary while it runs.
pub struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

/// The binary when it has ended: its code, and what it said that nobody has read before.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: Vec<String>,
    pub stderr: String,
}

impl Running {
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = command(arguments, environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdout, stderr }
    }

    /// The next line on stdout.
    pub async fn line(&mut self) -> String {
        soon(self.stdout.next_line()).await.unwrap().expect("stdout has ended")
    }

    /// The next line on stdout, as JSON.
    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// Waits for a line on stderr that contains `expected`.
    pub async fn told(&mut self, expected: &str) -> String {
        let mut passed = Vec::new();
        loop {
            match soon(self.stderr.next_line()).await.unwrap() {
                Some(line) if line.contains(expected) => return line,
                Some(line) => passed.push(line),
                None => panic!("{expected:?} is not told, but {passed:?}"),
            }
        }
    }

    pub async fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    pub fn end_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Nobody reads stdout any more.
    pub fn close_output(self) -> Silent {
        drop(self.stdout);
        Silent { child: self.child, stderr: self.stderr }
    }

    /// Sends what Ctrl-C sends.
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    /// Sends a signal, such as `-HUP`.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits until it has a thread that writes into a pipe which is full.
    pub async fn is_stuck(&self) {
        let threads = format!("/proc/{}/task", self.child.id().unwrap());
        let is_writing = |thread: std::io::Result<std::fs::DirEntry>| {
            let waits_in = std::fs::read_to_string(thread.unwrap().path().join("wchan")).unwrap_or_default();
            waits_in.contains("pipe_write")
        };
        eventually("it is stuck", async || std::fs::read_dir(&threads).unwrap().any(is_writing)).await;
    }

    /// Waits until it ends by itself, and reads nothing that it prints.
    pub async fn end_unread(&mut self) -> Option<i32> {
        soon(self.child.wait()).await.unwrap().code()
    }

    /// Waits until it ends by itself.
    pub async fn end(mut self) -> Ended {
        let stdout = rest(&mut self.stdout).await;
        let stderr = rest(&mut self.stderr).await.join("\n");
        let code = soon(self.child.wait()).await.unwrap().code();
        Ended { code, stdout, stderr }
    }
}

/// The binary while it runs and nobody reads its stdout.
pub struct Silent {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Silent {
    /// Waits until it ends by itself; gives its code and the rest of stderr.
    pub async fn end(mut self) -> (Option<i32>, String) {
        let stderr = rest(&mut self.stderr).await.join("\n");
        (soon(self.child.wait()).await.unwrap().code(), stderr)
    }
}

async fn rest(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>) -> Vec<String> {
    let mut rest = Vec::new();
    while let Some(line) = soon(lines.next_line()).await.unwrap() {
        rest.push(line);
    }
    rest
}
