//! A node's log. A thread of its own writes the lines to stderr: a slow reader, or none, holds up nothing.

use super::{connection::variable, usage};
use anyhow::Context as _;
use skywave::config::{LogConfig, LogFormat};
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal as _, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    time::Duration,
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The most lines that wait to be written; more are lost, which is told once there is room.
const MAX_WAITING: usize = 4_096;
/// How long what waits may take to be written at the end.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// What goes to the thread that writes.
enum Item {
    Line(Vec<u8>),
    /// All lines before it were written.
    End(SyncSender<()>),
}

/// Where lines wait to be written.
#[derive(Clone)]
pub(crate) struct Log {
    items: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Begins to log as is configured; `RUST_LOG` overrides the level. Panics are told there as well; one of the first
    /// thread ends the process.
    ///
    /// # Errors
    /// When the level cannot be read, or there is no thread to be had.
    pub(crate) fn start(config: &LogConfig) -> anyhow::Result<Self> {
        let (name, filter) = match variable("RUST_LOG")? {
            Some(filter) => ("RUST_LOG", filter),
            None => ("log.level", config.level.clone()),
        };
        let filter = EnvFilter::try_new(&filter).map_err(|error| usage(format!("{name}: {error}")))?;
        let log = Self::to(io::stderr()).context("no thread can be started for the log")?;
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone());
        match config.format {
            LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
            LogFormat::Json => lines.json().init(),
        }
        let ending = log.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let backtrace = Backtrace::capture();
            let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
            let (place, message) = (panic.location().map(tracing::field::display), panic.payload_as_str());
            let backtrace = backtrace.as_ref().map(tracing::field::display);
            tracing::error!(place, backtrace, "panicked: {}", message.unwrap_or("it says nothing"));
            // Unwound, it might wait for ever: a runtime that gets too few threads waits for those that it got.
            if std::thread::current().name() == Some("main") {
                ending.end();
                std::process::exit(1);
            }
        }));
        Ok(log)
    }

    fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (items, received) = mpsc::sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let told = lost.clone();
        std::thread::Builder::new().spawn(move || write(writer, &received, &told))?;
        Ok(Self { items, lost })
    }

    /// Waits until all is written, for a second at most.
    pub(crate) fn end(&self) {
        let (ended, all_written) = mpsc::sync_channel(1);
        if self.items.try_send(Item::End(ended)).is_ok() {
            // Where nobody reads, nobody misses what is left.
            let _ = all_written.recv_timeout(END_TIMEOUT);
        }
    }
}

fn write(mut writer: impl Write, items: &Receiver<Item>, lost: &AtomicU64) {
    for item in items {
        match item {
            // A disk may be full, and have room again.
            Item::Line(line) => drop(writer.write_all(&line)),
            Item::End(ended) => drop(ended.send(())),
        }
        let lines = lost.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "lines of the log are lost: what reads it was too slow");
        }
    }
}

/// Takes a line of the log.
pub(crate) struct Line<'a>(&'a Log);

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.items.try_send(Item::Line(line.to_vec())).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    /// Gives each line away, once it may.
    struct Slow(Receiver<()>, Sender<String>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.send(String::from_utf8_lossy(line).into_owned()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_reads_slowly_loses_lines_and_holds_up_nobody() {
        let (go, goes) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let log = Log::to(Slow(goes, sender)).unwrap();
        // One is being written.
        for number in 0..MAX_WAITING + 11 {
            log.make_writer().write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        let lost = log.lost.load(Ordering::Relaxed);
        assert!((10..=11).contains(&lost), "{lost}");
        drop(go);
        let kept = MAX_WAITING + 11 - lost as usize;
        assert!((0..kept).all(|number| written.recv().unwrap() == format!("{number}\n")));
        log.end();
    }

    #[test]
    fn all_is_written_before_the_end() {
        let (go, goes) = mpsc::channel();
        drop(go);
        let (sender, written) = mpsc::channel();
        let log = Log::to(Slow(goes, sender)).unwrap();
        log.make_writer().write_all(b"the last\n").unwrap();
        log.end();
        assert_eq!(written.try_recv().unwrap(), "the last\n");
    }
}
