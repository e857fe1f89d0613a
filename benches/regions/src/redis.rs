//! A region's Redis: one server, two with three sentinels, or one of a cluster's; each with its own directory.

use crate::{cluster, process::Process, site::Site};
use anyhow::{Context, bail};
use redis::{Client, FromRedisValue};
use skywave_testing::Port;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The name under which sentinels watch the master.
const MASTER: &str = "sky";
/// Writes each acknowledged command to disk first.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// One server.
pub struct Redis {
    name: String,
    site: Site,
    directory: PathBuf,
    port: Port,
    /// Where it speaks to others of its cluster.
    cluster_port: Port,
    settings: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Writes each acknowledged command to disk first.
    pub async fn durable(name: &str, site: &Site, directory: &Path) -> anyhow::Result<Self> {
        Self::start(name, site, directory, &DURABLE).await
    }

    /// The same, as a server of a cluster that it still has to join.
    pub async fn of_cluster(name: &str, site: &Site, directory: &Path) -> anyhow::Result<Self> {
        Self::start(name, site, directory, &[&DURABLE[..], &cluster::SETTINGS].concat()).await
    }

    pub async fn start(name: &str, site: &Site, directory: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let directory = directory.join(name);
        fs::create_dir_all(&directory)?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let (name, site) = (name.to_owned(), site.clone());
        let (port, cluster_port) = (site.free_port().await?, site.free_port().await?);
        let mut redis = Self { name, site, directory, port, cluster_port, settings, process: None };
        redis.relaunch().await?;
        Ok(redis)
    }

    /// Starts a killed server again, on its port and with what it has on disk.
    pub async fn relaunch(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.number().to_string(), "--bind", &self.site.address().to_string()]);
        command.args(["--protected-mode", "no", "--save", ""]);
        // A replica gets what it misses over a socket, without a file.
        command.args(["--repl-diskless-sync-delay", "0", "--enable-debug-command", "local"]);
        command.arg("--dir").arg(&self.directory).args(&self.settings);
        if self.settings.iter().any(|setting| setting == cluster::SETTINGS[0]) {
            // By default 10,000 above its own, which there may not be.
            command.args(["--cluster-port", &self.cluster_port.number().to_string()]);
        }
        let log = self.directory.with_extension("log");
        let mut process = Process::start(&self.site, &self.name, command, &log, false).await?;
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if process.has_ended() {
                bail!("{} does not start", self.name);
            }
            if timeout(Duration::from_secs(1), self.run::<String>("PING"))
                .await
                .is_ok_and(|pong| pong.is_ok())
            {
                self.process = Some(process);
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
        bail!("{} does not answer", self.name)
    }

    pub fn address(&self) -> SocketAddr {
        (self.site.address(), self.port.number()).into()
    }

    /// Runs a command, written as on the command line without quotes.
    pub async fn run<T: FromRedisValue + Send + 'static>(&self, line: &str) -> anyhow::Result<T> {
        ask(&self.site, self.address(), line).await
    }

    /// Ends the process without a farewell.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Throws away what a killed server had on disk.
    pub fn wipe(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.directory)?;
        Ok(fs::create_dir_all(&self.directory)?)
    }

    /// The same with further settings, which it keeps.
    pub async fn relaunch_with(&mut self, settings: &[&str]) -> anyhow::Result<()> {
        self.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        self.relaunch().await
    }

    /// Stops the process where it is, connections open, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let process = self.process.as_ref().with_context(|| format!("{} is not running", self.name))?;
        process.signal(if frozen { "STOP" } else { "CONT" })
    }
}

/// Three processes that watch a master and promote its replica.
pub struct Sentinels {
    region: &'static str,
    site: Site,
    ports: Vec<Port>,
    processes: Vec<Process>,
    _replica: Redis,
}

impl Sentinels {
    /// A replica of `master`, and sentinels that know both.
    pub async fn watch(region: &'static str, master: &Redis, directory: &Path) -> anyhow::Result<Self> {
        let (site, host, port) =
            (master.site.clone(), master.site.address().to_string(), master.port.number().to_string());
        let of_master = ["--replicaof", &host, &port];
        let replica = Redis::start("replica", &site, directory, &[&DURABLE[..], &of_master].concat()).await?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !replica.run::<String>("INFO replication").await?.contains("master_link_status:up") {
            if Instant::now() > deadline {
                bail!("the replica does not follow");
            }
            sleep(Duration::from_millis(20)).await;
        }
        let mut sentinels =
            Self { region, site, ports: Vec::new(), processes: Vec::new(), _replica: replica };
        for number in 1..=3 {
            sentinels.add(number, master, directory).await?;
        }
        sentinels.settled().await?;
        Ok(sentinels)
    }

    async fn add(&mut self, number: u32, master: &Redis, directory: &Path) -> anyhow::Result<()> {
        let (name, host) = (format!("sentinel-{number}"), self.site.address());
        let port = self.site.free_port().await?;
        let file = directory.join(format!("{name}.conf"));
        let text = format!(
            "port {}\nbind {host}\nprotected-mode no\nsentinel monitor {MASTER} {host} {} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 10000\n",
            port.number(),
            master.port.number()
        );
        fs::write(&file, text)?;
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel");
        let log = directory.join(format!("{name}.log"));
        self.processes.push(Process::start(&self.site, &name, command, &log, false).await?);
        self.ports.push(port);
        Ok(())
    }

    /// Waits until they know of each other and of the replica.
    async fn settled(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let mut settled = 0;
            for address in self.addresses() {
                let quorum: anyhow::Result<String> =
                    ask(&self.site, address, &format!("SENTINEL CKQUORUM {MASTER}")).await;
                let replicas: anyhow::Result<Vec<redis::Value>> =
                    ask(&self.site, address, &format!("SENTINEL REPLICAS {MASTER}")).await;
                settled += usize::from(quorum.is_ok() && replicas.is_ok_and(|replicas| !replicas.is_empty()));
            }
            if settled == self.ports.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the sentinels do not agree");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let host = self.site.address();
        self.ports.iter().map(move |port| SocketAddr::new(host, port.number()))
    }

    /// Whose Redis they watch.
    pub fn region(&self) -> &'static str {
        self.region
    }

    /// For nodes that ask them.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.addresses().map(|address| address.to_string()).collect();
        format!("redis+sentinel://{}/{MASTER}", addresses.join(","))
    }

    /// Who is the master, by the first sentinel that answers.
    pub async fn master(&self) -> anyhow::Result<SocketAddr> {
        let line = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER}");
        for address in self.addresses() {
            if let Ok((host, port)) = ask::<(String, u16)>(&self.site, address, &line).await {
                return Ok(SocketAddr::new(host.parse()?, port));
            }
        }
        bail!("no sentinel answers")
    }
}

/// Runs a command, written as on the command line without quotes, over a connection of its own.
async fn ask<T: FromRedisValue + Send + 'static>(
    site: &Site,
    address: SocketAddr,
    line: &str,
) -> anyhow::Result<T> {
    let mut words = line.split(' ').map(str::to_owned);
    let mut command = redis::cmd(&words.next().unwrap_or_default());
    command.arg(words.collect::<Vec<_>>());
    let answer = async move {
        let client = Client::open(format!("redis://{address}"))?;
        command.query_async(&mut client.get_multiplexed_async_connection().await?).await
    };
    Ok(site.run(answer).await??)
}
