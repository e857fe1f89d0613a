//! The node in a process of its own: killed, stopped where it is, or asked to end.

use crate::soon;
use std::{
    ffi::OsStr,
    fs::read_to_string,
    net::SocketAddr,
    process::{ExitStatus, Stdio},
};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The binary, as Cargo has built it for the test; nothing of this process's environment configures it.
pub fn command<Argument: AsRef<OsStr>, Name: AsRef<OsStr>, Value: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = Argument>,
    environment: impl IntoIterator<Item = (Name, Value)>,
) -> Command {
    let binary = std::env::var_os("CARGO_BIN_EXE_skywave").expect("run this test by `cargo test`");
    let mut command = Command::new(binary);
    command.args(arguments).env_clear().envs(environment).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A node that serves; it is killed when this is dropped.
pub struct Process {
    child: Child,
    listeners: Listeners,
    log: NamedTempFile,
}

/// Where it listens, as it says when it is ready.
struct Listeners(String);

impl Listeners {
    fn of(&self, name: &str) -> SocketAddr {
        let said = self.0.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        said.unwrap_or_else(|| panic!("no listener {name}: {}", self.0)).parse().unwrap()
    }
}

impl Process {
    /// `skywave serve --dev` in this environment.
    pub async fn serve<Name: AsRef<OsStr>, Value: AsRef<OsStr>>(
        environment: impl IntoIterator<Item = (Name, Value)>,
    ) -> Self {
        Self::start(command(["serve", "--dev"], environment)).await
    }

    /// Runs a command of [`command`] that serves, and waits until it is ready.
    pub async fn start(mut command: Command) -> Self {
        let log = NamedTempFile::new().unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log.reopen().unwrap()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = soon(lines.next_line()).await.unwrap();
        let ready = ready.unwrap_or_else(|| panic!("it ends: {}", read_to_string(log.path()).unwrap()));
        Self { child, listeners: Listeners(ready), log }
    }

    pub fn public(&self) -> SocketAddr {
        self.listeners.of("public")
    }

    pub fn plain(&self) -> SocketAddr {
        self.listeners.of("plain")
    }

    pub fn admin(&self) -> SocketAddr {
        self.listeners.of("admin")
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.public().port())
    }

    /// How many lines of its log hold these words.
    pub fn has_told(&self, words: &str) -> usize {
        read_to_string(self.log.path()).unwrap().lines().filter(|line| line.contains(words)).count()
    }

    /// Ends it without a farewell.
    pub async fn kill(&mut self) {
        soon(self.child.kill()).await.unwrap();
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        signal(&self.child, "-TERM");
    }

    /// It stands still where it is, its connections open, until [`Self::thaw`].
    pub fn freeze(&self) {
        signal(&self.child, "-STOP");
    }

    pub fn thaw(&self) {
        signal(&self.child, "-CONT");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        soon(self.child.wait()).await.unwrap()
    }
}

/// Sends a signal, such as `-HUP`, to a process that runs.
pub fn signal(child: &Child, signal: &str) {
    let pid = child.id().expect("it has ended").to_string();
    assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
}
