//! What an operator and an attacker find when they hand in tokens.

use super::{
    AuthError, Authenticator, Grant, SetupError,
    mint::{Claims, Minter},
};
use crate::{
    config::{AuthConfig, Config},
    rights::{Right, Rights},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use rcgen::KeyPair;
use serde_json::{Value, json};
use skywave_protocol::channel::Channel;
use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_700_000_000;

pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// `[auth]` with these keys, by the names that the environment gives them.
pub(super) fn config(settings: &[(&str, &str)]) -> AuthConfig {
    let variable = |(key, value): &(&str, &str)| (format!("SKYWAVE_AUTH__{key}"), (*value).to_owned());
    Config::load(None, true, settings.iter().map(variable)).unwrap().auth
}

fn with_secret(settings: &[(&str, &str)]) -> Authenticator {
    let settings = [&[("HMAC_SECRET", SECRET)], settings].concat();
    Authenticator::new(&config(&settings)).unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn with_public_keys(pems: &[String]) -> Result<Authenticator, SetupError> {
    let files: Vec<_> = pems.iter().map(|pem| file(pem)).collect();
    let paths: Vec<_> = files.iter().map(|file| file.path().to_str().unwrap()).collect();
    Authenticator::new(&config(&[("PUBLIC_KEY", &paths.join(","))]))
}

pub(super) fn key_pairs() -> [(Algorithm, KeyPair); 3] {
    [
        (Algorithm::ES256, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()),
        (Algorithm::EdDSA, KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()),
        (Algorithm::RS256, KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap()),
    ]
}

fn alice() -> Claims {
    Claims {
        user: Some("alice".into()),
        channels: vec![("chat:*".into(), [Right::Subscribe, Right::Publish].into_iter().collect())],
        info: None,
        audience: None,
        issuer: None,
        lifetime: Duration::from_secs(60),
    }
}

/// Signs any claims with HS256.
fn sign(claims: &Value) -> String {
    sign_with(Header::new(Algorithm::HS256), claims)
}

fn sign_with(header: Header, claims: &Value) -> String {
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn verify(authenticator: &Authenticator, claims: &Value) -> Result<Grant, AuthError> {
    authenticator.verify(&sign(claims), now()).await
}

fn invalid(outcome: Result<Grant, AuthError>) -> &'static str {
    match outcome {
        Err(AuthError::Invalid(reason)) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

#[tokio::test]
async fn a_token_is_accepted_with_every_algorithm_and_grants_what_it_says() {
    let pairs = key_pairs();
    let public: Vec<_> = pairs.iter().map(|(_, pair)| pair.public_key_pem()).collect();
    let authenticator = with_public_keys(&public).unwrap();
    let mut tokens: Vec<_> = pairs
        .iter()
        .map(|(algorithm, pair)| {
            let token =
                Minter::from_pem(pair.serialize_pem().as_bytes()).unwrap().mint(&alice(), now()).unwrap();
            assert_eq!(jsonwebtoken::decode_header(&token).unwrap().alg, *algorithm);
            (&authenticator, token)
        })
        .collect();
    let hmac = with_secret(&[]);
    let secret = config(&[("HMAC_SECRET", SECRET)]).hmac_secret.unwrap();
    tokens.push((&hmac, Minter::from_secret(&secret).mint(&alice(), now()).unwrap()));
    for (authenticator, token) in tokens {
        let grant = authenticator.verify(&token, now()).await.unwrap();
        assert_eq!(grant.user.as_deref(), Some("alice"));
        assert_eq!(grant.expires_at, Some(now() + Duration::from_secs(60)));
        let allows = |right| grant.allows(Rights::NONE, &channel("chat:1"), right);
        assert!(allows(Right::Subscribe) && allows(Right::Publish) && !allows(Right::Emit));
        assert!(!grant.allows(Rights::NONE, &channel("doc:1"), Right::Subscribe));
    }
}

#[tokio::test]
async fn a_token_of_another_key_is_refused_with_every_algorithm() {
    let public: Vec<_> = key_pairs().iter().map(|(_, pair)| pair.public_key_pem()).collect();
    let authenticator = with_public_keys(&public).unwrap();
    for (_, other) in key_pairs() {
        let minter = Minter::from_pem(other.serialize_pem().as_bytes()).unwrap();
        let token = minter.mint(&alice(), now()).unwrap();
        assert_eq!(invalid(authenticator.verify(&token, now()).await), "no key fits its signature");
    }
    let key = EncodingKey::from_secret(b"another-secret-of-32-bytes-or-more");
    let token = jsonwebtoken::encode(&Header::default(), &json!({"exp": NOW + 60}), &key).unwrap();
    assert_eq!(invalid(with_secret(&[]).verify(&token, now()).await), "no key fits its signature");
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_secret() {
    for (_, pair) in key_pairs() {
        let pem = pair.public_key_pem();
        let authenticator = with_public_keys(std::slice::from_ref(&pem)).unwrap();
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), pair.public_key_raw()] {
            let key = EncodingKey::from_secret(secret);
            let token = jsonwebtoken::encode(&Header::default(), &json!({"exp": NOW + 60}), &key).unwrap();
            assert_eq!(invalid(authenticator.verify(&token, now()).await), "no key fits its signature");
        }
    }
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(json!({"alg": algorithm, "typ": "JWT"}));
        let token = format!("{header}.{}.", encode(json!({"sub": "alice", "exp": NOW + 60})));
        assert_eq!(invalid(with_secret(&[]).verify(&token, now()).await), "it is malformed");
    }
    let token = sign(&json!({"exp": NOW + 60}));
    let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
    assert_eq!(invalid(with_secret(&[]).verify(&unsigned, now()).await), "no key fits its signature");
}

#[tokio::test]
async fn changed_claims_break_the_signature() {
    let token = sign(&json!({"sub": "alice", "exp": NOW + 60}));
    let parts: Vec<_> = token.split('.').collect();
    let claims = BASE64_URL_SAFE_NO_PAD.encode(json!({"sub": "root", "exp": NOW + 60}).to_string());
    let forged = format!("{}.{claims}.{}", parts[0], parts[2]);
    assert_eq!(invalid(with_secret(&[]).verify(&forged, now()).await), "no key fits its signature");
}

#[tokio::test]
async fn algorithms_narrows_what_the_keys_accept() {
    let pairs = key_pairs();
    let files: Vec<_> = pairs.iter().map(|(_, pair)| file(&pair.public_key_pem())).collect();
    let paths: Vec<_> = files.iter().map(|file| file.path().to_str().unwrap()).collect();
    let settings = [("PUBLIC_KEY", &*paths.join(",")), ("HMAC_SECRET", SECRET), ("ALGORITHMS", "EdDSA")];
    let authenticator = Authenticator::new(&config(&settings)).unwrap();
    for (algorithm, pair) in &pairs {
        let minter = Minter::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let outcome = authenticator.verify(&minter.mint(&alice(), now()).unwrap(), now()).await;
        if *algorithm == Algorithm::EdDSA {
            assert!(outcome.is_ok());
        } else {
            assert_eq!(invalid(outcome), "its algorithm is not accepted");
        }
    }
    let outcome = verify(&authenticator, &json!({"exp": NOW + 60})).await;
    assert_eq!(invalid(outcome), "its algorithm is not accepted");
}

#[test]
fn algorithms_that_fit_no_key_are_refused() {
    let settings = [("HMAC_SECRET", SECRET), ("ALGORITHMS", "RS256")];
    assert!(matches!(Authenticator::new(&config(&settings)), Err(SetupError::NoAlgorithm)));
}

#[test]
fn keys_that_are_private_weak_of_another_kind_or_missing_are_refused() {
    let short = "-----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDQgiNRLV3R9K8WKtsZNTK4w2mE\n\
        I1Ngfop6rGitsow+dbPGfD23xEOdqHsKjjS/hRyPoZGprtPbpBexquTpPW+99SUz\n\
        /3oQgS9Q4lXCY5QuLyJI31oc87qPAhA9CEqkrdBvUMo9B4cFno8nokWoAW6ky+xP\n\
        dfDs01/PEsk55lfCAwIDAQAB\n-----END PUBLIC KEY-----\n";
    let p384 = "-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEid7F3Mznr44CT1NcSsTI+N3Mak+fCOeO\n\
        5UajuPLK1bgfup12hvihh7guY1nDtqXfcdfA0cfwNivNbecmmIo984yo+4Gqr1FM\n\
        GISS+t+jAMdglgmKmppw/0SIMtlejWpA\n-----END PUBLIC KEY-----\n";
    let secp256k1 = "-----BEGIN PUBLIC KEY-----\n\
        MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEXs6ww4xUhezL6XDuEfdRSVEjGUCAjdNv\n\
        TdQFv3pREHyGqSqI4MXA6Q3Csp0CSX6gnHCtHXypSzcSDJVZnpXYpw==\n-----END PUBLIC KEY-----\n";
    let private = key_pairs()[0].1.serialize_pem();
    for (pem, expected) in [
        (short, "at least 2,048 bits"),
        (p384, "expected a PEM file"),
        (secp256k1, "expected a PEM file"),
        (private.as_str(), "this is a private key"),
        ("no key at all", "expected a PEM file"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "expected a PEM file"),
    ] {
        let error = with_public_keys(&[pem.to_owned()]).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let missing = Authenticator::new(&config(&[("PUBLIC_KEY", "/nowhere/key.pem")])).err().unwrap();
    assert!(missing.to_string().contains("cannot read the key /nowhere/key.pem"), "{missing}");
}

#[tokio::test]
async fn a_token_is_good_to_its_last_second_and_not_longer() {
    let authenticator = with_secret(&[]);
    assert!(verify(&authenticator, &json!({"exp": NOW + 1})).await.is_ok());
    assert_eq!(verify(&authenticator, &json!({"exp": NOW})).await.unwrap_err(), AuthError::Expired);
    assert_eq!(
        verify(&authenticator, &json!({"exp": NOW as f64 - 0.5})).await.unwrap_err(),
        AuthError::Expired
    );
}

#[tokio::test]
async fn a_token_must_say_when_it_ends() {
    let authenticator = with_secret(&[]);
    assert_eq!(invalid(verify(&authenticator, &json!({"sub": "alice"})).await), "exp is missing");
    for exp in [json!(-1), json!(1e300), json!("soon"), json!(null), json!([])] {
        invalid(verify(&authenticator, &json!({"exp": exp})).await);
    }
}

#[tokio::test]
async fn a_token_of_the_future_is_refused_but_for_clocks_that_differ_a_little() {
    let authenticator = with_secret(&[]);
    for (claim, cause) in
        [("nbf", "it is not valid yet (nbf)"), ("iat", "it was issued in the future (iat): clocks differ")]
    {
        let claims = |begin: u64| json!({"exp": NOW + 600, claim: begin});
        assert!(verify(&authenticator, &claims(NOW + 30)).await.is_ok());
        assert_eq!(invalid(verify(&authenticator, &claims(NOW + 31)).await), cause);
    }
}

#[tokio::test]
async fn a_claim_of_the_wrong_type_is_named() {
    let authenticator = with_secret(&[]);
    for (claim, value, cause) in [
        ("sub", json!(42), "sub is no text"),
        ("iat", json!("now"), "iat is no number"),
        ("nbf", json!({}), "nbf is no number"),
        ("channels", json!("chat:*"), "channels is no list of objects with match and allow"),
    ] {
        let claims = json!({"exp": NOW + 60, claim: value});
        assert_eq!(invalid(verify(&authenticator, &claims).await), cause);
    }
}

#[tokio::test]
async fn audience_and_issuer_are_checked_when_they_are_configured() {
    let authenticator = with_secret(&[("AUDIENCE", "skywave,other"), ("ISSUER", "login")]);
    let claims = |aud: Value, iss: Value| json!({"exp": NOW + 60, "aud": aud, "iss": iss});
    assert!(verify(&authenticator, &claims(json!("skywave"), json!("login"))).await.is_ok());
    assert!(verify(&authenticator, &claims(json!(["x", "other"]), json!("login"))).await.is_ok());
    for (aud, iss, expected) in [
        (json!("x"), json!("login"), "it is for another audience"),
        (json!([]), json!("login"), "it is for another audience"),
        (json!("skywave"), json!("x"), "it is from another issuer"),
        (json!(null), json!("login"), "aud is missing"),
        (json!("skywave"), json!(null), "iss is missing"),
        (json!(5), json!("login"), "aud is missing"),
    ] {
        assert_eq!(invalid(verify(&authenticator, &claims(aud, iss)).await), expected);
    }
}

#[tokio::test]
async fn audience_and_issuer_are_of_no_concern_otherwise() {
    let claims = json!({"exp": NOW + 60, "aud": "anyone", "iss": "anybody"});
    assert!(verify(&with_secret(&[]), &claims).await.is_ok());
}

#[tokio::test]
async fn an_expired_token_for_another_audience_is_wrong_rather_than_late() {
    let authenticator = with_secret(&[("AUDIENCE", "skywave")]);
    let outcome = verify(&authenticator, &json!({"exp": NOW - 1, "aud": "x"})).await;
    assert_eq!(invalid(outcome), "it is for another audience");
}

#[tokio::test]
async fn a_token_that_needs_an_extension_is_refused() {
    let header = Header { crit: Some(vec!["b64".into()]), ..Header::default() };
    let token = sign_with(header, &json!({"exp": NOW + 60}));
    assert_eq!(invalid(with_secret(&[]).verify(&token, now()).await), "it asks for an extension (crit)");
}

#[tokio::test]
async fn every_claim_has_bounds() {
    let authenticator = with_secret(&[]);
    let entry = json!({"match": "chat:*", "allow": ["subscribe"]});
    let with = |name: &str, value: Value| json!({"exp": NOW + 60, name: value});
    for good in [
        with("sub", json!("a".repeat(254))),
        with("info", json!("a".repeat(4_094))),
        with("channels", json!(vec![entry.clone(); 128])),
        with("channels", json!([{"match": "a".repeat(255), "allow": []}])),
    ] {
        verify(&authenticator, &good).await.unwrap();
    }
    for bad in [
        with("sub", json!("")),
        with("sub", json!("a".repeat(255))),
        with("sub", json!("new\nline")),
        with("sub", json!(5)),
        with("info", json!("a".repeat(4_095))),
        with("channels", json!(vec![entry; 129])),
        with("channels", json!([{"match": "", "allow": []}])),
        with("channels", json!([{"match": "a".repeat(256), "allow": []}])),
        with("channels", json!([{"match": "chat:*", "allow": ["administer"]}])),
        with("channels", json!([{"match": "chat:*"}])),
        with("channels", json!("chat:*")),
        with("other", json!("a".repeat(16 * 1024))),
    ] {
        invalid(verify(&authenticator, &bad).await);
    }
}

#[tokio::test]
async fn info_is_kept_as_it_was_written() {
    let token = {
        let claims = Claims {
            info: Some(serde_json::value::RawValue::from_string("{\"b\": 1.50, \"a\":[ ]}".into()).unwrap()),
            ..alice()
        };
        Minter::from_secret(&crate::config::Secret::new(SECRET)).mint(&claims, now()).unwrap()
    };
    let grant = with_secret(&[]).verify(&token, now()).await.unwrap();
    assert_eq!(grant.info.as_deref(), Some(&b"{\"b\": 1.50, \"a\":[ ]}"[..]));
}

#[tokio::test]
async fn a_token_without_a_user_grants_rights_all_the_same() {
    let claims = json!({"exp": NOW + 60, "channels": [{"match": "**", "allow": ["history"]}]});
    let grant = verify(&with_secret(&[]), &claims).await.unwrap();
    assert_eq!(grant.user, None);
    assert!(grant.allows(Rights::NONE, &channel("chat:a:b"), Right::History));
}

#[tokio::test]
async fn rights_of_token_and_namespace_add_up() {
    let claims = json!({"exp": NOW + 60, "channels": [
        {"match": "chat:*", "allow": ["subscribe"]},
        {"match": "chat:1", "allow": ["publish"]},
    ]});
    let grant = verify(&with_secret(&[]), &claims).await.unwrap();
    let rights = |name| grant.rights(Right::Emit.into(), &channel(name));
    assert_eq!(rights("chat:1"), [Right::Subscribe, Right::Publish, Right::Emit].into_iter().collect());
    assert_eq!(rights("chat:2"), [Right::Subscribe, Right::Emit].into_iter().collect());
    assert_eq!(rights("doc:1"), Right::Emit.into());
}

#[tokio::test]
async fn a_user_channel_is_read_by_its_user_alone_and_written_by_right() {
    let authenticator = with_secret(&[]);
    let alice = verify(&authenticator, &json!({"exp": NOW + 60, "sub": "alice"})).await.unwrap();
    let all = json!([{"match": "**", "allow": ["subscribe", "publish", "emit", "presence", "history"]}]);
    let bob = verify(&authenticator, &json!({"exp": NOW + 60, "sub": "bob", "channels": all})).await.unwrap();
    let inbox = channel("@alice");
    assert!(alice.allows(Rights::NONE, &inbox, Right::Subscribe));
    assert!(alice.allows(Rights::NONE, &inbox, Right::History));
    assert!(!alice.allows(Rights::NONE, &inbox, Right::Publish));
    for right in [Right::Subscribe, Right::History] {
        assert!(!bob.allows(Rights::ALL, &inbox, right));
        assert!(!Grant::default().allows(Rights::ALL, &inbox, right));
    }
    assert!(bob.allows(Rights::NONE, &inbox, Right::Publish));
}

#[test]
fn anonymous_sessions_are_let_in_only_where_that_is_configured() {
    assert!(with_secret(&[("ANONYMOUS", "false")]).anonymous().is_none());
    let grant = with_secret(&[("ANONYMOUS", "true")]).anonymous().unwrap();
    assert_eq!((grant.user.clone(), grant.expires_at), (None, None));
    assert!(!grant.allows(Rights::NONE, &channel("chat:1"), Right::Subscribe));
    assert!(grant.allows(Rights::ALL, &channel("chat:1"), Right::Subscribe));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", parts in "[A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_-]{0,40}){0,4}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let authenticator = with_secret(&[]);
        for token in [text, parts] {
            prop_assert!(runtime.block_on(authenticator.verify(&token, now())).is_err());
        }
    }
}
