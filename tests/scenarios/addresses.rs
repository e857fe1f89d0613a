//! The address of a node behind a proxy: a path of it may arrive or not.

use crate::{
    on_every_transport,
    world::{Way, World, json},
};
use skywave_client::{Client, ClientOptions, DialErrors, transport::DialError};
use skywave_testing::{node::connect, soon};

on_every_transport! {
    a_node_under_a_path_is_reached_whether_a_proxy_leaves_that_on_or_takes_it_off,
    a_path_that_is_not_the_nodes_leads_to_no_session,
}

fn below(world: &World, path: &str) -> ClientOptions {
    ClientOptions { urls: vec![world.url() + path], ..world.options() }
}

async fn a_node_under_a_path_is_reached_whether_a_proxy_leaves_that_on_or_takes_it_off(way: Way) {
    let world = World::with(way, &[("NODE__URL", "https://example.com/apps/realtime/")]).await;
    for path in ["", "/", "/apps/realtime", "/apps/realtime/", "/apps/realtime/v1/connect"] {
        let client = connect(below(&world, path)).await;
        soon(client.publish("chat:1", json(1))).await.unwrap();
    }
}

async fn a_path_that_is_not_the_nodes_leads_to_no_session(way: Way) {
    let world = World::with(way, &[("NODE__URL", "https://example.com/apps")]).await;
    for path in ["/app", "/apps2", "/apps/apps", "/other"] {
        let refused = soon(Client::connect(below(&world, path))).await.unwrap_err();
        match (way, DialErrors::of(&refused).and_then(|errors| errors.by(way.kind()))) {
            (Way::WebTransport, Some(DialError::WebTransport(_)))
            | (_, Some(DialError::Refused { status: 404 })) => {}
            _ => panic!("{path}: {refused}"),
        }
    }
}
