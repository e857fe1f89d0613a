//! What a node that the binary runs tells its operator.

use crate::world::{Running, SECRET, refused, run, skywave, stderr, stdout};
use serde_json::json;
use skywave_testing::{JsonSocket, Port, Relay, soon};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

const FREE_PORTS: [(&str, &str); 3] = [
    ("SKYWAVE_LISTEN__PUBLIC", "127.0.0.1:0"),
    ("SKYWAVE_LISTEN__PLAIN", "127.0.0.1:0"),
    ("SKYWAVE_LISTEN__ADMIN", "127.0.0.1:0"),
];

#[tokio::test]
async fn why_a_token_is_refused_stands_in_the_log_and_nothing_of_the_token() {
    let mut node = Running::start(&["serve", "--dev"], &FREE_PORTS);
    let ready = node.line().await;
    let plain = ready.split(['=', ' ']).nth(4).unwrap();
    let arguments = ["sub", "chat:1", "--token", "nonsense", "--url", &format!("http://{plain}")];
    assert_eq!(run(&arguments, &[]).await.status.code(), Some(1));
    let line = node.told("a session was refused").await;
    assert!(line.contains("it is malformed") && !line.contains("nonsense"), "{line}");
}

#[tokio::test]
async fn a_node_that_is_told_to_end_exits_with_0() {
    let mut node = Running::start(&["serve", "--dev"], &FREE_PORTS);
    node.line().await;
    node.interrupt();
    assert_eq!(node.end().await.code, Some(0));
}

#[tokio::test]
async fn a_node_that_is_told_to_reload_goes_on() {
    let settings = [("SKYWAVE_AUTH__ANONYMOUS", "true"), ("SKYWAVE_LISTEN__PUBLIC", "")];
    let mut node = Running::start(&["serve"], &[&FREE_PORTS[..], &settings].concat());
    node.line().await;
    node.signal("-HUP");
    node.told("SIGHUP").await;
    node.interrupt();
    assert_eq!(node.end().await.code, Some(0));
}

#[test]
fn a_node_whose_port_or_redis_is_not_there_now_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = [("SKYWAVE_LISTEN__ADMIN", address.as_str())];
    let free = Port::free();
    let url = format!("redis://127.0.0.1:{}", free.number());
    let redis = [
        ("SKYWAVE_AUTH__SESSION_SECRET", SECRET),
        ("SKYWAVE_BROKER__KIND", "redis"),
        ("SKYWAVE_BROKER__URL", &url),
    ];
    for (more, expected) in [(&port[..], "cannot listen on"), (&redis[..], "Redis: ")] {
        // What comes later counts.
        let output = skywave(&["serve", "--dev"], &[&FREE_PORTS[..], more].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(expected), "{output:?}");
    }
}

#[tokio::test]
async fn a_log_level_that_is_set_and_empty_silences_nothing() {
    let mut node = Running::start(&["serve", "--dev"], &[&FREE_PORTS[..], &[("RUST_LOG", "")]].concat());
    let ready = node.line().await;
    let plain = ready.split(['=', ' ']).nth(4).unwrap();
    run(&["sub", "chat:1", "--token", "nonsense", "--url", &format!("http://{plain}")], &[]).await;
    node.told("a session was refused").await;
    let wrong = refused(&skywave(&["serve", "--dev"], &[("RUST_LOG", "skywave=loud")]));
    assert!(wrong.contains("RUST_LOG"), "{wrong}");
}

/// The first line on a process' stdout.
fn first_line(process: &mut std::process::Child) -> String {
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(process.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    line
}

#[tokio::test]
async fn a_node_whose_log_cannot_be_written_serves_all_the_same() {
    let mut node = std::process::Command::new(env!("CARGO_BIN_EXE_skywave"));
    node.args(["serve", "--dev"]).env_clear().envs(FREE_PORTS).stdout(std::process::Stdio::piped());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut node = node.stderr(full).spawn().unwrap();
    let ready = first_line(&mut node);
    let plain = ready.split(['=', ' ']).nth(4).unwrap();
    let arguments = ["sub", "chat:1", "--token", "nonsense", "--url", &format!("http://{plain}")];
    let output = run(&arguments, &[]).await;
    node.kill().unwrap();
    node.wait().unwrap();
    // The node has logged it before it answered.
    assert!(stderr(&output).contains("unauthenticated (3503)"), "{output:?}");
}

#[tokio::test]
async fn a_node_whose_log_nobody_reads_serves_all_the_same_and_ends_when_told_to() {
    let mut node = std::process::Command::new(env!("CARGO_BIN_EXE_skywave"));
    node.args(["serve", "--dev"]).env_clear().envs(FREE_PORTS).env("RUST_LOG", "skywave=debug");
    node.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut node = node.spawn().unwrap();
    let ready = first_line(&mut node);
    let admin = ready.trim_end().rsplit('=').next().unwrap().to_owned();
    // Each writes a line of more than 64 bytes; a pipe has room for 65,536.
    let answered = tokio::task::spawn_blocking(move || {
        (0..1_500).all(|_| {
            let mut stream = TcpStream::connect(&admin).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(b"nonsense\r\n\r\n").unwrap();
            stream.read_to_end(&mut Vec::new()).is_ok()
        })
    });
    let answered = answered.await.unwrap();
    let told = std::process::Command::new("kill").arg(node.id().to_string()).status();
    if !answered {
        node.kill().unwrap();
    }
    let ended = soon(tokio::task::spawn_blocking(move || node.wait())).await.unwrap();
    assert!(told.unwrap().success());
    assert_eq!((answered, ended.unwrap().code()), (true, Some(0)), "answered, and ended");
}

#[test]
fn a_node_has_room_for_more_connections_than_service_managers_begin_with() {
    let mut node = std::process::Command::new("sh");
    let serve = format!("ulimit -S -n 64 && exec {} serve --dev", env!("CARGO_BIN_EXE_skywave"));
    node.args(["-c", &serve]).env_clear().envs(FREE_PORTS).stdout(std::process::Stdio::piped());
    let mut node = node.stderr(std::process::Stdio::null()).spawn().unwrap();
    let ready = first_line(&mut node);
    let admin = ready.trim_end().rsplit('=').next().unwrap();
    let answered = (0..80).map(|_| {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        stream.read_exact(&mut [0; 12])?;
        Ok(stream)
    });
    let answered: std::io::Result<Vec<TcpStream>> = answered.collect();
    node.kill().unwrap();
    node.wait().unwrap();
    assert_eq!(answered.unwrap().len(), 80);
}

#[tokio::test]
async fn a_node_that_cannot_say_that_it_serves_serves_all_the_same() {
    let port = Port::free();
    let admin = format!("127.0.0.1:{}", port.number());
    let mut node = std::process::Command::new(env!("CARGO_BIN_EXE_skywave"));
    node.args(["serve", "--dev"]).env_clear().envs(FREE_PORTS);
    node.env("SKYWAVE_LISTEN__ADMIN", &admin).stderr(std::process::Stdio::null());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut node = node.stdout(full).spawn().unwrap();
    let served = async {
        while tokio::net::TcpStream::connect(&admin).await.is_err() {
            if node.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    };
    // It has bound its listeners before it says so, and would end then.
    let served = soon(served).await && is_told_to_end(&mut node).await == Some(0);
    let _ = node.kill();
    assert!(served);
}

/// Tells a process to end; how it has ended, though not by the signal.
async fn is_told_to_end(process: &mut std::process::Child) -> Option<i32> {
    std::process::Command::new("kill").arg(process.id().to_string()).status().unwrap();
    let ended = async {
        loop {
            if let Some(ended) = process.try_wait().unwrap() {
                return ended.code();
            }
            tokio::task::yield_now().await;
        }
    };
    soon(ended).await
}

#[tokio::test]
async fn who_tells_a_node_to_end_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut node = Running::start(&["serve", "--dev"], &FREE_PORTS);
        let ready = node.line().await;
        let admin = format!("http://{}", ready.rsplit('=').next().unwrap());
        // As in a container without authorities that vouch for anybody.
        let nobody = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", directory.path().to_str().unwrap())];
        let output = run(&["drain", "--exit", "--admin", &admin], &nobody).await;
        assert_eq!(stdout(&output), "0 sessions are to move");
        assert_eq!(node.end().await.code, Some(0));
    }
}

#[tokio::test]
async fn health_checks_are_answered_though_clients_have_all_open_files_that_they_may() {
    let mut command = std::process::Command::new("sh");
    let serve = format!("ulimit -n 96 && exec {} serve --dev", env!("CARGO_BIN_EXE_skywave"));
    command.args(["-c", &serve]).env_clear().envs(FREE_PORTS).env("SKYWAVE_LIMITS__CONNECT_TIMEOUT", "2m");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut node = command.spawn().unwrap();
    let ready = first_line(&mut node);
    let places: Vec<_> = ready.trim_end().split(['=', ' ']).collect();
    let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(places[4]).unwrap()).collect();
    let check = || {
        let mut stream = TcpStream::connect(places[6])?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        stream.read_exact(&mut [0; 12])
    };
    let answered = check();
    // Who is one too many is turned away, and may look elsewhere.
    let mut last = clients.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let turned_away = last.read(&mut [0]);
    node.kill().unwrap();
    node.wait().unwrap();
    answered.unwrap();
    assert_eq!(turned_away.unwrap(), 0);
}

#[tokio::test]
async fn who_asks_for_a_session_as_by_a_proxy_that_passes_on_no_upgrade_stands_in_the_log() {
    let mut node = Running::start(&["serve", "--dev"], &FREE_PORTS);
    let ready = node.line().await;
    let plain = ready.split(['=', ' ']).nth(4).unwrap();
    let mut proxy = TcpStream::connect(plain).unwrap();
    proxy.write_all(b"GET /v1/connect HTTP/1.0\r\nConnection: close\r\n\r\n").unwrap();
    let line = node.told("a session was refused").await;
    assert!(line.contains("does a proxy pass on Upgrade"), "{line}");
}

#[tokio::test]
async fn a_node_that_gets_too_few_threads_ends() {
    // Stacks so large that the third thread has no room, and all else has: what is allocated meanwhile must not fail.
    let serve = format!("ulimit -v 4000000 && exec {} serve --dev", env!("CARGO_BIN_EXE_skywave"));
    let threads = [("TOKIO_WORKER_THREADS", "8"), ("RUST_MIN_STACK", "1500000000")];
    let mut node = std::process::Command::new("sh");
    node.args(["-c", &serve]).env_clear().envs(FREE_PORTS).envs(threads);
    node.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut node = tokio::process::Command::from(node).kill_on_drop(true).spawn().unwrap();
    assert_eq!(soon(node.wait()).await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn who_waits_for_a_drain_is_not_told_that_all_have_moved_where_the_way_to_the_node_is_gone() {
    let mut node = Running::start(&["serve", "--dev"], &FREE_PORTS);
    let ready = node.line().await;
    let [plain, admin] = [4, 6].map(|word| {
        let place: SocketAddr = ready.split(['=', ' ']).nth(word).unwrap().parse().unwrap();
        place
    });
    let mut session = JsonSocket::open(plain).await;
    session.send(json!({"connect": {"id": 1}})).await;
    session.receive("connected").await;
    let way = Relay::tcp(admin.port()).await;
    let url = way.url("http");
    let mut drain = Running::start(
        &["drain", "--admin", &url, "--to", "https://elsewhere.example.com", "--wait", "--exit"],
        &[],
    );
    drain.told("0 of 1 sessions have moved").await;
    drop(way);
    assert_eq!(drain.end().await.code, Some(1));
    node.interrupt();
    assert_eq!(node.end().await.code, Some(0));
}
