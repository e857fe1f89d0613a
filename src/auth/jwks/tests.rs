//! Keys that come from a URL, served here by a small server that counts its requests.

use super::{
    super::{
        AuthError, Authenticator,
        tests::{config, key_pairs, now},
    },
    FetchError, Source, Timing,
};
use axum::{
    http::{StatusCode, header},
    response::IntoResponse as _,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::{FutureExt, future::BoxFuture};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use parking_lot::Mutex;
use rcgen::KeyPair;
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

const HOUR: Duration = Duration::from_secs(3_600);
/// Every question leads to a fetch.
const EAGER: Timing = Timing { timeout: Duration::from_secs(10), floor: Duration::ZERO, period: HOUR };
/// The first question alone leads to a fetch.
const ONCE: Timing = Timing { floor: HOUR, ..EAGER };

/// A key with its id.
struct Signer {
    id: &'static str,
    algorithm: Algorithm,
    pair: KeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { id, algorithm: Algorithm::ES256, pair }
    }

    fn private(&self) -> EncodingKey {
        let pem = self.pair.serialize_pem();
        match self.algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        }
    }

    fn jwk(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            let x = BASE64_URL_SAFE_NO_PAD.encode(self.pair.public_key_raw());
            return json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id});
        }
        let mut jwk = Jwk::from_encoding_key(&self.private(), self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn token(&self) -> String {
        self.token_with_id(Some(self.id))
    }

    fn token_with_id(&self, id: Option<&str>) -> String {
        self.signed(id, json!({"sub": self.id, "exp": 1_700_000_060}))
    }

    fn token_issued_at(&self, iat: u64) -> String {
        self.signed(Some(self.id), json!({"sub": self.id, "exp": 1_700_000_060, "iat": iat}))
    }

    fn signed(&self, id: Option<&str>, claims: Value) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, &claims, &self.private()).unwrap()
    }
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    body: String,
}

/// Serves an answer, which can be changed, at `/keys`, and redirects to it from `/moved`. Stops on drop.
struct Server {
    address: std::net::SocketAddr,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<AtomicUsize>,
    /// A permit for each request that may be answered.
    gate: Arc<Semaphore>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

impl Server {
    async fn start(body: String) -> Self {
        let answer = Arc::new(Mutex::new(Answer { status: StatusCode::OK, body }));
        let requests = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let (shared, counter, waiting) = (answer.clone(), requests.clone(), gate.clone());
        let keys = move || async move {
            counter.fetch_add(1, Ordering::SeqCst);
            waiting.acquire().await.unwrap().forget();
            let answer = shared.lock().clone();
            (answer.status, answer.body)
        };
        let moved = || async { (StatusCode::FOUND, [(header::LOCATION, "/keys")]).into_response() };
        let router = axum::Router::new()
            .route("/keys", axum::routing::get(keys))
            .route("/moved", axum::routing::get(moved));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, answer, requests, gate, task }
    }

    fn answer(&self, status: StatusCode, body: &str) {
        *self.answer.lock() = Answer { status, body: body.to_owned() };
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn authenticator(&self, timing: Timing) -> Authenticator {
        self.authenticator_at("keys", timing)
    }

    fn authenticator_at(&self, path: &str, timing: Timing) -> Authenticator {
        let url = format!("http://{}/{path}", self.address);
        Authenticator::with_timing(&config(&[("JWKS_URL", &url)]), timing).unwrap()
    }
}

async fn user(authenticator: &Authenticator, token: &str) -> Result<String, AuthError> {
    let grant = authenticator.verify(token, now()).await?;
    Ok(grant.user.unwrap().to_string())
}

const NO_KEY: AuthError = AuthError::Invalid("no key fits its signature");

#[tokio::test]
async fn the_keys_of_a_set_verify_tokens_of_every_algorithm_after_one_fetch() {
    let ids = ["ec", "ed", "rsa"];
    let signers: Vec<_> = key_pairs()
        .into_iter()
        .zip(ids)
        .map(|((algorithm, pair), id)| Signer { id, algorithm, pair })
        .collect();
    let server = Server::start(set(&signers.iter().collect::<Vec<_>>())).await;
    let authenticator = server.authenticator(EAGER);
    for signer in &signers {
        assert_eq!(user(&authenticator, &signer.token()).await.as_deref(), Ok(signer.id));
        assert_eq!(user(&authenticator, &signer.token_with_id(None)).await.as_deref(), Ok(signer.id));
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_when_the_first_token_names_it() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Server::start(set(&[&old])).await;
    let authenticator = server.authenticator(EAGER);
    assert!(user(&authenticator, &old.token()).await.is_ok());
    server.answer(StatusCode::OK, &set(&[&old, &new]));
    assert_eq!(user(&authenticator, &new.token()).await.as_deref(), Ok("new"));
    assert_eq!(user(&authenticator, &old.token()).await.as_deref(), Ok("old"));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn tokens_that_name_unknown_keys_do_not_hammer_the_url() {
    let (known, unknown) = (Signer::new("known"), Signer::new("unknown"));
    let server = Server::start(set(&[&known])).await;
    let authenticator = server.authenticator(ONCE);
    for _ in 0..50 {
        assert_eq!(user(&authenticator, &unknown.token()).await, Err(NO_KEY));
        assert_eq!(user(&authenticator, &unknown.token_with_id(None)).await, Err(NO_KEY));
    }
    assert_eq!(user(&authenticator, &known.token()).await.as_deref(), Ok("known"));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_token_whose_key_may_be_newer_than_the_last_fetch_is_put_off_and_not_refused() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Server::start(set(&[&old])).await;
    let authenticator = server.authenticator(ONCE);
    assert!(user(&authenticator, &old.token()).await.is_ok());
    server.answer(StatusCode::OK, &set(&[&old, &new]));
    assert_eq!(user(&authenticator, &new.token_issued_at(1_700_000_000)).await, Err(AuthError::Unavailable));
    // The key of this one would have been there then.
    assert_eq!(user(&authenticator, &new.token_issued_at(1_699_999_900)).await, Err(NO_KEY));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_key_that_took_anothers_place_under_its_id_is_found_with_its_first_token() {
    let (old, new) = (Signer::new("key"), Signer::new("key"));
    let server = Server::start(set(&[&old])).await;
    let authenticator = server.authenticator(EAGER);
    assert!(user(&authenticator, &old.token()).await.is_ok());
    server.answer(StatusCode::OK, &set(&[&new]));
    assert_eq!(user(&authenticator, &new.token()).await.as_deref(), Ok("key"));
    assert_eq!(user(&authenticator, &old.token()).await, Err(NO_KEY));
}

#[tokio::test]
async fn tokens_that_are_forged_in_the_name_of_a_known_key_do_not_hammer_the_url() {
    let (known, forger) = (Signer::new("known"), Signer::new("forger"));
    let server = Server::start(set(&[&known])).await;
    let authenticator = server.authenticator(ONCE);
    assert!(user(&authenticator, &known.token()).await.is_ok());
    for _ in 0..50 {
        assert_eq!(user(&authenticator, &forger.token_with_id(Some("known"))).await, Err(NO_KEY));
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn many_tokens_that_wait_for_keys_share_one_fetch() {
    let signer = Signer::new("known");
    let server = Server::start(set(&[&signer])).await;
    let authenticator = server.authenticator(ONCE);
    let token = signer.token();
    let all = futures_util::future::join_all((0..20).map(|_| user(&authenticator, &token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_while_keys_are_fetched_spoils_nothing() {
    let signer = Signer::new("known");
    let server = Server::start(set(&[&signer])).await;
    server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let authenticator = Arc::new(server.authenticator(ONCE));
    let (waiting, token) = (authenticator.clone(), signer.token());
    let client = tokio::spawn(async move { user(&waiting, &token).await });
    while server.requests() == 0 {
        tokio::task::yield_now().await;
    }
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    server.gate.add_permits(1);
    assert_eq!(user(&authenticator, &signer.token()).await.as_deref(), Ok("known"));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn an_outage_keeps_the_keys_and_tells_the_unknown_from_the_wrong() {
    let (known, other) = (Signer::new("known"), Signer::new("other"));
    let server = Server::start(set(&[&known])).await;
    let authenticator = server.authenticator(EAGER);
    assert!(user(&authenticator, &known.token()).await.is_ok());
    let too_many = json!({"keys": vec![known.jwk(); 101]}).to_string();
    let too_long = format!("{{\"keys\":[], \"padding\": \"{}\"}}", "x".repeat(256 * 1024));
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, set(&[&other])),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, "{\"keys\":[]}".to_owned()),
        (StatusCode::OK, too_many),
        (StatusCode::OK, too_long),
    ] {
        server.answer(status, &body);
        assert_eq!(user(&authenticator, &other.token()).await, Err(AuthError::Unavailable), "{status}");
        assert_eq!(user(&authenticator, &known.token()).await.as_deref(), Ok("known"));
    }
    assert_eq!(server.requests(), 6);
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_to_tokens_of_its_keys_and_nothing_to_others() {
    let signer = Signer::new("known");
    let url = {
        let server = Server::start(set(&[&signer])).await;
        format!("http://{}/keys", server.address)
    };
    let settings = config(&[("JWKS_URL", &url), ("HMAC_SECRET", super::super::tests::SECRET)]);
    let timing = Timing { timeout: Duration::from_millis(500), ..ONCE };
    let authenticator = Authenticator::with_timing(&settings, timing).unwrap();
    assert_eq!(user(&authenticator, &signer.token()).await, Err(AuthError::Unavailable));
    let key = EncodingKey::from_secret(super::super::tests::SECRET.as_bytes());
    let claims = json!({"sub": "alice", "exp": 1_700_000_060});
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
    assert_eq!(user(&authenticator, &token).await.as_deref(), Ok("alice"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let signer = Signer::new("known");
    let server = Server::start(set(&[&signer])).await;
    let authenticator = server.authenticator_at("moved", EAGER);
    assert_eq!(user(&authenticator, &signer.token()).await, Err(AuthError::Unavailable));
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_withdrawn_key_is_forgotten_with_the_next_fetch() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Server::start(set(&[&old])).await;
    let authenticator = server.authenticator(EAGER);
    assert!(user(&authenticator, &old.token()).await.is_ok());
    server.answer(StatusCode::OK, &set(&[&new]));
    assert!(user(&authenticator, &new.token()).await.is_ok());
    assert_eq!(user(&authenticator, &old.token()).await, Err(NO_KEY));
}

#[tokio::test]
async fn keys_are_fetched_again_without_any_token_asking() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Server::start(set(&[&old])).await;
    let authenticator = Arc::new(server.authenticator(Timing { period: Duration::from_millis(5), ..EAGER }));
    let running = authenticator.clone();
    let task = tokio::spawn(async move { running.run().await });
    server.answer(StatusCode::OK, &set(&[&new]));
    let seen = server.requests();
    // Of three more fetches, the second began after the change, and was over when the third began.
    tokio::time::timeout(Duration::from_secs(20), async {
        while server.requests() < seen + 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
    task.abort();
    let remote = authenticator.remote.as_ref().unwrap();
    let ids: Vec<_> = remote.current().unwrap().iter().map(|key| key.id.clone().unwrap()).collect();
    assert_eq!(ids, ["new"]);
}

/// A set that is at hand.
struct AtHand(Arc<Mutex<String>>);

impl Source for AtHand {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        let set = self.0.lock().clone().into_bytes();
        async move { Ok(set) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn keys_come_from_the_source_that_is_handed_in_and_again_after_their_period() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let at_hand = Arc::new(Mutex::new(set(&[&old])));
    let source = Box::new(AtHand(at_hand.clone()));
    let authenticator = Arc::new(Authenticator::fetching(&config(&[]), source).unwrap());
    assert_eq!(user(&authenticator, &old.token()).await.unwrap(), "old");
    *at_hand.lock() = set(&[&new]);
    let refreshing = authenticator.clone();
    let task = tokio::spawn(async move { refreshing.run().await });
    tokio::time::sleep(Timing::default().period + Duration::from_secs(1)).await;
    assert_eq!(user(&authenticator, &new.token()).await.unwrap(), "new");
    assert_eq!(user(&authenticator, &old.token()).await.unwrap_err(), NO_KEY);
    task.abort();
}

#[test]
fn keys_that_are_secret_weak_or_for_another_purpose_are_passed_over() {
    let good = Signer::new("good").jwk();
    let with = |field: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[field] = value;
        jwk
    };
    for other in [
        json!({"kty": "oct", "kid": "secret", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}),
        json!({"kty": "RSA", "kid": "short", "n": "0".repeat(171), "e": "AQAB"}),
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("alg", json!("RS256")),
        with("alg", json!("ES384")),
        with("crv", json!("P-384")),
        with("x", json!("AAAA")),
        with("kty", json!("other")),
        json!("no object"),
    ] {
        let keys = super::parse(json!({"keys": [other, good]}).to_string().as_bytes()).unwrap();
        assert_eq!(keys.len(), 1, "{other}");
        assert_eq!(keys[0].id.as_deref(), Some("good"));
        assert!(super::parse(json!({"keys": [other]}).to_string().as_bytes()).is_err());
    }
    for (field, value) in [("use", json!("sig")), ("key_ops", json!(["verify"])), ("alg", json!("ES256"))] {
        assert_eq!(
            super::parse(json!({"keys": [with(field, value)]}).to_string().as_bytes()).unwrap().len(),
            1
        );
    }
}
