//! A node in a process of its own, behind a relay that its clients come through.

use crate::{
    process::Process,
    relay::{Relay, Weather},
    site::Site,
};
use anyhow::{Context, bail};
use skywave_testing::Port;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Where Debian keeps libraries, in a directory for each architecture.
const LIBRARIES: &str = "/usr/lib";
/// The one that gives a process another clock (package `libfaketime`).
const FAKETIME: &str = "faketime/libfaketime.so.1";

/// The library that gives a process another clock, when it is installed.
pub fn clock_library() -> Option<PathBuf> {
    let directories = std::fs::read_dir(LIBRARIES).ok()?.filter_map(Result::ok);
    directories.map(|directory| directory.path().join(FAKETIME)).find(|library| library.exists())
}

pub struct Node {
    /// `eu-1`: also its id.
    pub name: String,
    pub region: String,
    site: Site,
    binary: PathBuf,
    settings: Vec<(String, String)>,
    log: PathBuf,
    public: SocketAddr,
    _port: Port,
    pub relay: Relay,
    process: Option<Process>,
    /// What is added to its wall clock, in seconds.
    clock_offset: i32,
}

impl Node {
    /// Makes its path; the node itself is not started yet.
    pub async fn new(
        name: &str,
        region: &str,
        site: &Site,
        binary: &Path,
        directory: &Path,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let port = site.free_port().await?;
        let public = (Ipv4Addr::LOCALHOST, port.number()).into();
        let relay = Relay::both(site.address(), public, Weather::CLEAR, seed);
        Ok(Self {
            name: name.to_owned(),
            region: region.to_owned(),
            site: site.clone(),
            binary: binary.to_owned(),
            settings: Vec::new(),
            log: directory.join(format!("{name}.log")),
            public,
            _port: port,
            relay: site.run(relay).await??,
            process: None,
            clock_offset: 0,
        })
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        format!("https://{}", self.relay.address())
    }

    /// The settings of its next start, as names of the environment without the prefix.
    pub fn configure(&mut self, settings: Vec<(String, String)>) {
        self.settings = settings;
    }

    /// From its next start on its wall clock is off by so many seconds.
    pub fn offset_clock(&mut self, seconds: i32) {
        self.clock_offset = seconds;
    }

    /// Starts it, also again after its end, and waits until it is ready.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.process = self.launch().await?;
        if self.process.is_some() {
            return Ok(());
        }
        let log = std::fs::read_to_string(&self.log)?;
        bail!("{} does not start: {}", self.name, log.lines().last().unwrap_or("it says nothing"))
    }

    /// Starts the process; `None` when it ends at once.
    async fn launch(&self) -> anyhow::Result<Option<Process>> {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--dev"]);
        command.env("SKYWAVE_LISTEN__PUBLIC", self.public.to_string());
        command.envs(self.settings.iter().map(|(key, value)| (format!("SKYWAVE_{key}"), value)));
        if self.clock_offset != 0 {
            let library = clock_library().context("another clock needs libfaketime: install it")?;
            command.env("LD_PRELOAD", library).env("FAKETIME", format!("{:+}s", self.clock_offset));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let mut process = Process::start(&self.site, &self.name, command, &self.log, true).await?;
        let stdout = process.stdout().context("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = timeout(START_TIMEOUT, lines.next_line());
        match first.await.with_context(|| format!("{} does not get ready", self.name))?? {
            Some(line) if line.starts_with("ready ") => Ok(Some(process)),
            Some(line) => bail!("{} said {line:?}", self.name),
            None => Ok(None),
        }
    }

    /// Ends it without a farewell.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Tells it to drain, as an orchestrator does.
    pub fn drain(&self) -> anyhow::Result<()> {
        self.process.as_ref().with_context(|| format!("{} is not running", self.name))?.signal("TERM")
    }

    /// Waits until it has drained.
    pub async fn drained(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.ended().await,
            None => Ok(()),
        }
    }
}
