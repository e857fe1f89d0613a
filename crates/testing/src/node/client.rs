//! Clients of nodes under test, and what their subscribers get.

use crate::soon;
use skywave_client::{
    CertificateCheck, ChannelEvent, Client, ClientOptions, Publication, Subscription, TransportChoice,
    TransportKind,
};

/// For nodes at these addresses, whose certificates nobody knows.
pub fn options(urls: Vec<String>, transport: TransportChoice) -> ClientOptions {
    let certificate = CertificateCheck::Insecure;
    ClientOptions { urls, transport, certificate, ..ClientOptions::new("") }
}

pub async fn connect(options: ClientOptions) -> Client {
    soon(Client::connect(options)).await.unwrap()
}

/// The next publication; anything else that comes before it is passed over, but no loss.
pub async fn publication(subscription: &mut Subscription) -> Publication {
    loop {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(publication)) => return publication,
            Some(ChannelEvent::Gap(gap)) => panic!("{gap:?}"),
            Some(ChannelEvent::Unsubscribed { code, reason }) => panic!("unsubscribed: {code:?} {reason}"),
            Some(_) => {}
            None => panic!("the subscription ended"),
        }
    }
}

/// A transport that is not this one.
pub fn another(kind: TransportKind) -> TransportKind {
    *TransportKind::ALL.iter().find(|other| **other != kind).unwrap()
}
