//! TCP on a path: in order and without loss, in its time, until the path breaks it.

use super::Shared;
use rand::RngExt;
use std::{future::pending, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Bytes that are delayed together.
const CHUNK_BYTES: usize = 4096;
/// The most chunks on their way in one direction of a connection.
const MAX_CHUNKS: usize = 256;

/// A direction that ends both.
struct Broken;

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    There,
    Back,
}

pub(crate) async fn pass(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(connect(shared.clone(), client));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(shared: Arc<Shared>, client: TcpStream) {
    // Before it is asked where it leads: whoever leads it elsewhere ends it then.
    let mut resets = shared.resets.subscribe();
    let Ok(target) = TcpStream::connect(shared.target()).await else { return };
    for stream in [&client, &target] {
        stream.set_nodelay(true).unwrap();
    }
    let port = target.local_addr().unwrap().port();
    let silence = shared.weather.borrow().silence;
    let ((client_read, client_write), (target_read, target_write)) =
        (client.into_split(), target.into_split());
    let there = shared.carry(client_read, target_write, Direction::There, port, Duration::MAX);
    let back = shared.carry(target_read, client_write, Direction::Back, port, silence);
    tokio::select! {
        // What waited is lost with the connection, even if the way opens in the same moment.
        biased;
        _ = resets.changed() => {}
        // One that was silent for too long drops both, and one that breaks.
        _ = async { tokio::try_join!(there, back) } => {}
    }
}

impl Shared {
    /// Carries one direction of the connection that leads from this port until its end. Nothing is lost, but it may
    /// take its time.
    async fn carry(
        &self,
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
        direction: Direction,
        port: u16,
        silence: Duration,
    ) -> Result<(), Broken> {
        let (chunks, under_way) = mpsc::channel(MAX_CHUNKS);
        tokio::try_join!(self.take(from, chunks, silence), self.give(to, under_way, direction, port))?;
        Ok(())
    }

    /// Takes what is sent until its end, or until it was silent for too long.
    async fn take(
        &self,
        mut from: OwnedReadHalf,
        chunks: mpsc::Sender<(Instant, Vec<u8>)>,
        silence: Duration,
    ) -> Result<(), Broken> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = timeout(silence, from.read(&mut chunk)).await.map_err(|_| Broken)? {
            let rate = self.weather.borrow().rate;
            if let Some(rate) = rate {
                sleep(Duration::from_secs_f64(length as f64 / f64::from(rate))).await;
            }
            let due = Instant::now() + self.delay();
            if chunks.send((due, chunk[..length].to_vec())).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Gives each chunk in its time, as soon as the way is open.
    async fn give(
        &self,
        mut to: OwnedWriteHalf,
        mut under_way: mpsc::Receiver<(Instant, Vec<u8>)>,
        direction: Direction,
        port: u16,
    ) -> Result<(), Broken> {
        while let Some((due, chunk)) = under_way.recv().await {
            sleep_until(due).await;
            self.opened(direction, port).await;
            let breaks = self.weather.borrow().breaks;
            if self.happens(breaks) {
                let part = self.random.lock().random_range(0..chunk.len());
                let _ = to.write_all(&chunk[..part]).await;
                return Err(Broken);
            }
            if to.write_all(&chunk).await.is_err() {
                return Ok(());
            }
        }
        // The other side went already: it needs no end.
        let _ = to.shutdown().await;
        Ok(())
    }

    /// Waits until what is sent this way passes: for ever, where the path has forgotten the connection.
    async fn opened(&self, direction: Direction, port: u16) {
        let mut weather = self.weather.subscribe();
        let open = weather.wait_for(|now| now.tcp && (direction == Direction::There || now.tcp_replies));
        // The sender lives in `self`.
        let _ = open.await;
        if self.forgotten.lock().contains(&port) {
            pending().await
        }
    }
}
