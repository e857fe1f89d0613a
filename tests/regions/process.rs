//! A node in a process of its own, which can be put to sleep.

use crate::patience::soon;
use std::process::Stdio;
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub struct Process {
    /// Where clients reach it.
    pub url: String,
    child: Child,
    log: NamedTempFile,
    _config: NamedTempFile,
}

impl Process {
    pub async fn start(config: NamedTempFile, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skywave"));
        command.args(["serve", "--dev", "--config"]).arg(config.path());
        command.env_clear().envs(settings.iter().copied());
        let log = NamedTempFile::new().unwrap();
        let mut child =
            command.stdout(Stdio::piped()).stderr(log.reopen().unwrap()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = soon(lines.next_line()).await.unwrap().expect("the node ends before it serves");
        let public = ready.split(' ').find_map(|word| word.strip_prefix("public=")).unwrap();
        let url = format!("https://localhost:{}", public.rsplit(':').next().unwrap());
        Self { url, child, log, _config: config }
    }

    /// It stands still where it is, its connections open, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// How many lines of its log hold these words.
    pub fn has_told(&self, words: &str) -> usize {
        let log = std::fs::read_to_string(self.log.path()).unwrap();
        log.lines().filter(|line| line.contains(words)).count()
    }

    /// Ends it without a farewell.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}
