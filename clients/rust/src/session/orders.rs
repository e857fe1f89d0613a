//! What the application does, and who waits for what comes of it.

use super::EventQueue;
use crate::{
    error::{ConnectError, RequestError},
    transport::TransportKind,
};
use skywave_client_session::SubscriptionId;
use skywave_protocol::{
    Channel, ClientFrame, Payload, RequestId, ServerFrame,
    frame::{self, Key, Network, SubscribeOptions},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub(super) type Reply<T> = oneshot::Sender<Result<T, RequestError>>;
pub(super) type Outcome = oneshot::Sender<Result<(), ConnectError>>;

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
