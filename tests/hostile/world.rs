//! A node's configuration for tests of its edges, and waits that fail instead of hanging.

use skywave::{
    config::Config,
    server::{Server, StartError},
};
use skywave_client::{ChannelEvent, Client, ClientOptions, Publication, Subscription};
use std::{io, time::Duration};

/// Nothing in these tests takes so long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The development configuration on free ports, with some keys set as by environment: `LIMITS__SESSIONS`.
pub fn config(settings: &[(&str, &str)]) -> Config {
    let defaults = [
        ("LISTEN__PUBLIC", "127.0.0.1:0"),
        ("LISTEN__PLAIN", "127.0.0.1:0"),
        ("LISTEN__ADMIN", "127.0.0.1:0"),
        // Tests are in a greater hurry than people.
        ("LIMITS__REQUESTS_PER_SECOND", "100000"),
        ("LIMITS__PUBLISHES_PER_SECOND", "100000"),
    ];
    let environment = defaults
        .iter()
        .filter(|(key, _)| settings.iter().all(|(set, _)| set != key))
        .chain(settings)
        .map(|(key, value)| (format!("SKYWAVE_{key}"), (*value).to_owned()));
    Config::load(None, true, environment).unwrap()
}

/// A node with this configuration. A port that is free for TCP may be another test's for UDP: then it takes another.
pub async fn start(settings: &[(&str, &str)]) -> Server {
    for _ in 0..10 {
        match Server::start(config(settings)).await {
            Err(StartError::Listen(error)) if error.source.kind() == io::ErrorKind::AddrInUse => {}
            started => return started.unwrap(),
        }
    }
    panic!("no port is free for both TCP and UDP");
}

pub async fn connect(options: ClientOptions) -> Client {
    soon(Client::connect(options)).await.unwrap()
}

/// Fails instead of hanging.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// The next publication; a subscription that is taken up again before it is passed over.
pub async fn publication(subscription: &mut Subscription) -> Publication {
    loop {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(publication)) => return publication,
            Some(ChannelEvent::Subscribed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
