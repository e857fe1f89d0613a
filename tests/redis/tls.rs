//! A Redis that is reached over TLS, with authorities of its own.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use skywave::redis::ConnectError;
use skywave_testing::{
    FREE_PORT, RedisServer, eventually,
    node::broker::{Node, settings_at},
};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

struct Authority {
    directory: TempDir,
}

impl Authority {
    /// With a certificate for `localhost`.
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        fs::write(directory.path().join("certificate.pem"), certificate.pem()).unwrap();
        fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server, and its URL over TLS.
    async fn server(&self) -> (RedisServer, String) {
        self.server_with(&[]).await
    }

    async fn server_with(&self, more: &[&str]) -> (RedisServer, String) {
        let [ca, certificate, key] =
            ["ca.pem", "certificate.pem", "key.pem"].map(|name| self.file(name).display().to_string());
        let settings = [
            "--tls-port",
            FREE_PORT,
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ];
        let server = RedisServer::with(&[&settings, more].concat()).await;
        let port: Vec<String> = server.run("CONFIG GET tls-port").await;
        (server, format!("rediss://localhost:{}", port[1]))
    }
}

#[tokio::test]
async fn nodes_share_a_redis_over_tls() {
    let authority = Authority::new();
    let (server, url) = authority.server().await;
    let mut settings = settings_at(&url);
    settings.address.ca = Some(authority.file("ca.pem"));
    let node = Node::with(settings).await.unwrap();
    node.publish(1).await;
    node.deliveries(1).await;
    // All of its connections: for commands, reading, the tail and events.
    let clients: String = server.run("CLIENT LIST").await;
    assert_eq!(clients.lines().count(), 1 + 4, "{clients}");
}

#[tokio::test]
async fn a_cluster_is_reached_over_tls_by_the_names_that_it_tells() {
    let authority = Authority::new();
    let (server, url) = authority
        .server_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            FREE_PORT,
            "--tls-cluster",
            "yes",
            "--cluster-announce-hostname",
            "localhost",
            "--cluster-preferred-endpoint-type",
            "hostname",
        ])
        .await;
    server.run::<()>("CLUSTER ADDSLOTSRANGE 0 16383").await;
    eventually("a whole cluster", async || {
        server.run::<String>("CLUSTER INFO").await.contains("cluster_state:ok")
    })
    .await;
    let mut settings = settings_at(&url.replace("rediss", "rediss+cluster"));
    settings.address.ca = Some(authority.file("ca.pem"));
    let node = Node::with(settings).await.unwrap();
    node.publish(1).await;
    node.deliveries(1).await;
    // Those with a name: for commands, for reading, and a tail for each partition.
    let clients: String = server.run("CLIENT LIST").await;
    assert_eq!(clients.lines().filter(|client| !client.contains("name= ")).count(), 2 + 4, "{clients}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_server, url) = authority.server().await;
    for ca in [None, Some(other.file("ca.pem"))] {
        let mut settings = settings_at(&url);
        settings.address.ca = ca;
        let refused = Node::with(settings).await.err().unwrap();
        assert!(refused.to_string().contains("certificate"), "{refused}");
    }
}

#[tokio::test]
async fn a_file_of_authorities_that_is_not_there_is_named() {
    let mut settings = settings_at("rediss://localhost:1");
    settings.address.ca = Some(PathBuf::from("nowhere/ca.pem"));
    let refused = Node::with(settings).await.err().unwrap();
    assert!(matches!(&refused, ConnectError::Authorities { .. }));
    assert!(refused.to_string().starts_with("nowhere/ca.pem: "), "{refused}");
}

#[tokio::test]
async fn a_file_that_names_no_authority_is_not_taken_for_a_fault_of_the_server() {
    let authority = Authority::new();
    let (_server, url) = authority.server().await;
    let file = authority.file("no_ca.pem");
    std::fs::write(&file, "no PEM").unwrap();
    let mut settings = settings_at(&url);
    settings.address.ca = Some(file);
    let refused = Node::with(settings).await.err().unwrap();
    assert!(refused.to_string().ends_with("no_ca.pem: it holds no certificate in PEM"), "{refused}");
}
