//! What the application does, who waits for what comes of it, and the way there to the session's task.

use crate::readers::EventQueue;
use skywave_client_session::{ConnectError, RequestError, SubscriptionId, TransportKind};
use skywave_protocol::{
    Channel, ClientFrame, Payload, RequestId, ServerFrame,
    frame::{self, Key, Network, SubscribeOptions},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub(crate) type Reply<T> = oneshot::Sender<Result<T, RequestError>>;
pub(crate) type Outcome = oneshot::Sender<Result<(), ConnectError>>;

/// What the application does.
pub(crate) enum Order {
    /// With its place in the queue.
    Command(Command, OwnedSemaphorePermit),
    /// It has dropped this subscription.
    Forget(Channel, SubscriptionId),
}

/// What the application asks for.
pub(crate) enum Command {
    Subscribe {
        channel: Channel,
        id: SubscriptionId,
        options: SubscribeOptions,
        reader: EventQueue,
        reply: Reply<ServerFrame>,
    },
    Publish {
        channel: Channel,
        data: Payload,
        key: Key,
        reply: Reply<ServerFrame>,
    },
    Emit(frame::Emit),
    Request {
        frame: Box<dyn FnOnce(RequestId) -> ClientFrame + Send>,
        /// How long the reply may take.
        patience: Duration,
        reply: Reply<ServerFrame>,
    },
    /// Brings a newer token, which replaces a fixed one.
    Refresh {
        token: Arc<str>,
        reply: Reply<ServerFrame>,
    },
    Network(Network),
    /// Something may have happened to the connection.
    Check,
    Cut,
    Switch {
        kind: TransportKind,
        reply: Outcome,
    },
    Close(oneshot::Sender<()>),
}

/// The way to the session's task. The task ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    /// One queue for all, so that everything happens in the order in which the application did it.
    orders: mpsc::UnboundedSender<Order>,
    /// Bounds the commands in the queue. A drop cannot wait, and there is one per subscription.
    places: Arc<Semaphore>,
}

impl Handle {
    pub(crate) fn new(orders: mpsc::UnboundedSender<Order>, places: usize) -> Self {
        Self { orders, places: Arc::new(Semaphore::new(places)) }
    }

    /// Waits for a place.
    pub(crate) async fn command(&self, command: Command) -> Result<(), Ended> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| Ended)?;
        self.orders.send(Order::Command(command, place)).map_err(|_| Ended)
    }

    /// The application has dropped a subscription.
    pub(crate) fn forget(&self, channel: Channel, id: SubscriptionId) {
        // A session that has ended has nothing to forget.
        let _ = self.orders.send(Order::Forget(channel, id));
    }
}

/// The session's task is no more.
#[derive(Debug)]
pub(crate) struct Ended;
