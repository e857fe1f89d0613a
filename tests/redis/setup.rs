//! What a node finds when it connects: passwords, TLS, another deployment's settings, nothing at all.

use skywave::{
    config::Secret,
    redis::{Address, ConnectError, Stranger},
};
use skywave_testing::{
    FREE_PORT, RedisServer, eventually,
    node::broker::{Node, settings, settings_in},
    soon,
};
use std::time::{Duration, Instant};

async fn connect(server: &RedisServer, change: impl FnOnce(&mut Address)) -> Result<Node, ConnectError> {
    let mut settings = settings(server);
    change(&mut settings.address);
    soon(Node::with(settings)).await
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let server = RedisServer::start().await;
    let _first = Node::new(&server).await;
    let refused = connect(&server, |address| address.partitions = 8).await.err().unwrap();
    assert!(refused.to_string().contains("this node has 8 partitions"), "{refused}");
    // Another deployment may share the server.
    let other = connect(&server, |address| {
        address.partitions = 8;
        address.prefix = "other".to_owned();
    });
    assert_eq!(other.await.unwrap().publish(1).await.offset, 1);
}

#[tokio::test]
async fn another_regions_redis_is_refused_with_its_name_and_no_password() {
    let server = RedisServer::start().await;
    server.run::<()>("CONFIG SET requirepass secret").await;
    let url = Secret::new(format!("redis://:secret@127.0.0.1:{}", server.port()));
    let as_region = |name: &str, url: &Secret| {
        let mut settings = settings_in(name, url.expose());
        settings.address.url = url.clone();
        soon(Node::with(settings))
    };
    let _first = as_region("eu", &url).await.unwrap();
    let refused = as_region("us", &url).await.err().unwrap();
    assert!(matches!(refused, ConnectError::Stranger(Stranger::Own { .. })), "{refused:?}");
    let sentence = refused.to_string();
    for word in ["region `us`", "belongs to region `eu`", "sky:{sky:partitions}:region", "redis://127.0.0.1"]
    {
        assert!(sentence.contains(word), "{sentence}");
    }
    assert!(!sentence.contains("secret"), "{sentence}");
}

#[tokio::test]
async fn a_redis_that_lost_its_data_says_again_whose_it_is() {
    let server = RedisServer::start().await;
    let _node = Node::new(&server).await;
    server.run::<()>("FLUSHALL").await;
    let stands = async |key: &str| server.run::<Option<String>>(&format!("GET {key}")).await;
    eventually("the name", async || {
        let name = stands("sky:{sky:partitions}:region").await;
        name.as_deref() == Some("eu") && stands("sky:partitions").await.as_deref() == Some("4")
    })
    .await;
}

#[tokio::test]
async fn deployments_with_another_prefix_do_not_meet() {
    let server = RedisServer::start().await;
    let one = Node::new(&server).await;
    let other = connect(&server, |address| address.prefix = "other".to_owned()).await.unwrap();
    one.publish(1).await;
    assert_eq!(other.publish(2).await.offset, 1);
    other.deliveries(1).await;
    assert_eq!(other.delivered("chat:1")[0].2, "Json(2)");
}

#[tokio::test]
async fn a_user_with_a_password_needs_only_the_keys_of_its_prefix() {
    let server = RedisServer::start().await;
    server
        .run::<()>(
            "ACL SETUSER node on >secret ~sky:* &sky:* -@all +@connection +info +ping +set +get +hset +hget +hmget \
             +hgetall +hincrby +exists +del +getbit +setbit +pexpire +time +evalsha +script|load +script|exists +xadd +xread +xrange +xrevrange +xlen \
             +xtrim +xinfo|stream +publish +subscribe",
        )
        .await;
    server.run::<()>("ACL SETUSER default off").await;
    let url = |password| Secret::new(format!("redis://node:{password}@127.0.0.1:{}", server.port()));
    let node = connect(&server, |address| address.url = url("secret")).await.unwrap();
    node.publish(1).await;
    node.deliveries(1).await;
    let refused = connect(&server, |address| address.url = url("wrong")).await.err().unwrap();
    assert!(matches!(refused, ConnectError::Redis(_)) && !refused.to_string().contains("wrong"), "{refused}");
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_told_in_bounded_time() {
    let mut server = RedisServer::start().await;
    server.kill();
    let begun = Instant::now();
    assert!(connect(&server, |_| {}).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_redis_that_accepts_and_says_nothing_is_told_in_bounded_time() {
    let server = RedisServer::start().await;
    server.freeze();
    let begun = Instant::now();
    assert!(connect(&server, |_| {}).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn schemes_that_are_not_served_are_refused() {
    let server = RedisServer::start().await;
    for url in ["redis+other://localhost:26379", "redis+cluster://localhost:6379/1", "http://localhost"] {
        let refused = connect(&server, |address| address.url = Secret::new(url)).await.err().unwrap();
        assert!(matches!(refused, ConnectError::Url(_)), "{refused}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_none_and_a_server_that_is_one_of_a_cluster_are_told() {
    let server = RedisServer::start().await;
    let url = Secret::new(server.url().replace("redis", "redis+cluster"));
    let refused = connect(&server, |address| address.url = url).await.err().unwrap();
    assert!(refused.to_string().contains("cluster support disabled"), "{refused}");
    let member = RedisServer::with(&["--cluster-enabled", "yes", "--cluster-port", FREE_PORT]).await;
    let refused = connect(&member, |_| {}).await.err().unwrap();
    assert!(refused.to_string().contains("redis+cluster"), "{refused}");
}

#[tokio::test]
async fn a_broker_that_is_dropped_leaves_no_connection() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let connections = async || {
        let clients: String = server.run("CLIENT LIST").await;
        clients.lines().filter(|client| client.contains("skywave-") || client.contains(" sub=5")).count()
    };
    assert_eq!(connections().await, 4);
    drop(node);
    eventually("the end", async || connections().await == 0).await;
}
