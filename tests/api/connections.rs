//! Who finds a connection to the admin listener when many are open.

use crate::world::World;
use skywave_testing::soon;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// More than the listener keeps open, and more than it does commands at a time.
const MANY: usize = 280;
/// A balancer waits no longer for its health check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection on which this was sent.
async fn connection(world: &World, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.server.admin().unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// An answer of `/healthz`, in lower case.
async fn head(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        assert_ne!(soon(stream.read_buf(&mut answer)).await.unwrap(), 0, "it was closed");
    }
    String::from_utf8(answer).unwrap().to_lowercase()
}

/// What balancers ask, each time on a new connection.
async fn are_checks_answered(world: &World) -> bool {
    for path in ["healthz", "readyz", "metrics"] {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let mut stream = connection(world, &request).await;
        match timeout(CHECK_TIMEOUT, stream.read_to_end(&mut answer)).await {
            Ok(read) => assert!(read.is_ok() && answer.starts_with(b"HTTP/1.1 200"), "{path}: {answer:?}"),
            Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn health_checks_are_answered_however_many_connections_backends_keep() {
    let world = World::new().await;
    let mut kept = Vec::new();
    let mut ended = 0;
    for _ in 0..MANY {
        let mut stream = connection(&world, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        if head(&mut stream).await.contains("connection: close") { ended += 1 } else { kept.push(stream) }
    }
    assert!(ended > 0 && kept.len() > MANY / 2, "{} are kept", kept.len());
    assert!(are_checks_answered(&world).await);
    for stream in &mut kept {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        head(stream).await;
    }
}

#[tokio::test]
async fn health_checks_are_answered_however_many_commands_are_under_way() {
    let world = World::new().await;
    let announced = "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: 100\r\n\r\n{";
    let mut unfinished = Vec::new();
    for _ in 0..MANY {
        unfinished.push(connection(&world, announced).await);
    }
    assert!(are_checks_answered(&world).await);
}

#[tokio::test]
async fn a_request_that_is_under_way_is_answered_before_the_node_ends() {
    let world = World::new().await;
    let body = r#"{"channel": "chat:1", "data": 1}"#;
    let mut idle = connection(&world, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    head(&mut idle).await;
    let mut publishing = connection(
        &world,
        &format!(
            "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        ),
    )
    .await;
    let mut asked_for_body = Vec::new();
    while !asked_for_body.ends_with(b"\r\n\r\n") {
        assert_ne!(soon(publishing.read_buf(&mut asked_for_body)).await.unwrap(), 0, "it was closed");
    }
    let (node, server) = (world.server.node().clone(), world.server);
    let ending = tokio::spawn(server.drain());
    soon(node.ends()).await;
    assert_eq!(soon(idle.read(&mut [0])).await.unwrap(), 0, "it is not kept");
    publishing.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(publishing.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
    soon(ending).await.unwrap();
}
