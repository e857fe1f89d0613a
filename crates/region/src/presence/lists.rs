//! Who is on a channel, read once for all who ask at about the same time.

use super::Shared;
use parking_lot::Mutex;
use skywave_protocol::{Channel, frame::Members};
use skywave_redis::CallError;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// The least time between the beginnings of two reads of a channel, for each member that was listed. So the lists of
/// one channel never keep Redis busy, however many ask.
const PAUSE: Duration = Duration::from_micros(50);

type Answer = oneshot::Sender<Result<Arc<Members>, CallError>>;

/// The channels that are being read, with those who came too late for the read that is under way: something may have
/// changed since it began.
#[derive(Default)]
pub(crate) struct Lists(Mutex<HashMap<Channel, Vec<Answer>>>);

impl Lists {
    /// Lets this one wait for the channel's next read; whether somebody has to begin reading.
    fn wait(&self, channel: &Channel, answer: Answer) -> bool {
        let mut reading = self.0.lock();
        match reading.get_mut(channel) {
            Some(waiting) => {
                waiting.push(answer);
                false
            }
            None => {
                reading.insert(channel.clone(), vec![answer]);
                true
            }
        }
    }

    /// Those whom the next read is for. Nobody: the channel is not read any more.
    fn next(&self, channel: &Channel) -> Vec<Answer> {
        let mut reading = self.0.lock();
        let waiting = reading.get_mut(channel).map(std::mem::take).unwrap_or_default();
        if waiting.is_empty() {
            reading.remove(channel);
        }
        waiting
    }
}

impl Shared {
    /// Who is on the channel, after all that was called before.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn list(
        self: &Arc<Self>,
        channel: &Channel,
    ) -> impl Future<Output = Result<Members, CallError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        if self.lists.wait(channel, answer) {
            tokio::spawn(self.clone().read_lists(channel.clone()));
        }
        async move {
            let listed = answered.await.unwrap_or(Err(CallError::Away))?;
            Ok(Arc::unwrap_or_clone(listed))
        }
    }

    /// Reads for as long as somebody asks.
    async fn read_lists(self: Arc<Self>, channel: Channel) {
        loop {
            let waiting = self.lists.next(&channel);
            if waiting.is_empty() {
                return;
            }
            let begun = Instant::now();
            self.rooms.reads(&channel, true);
            let listed = self.ask(&channel).await.map(|listing| {
                let footing = self.footing(&channel, &listing.life);
                Arc::new(self.rooms.listed(&channel, listing, footing))
            });
            self.rooms.reads(&channel, false);
            let listing = listed.as_ref().map_or(0, |members| members.members.len() as u32);
            let pause = PAUSE.saturating_mul(listing);
            for answer in waiting {
                // Who does not wait any more does not need it.
                let _ = answer.send(listed.clone());
            }
            tokio::time::sleep_until(begun + pause).await;
        }
    }
}
