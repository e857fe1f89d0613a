//! What nodes may do in Redis: no more is needed than the documentation says.

use crate::deployment::Deployment;
use skywave::scripts;
use skywave_client::{Json, SubscribeOptions, TransportChoice};
use skywave_testing::{
    RedisCluster, RedisServer, eventually,
    node::broker::{Node as Ear, settings_at},
    soon,
};
use std::collections::BTreeSet;

const LOGIN: &str = "skywave:PASSWORD@";
const CHANNELS: &str = "\n[channels.meeting]\nhistory = 10\npresence = true\npresence_batch = \"0s\"\n";

/// The words of the command that the documentation shows, behind `redis-cli`.
fn documented() -> Vec<String> {
    let text = include_str!("../../docs/regions.md");
    let (_, command) = text.split_once("```sh\nredis-cli ACL SETUSER").unwrap();
    let (command, _) = command.split_once("```").unwrap();
    let words = command.split_whitespace().filter(|word| *word != "\\").map(|word| word.replace('\'', ""));
    ["ACL", "SETUSER"].map(str::to_owned).into_iter().chain(words).collect()
}

/// A server that knows the user of the documentation.
async fn server() -> RedisServer {
    let server = RedisServer::durable().await;
    let words = documented();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    server.run_words::<()>(&words).await;
    server
}

#[test]
fn all_commands_of_scripts_are_in_the_documentation() {
    let documented: BTreeSet<_> = documented().into_iter().collect();
    for script in scripts::ALL.iter().copied().flatten() {
        for call in script.source().split("call('").skip(1) {
            let command = call.split('\'').next().unwrap().to_lowercase();
            let is_there =
                documented.iter().any(|word| word.split('|').next() == Some(&format!("+{command}")));
            assert!(is_there, "{}: {command}", script.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_documentation_may_do_all_that_nodes_do() {
    let servers = vec![("eu", server().await), ("us", server().await)];
    let mut deployment = Deployment::on(servers, LOGIN, CHANNELS).await;
    deployment.add_node("eu").await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;

    // Sessions and who is there, in both regions.
    let mut clients = Vec::new();
    let mut subscriptions = Vec::new();
    for region in &deployment.regions {
        let client = region.client(TransportChoice::WebSocket).await;
        let options = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
        subscriptions.push(soon(client.subscribe("meeting:1", options)).await.unwrap());
        soon(client.publish("meeting:1", Json::of(&1).unwrap())).await.unwrap();
        soon(client.emit("meeting:1", Json::of(&1).unwrap(), None)).await.unwrap();
        clients.push(client);
    }
    for client in &clients {
        eventually("both members", async || soon(client.presence("meeting:1")).await.unwrap().count == 2)
            .await;
    }

    // What a log has lost is repaired, and a region that knows nothing is filled.
    deployment.trim_while_cut("eu", "us", 11..=20, 0).await;
    deployment.publish("us", 21..=30).await;
    deployment.all_arrive("eu", "us", 30).await;
    drop(deployment.region_mut("eu").nodes.remove(0));
    soon(clients[0].publish("meeting:1", Json::of(&2).unwrap())).await.unwrap();
    drop(subscriptions);
    deployment.region("eu").redis.run::<()>("FLUSHALL").await;
    deployment.bridged("eu").await;

    for region in &deployment.regions {
        let refused: Vec<redis::Value> = region.redis.run("ACL LOG").await;
        assert!(refused.is_empty(), "{}: {refused:?}", region.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_documentation_may_do_all_that_nodes_do_in_a_cluster() {
    let cluster = RedisCluster::start().await;
    let words = documented();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    for server in cluster.servers() {
        server.run_words::<()>(&words).await;
        server.run::<()>("ACL SETUSER default off").await;
    }
    let url = cluster.url().replacen("://", &format!("://{LOGIN}"), 1);
    let ear = Ear::with(settings_at(&url)).await.unwrap();
    for number in 1..=10 {
        ear.publish(number).await;
    }
    ear.deliveries(10).await;
}
