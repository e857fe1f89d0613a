//! Where a region stands: on loopback with all others, or in a network namespace of its own.

use anyhow::Context;
use skywave_testing::Port;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{runtime::Handle, sync::oneshot, task::JoinSet};

/// A place for sockets and processes; a namespace ends with the last of its clones and of its processes.
#[derive(Clone)]
pub struct Site {
    address: IpAddr,
    runtime: Handle,
    _namespace: Option<Arc<Namespace>>,
}

/// Ends the thread that holds a namespace when it is dropped.
struct Namespace {
    _end: oneshot::Sender<()>,
}

impl Site {
    /// The network that this process is in.
    pub fn here() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), runtime: Handle::current(), _namespace: None }
    }

    /// A new network namespace with nothing but loopback.
    ///
    /// # Errors
    /// When this process may not make namespaces.
    #[cfg(all(target_os = "linux", feature = "packets"))]
    pub async fn apart(name: &str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let (tell, told) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let holder = move || match enter() {
            Ok(runtime) => {
                // Nobody waits any more: the namespace ends again.
                if tell.send(Ok(runtime.handle().clone())).is_ok() {
                    let _ = runtime.block_on(ended);
                }
                runtime.shutdown_background();
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        std::thread::Builder::new().name(format!("site-{name}")).spawn(holder)?;
        let runtime = told.await.context("no namespace")??;
        Ok(Self { address: address.into(), runtime, _namespace: Some(Arc::new(Namespace { _end: end })) })
    }

    /// Where servers of this site listen.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Does work whose sockets and processes belong here; it ends when nobody waits for it any more.
    ///
    /// # Errors
    /// When the work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let mut task = JoinSet::new();
        task.spawn_on(work, &self.runtime);
        Ok(task.join_next().await.context("no work")??)
    }

    /// A port of this site that is free on TCP and UDP, and nobody else's while it is held.
    ///
    /// # Errors
    /// When there is none.
    pub async fn free_port(&self) -> anyhow::Result<Port> {
        let address = self.address;
        self.run(async move { Port::free_at(address) }).await
    }

    /// The file by which other programs enter this site's network; there is one as long as the site.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub async fn namespace(&self) -> anyhow::Result<PathBuf> {
        let thread = self.run(async { std::fs::read_link("/proc/thread-self") }).await??;
        Ok(Path::new("/proc").join(thread).join("ns/net"))
    }

    /// How many segments TCP has sent again since this network namespace exists.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub async fn retransmissions(&self) -> anyhow::Result<u64> {
        let text = self.run(async { std::fs::read_to_string("/proc/thread-self/net/snmp") }).await??;
        let mut tcp = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = tcp.next().zip(tcp.next()).context("no counters of TCP")?;
        let of_name = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RetransSegs");
        Ok(of_name.context("no counter of retransmissions")?.1.parse()?)
    }
}

/// Moves this thread into a new namespace, and gives a runtime whose threads and children are in it, too.
#[cfg(all(target_os = "linux", feature = "packets"))]
fn enter() -> anyhow::Result<tokio::runtime::Runtime> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context(
        "a network namespace needs root: run as root, under `unshare --user --map-root-user`, or with `--wan relay`",
    )?;
    ip("link set lo up")?;
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Runs `ip`, in the network of this thread.
///
/// # Errors
/// When there is no such program, or it cannot do that.
#[cfg(all(target_os = "linux", feature = "packets"))]
pub fn ip(line: &str) -> anyhow::Result<()> {
    let output = std::process::Command::new("ip").args(line.split(' ')).output();
    let output = output.context("cannot run ip: install iproute2")?;
    if !output.status.success() {
        anyhow::bail!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
