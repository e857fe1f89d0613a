//! Tokens are made that nodes accept.

use std::time::SystemTime;

use crate::world::{SECRET, refused, skywave, stdout};
use skywave::{
    auth::Authenticator,
    config::Config,
    rights::{Right, Rights},
};
use skywave_protocol::channel::Channel;

fn verify(environment: &[(&str, &str)], token: &str) -> skywave::auth::Grant {
    let config = Config::load(None, true, environment.iter().copied()).unwrap();
    let authenticator = Authenticator::new(&config.auth).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(authenticator.verify(token, SystemTime::now())).unwrap()
}

#[test]
fn a_token_is_accepted_by_a_node_with_the_same_secret() {
    let environment = [
        ("SKYWAVE_AUTH__HMAC_SECRET", SECRET),
        ("SKYWAVE_AUTH__AUDIENCE", "skywave,other"),
        ("SKYWAVE_AUTH__ISSUER", "command line"),
    ];
    let token = stdout(&skywave(
        &[
            "token",
            "--user",
            "alice",
            "--channels",
            "chat:*=subscribe,publish",
            "--channels",
            "doc:**=history",
            "--ttl",
            "15m",
            "--info",
            "{\"name\":\"Alice\"}",
        ],
        &environment,
    ));
    let grant = verify(&environment, &token);
    assert_eq!(grant.user.as_deref(), Some("alice"));
    assert_eq!(grant.info.as_deref(), Some(&b"{\"name\":\"Alice\"}"[..]));
    let rights = |name| grant.rights(Rights::NONE, &Channel::new(name).unwrap());
    assert_eq!(rights("chat:1"), [Right::Subscribe, Right::Publish].into_iter().collect());
    assert_eq!(rights("doc:a:b"), Right::History.into());
    let lifetime = grant.expires_at.unwrap().duration_since(std::time::SystemTime::now()).unwrap();
    assert!((800..=900).contains(&lifetime.as_secs()), "{lifetime:?}");
}

#[test]
fn a_token_can_be_signed_with_a_private_key() {
    let directory = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let (private, public) = (directory.path().join("private.pem"), directory.path().join("public.pem"));
    std::fs::write(&private, pair.serialize_pem()).unwrap();
    std::fs::write(&public, pair.public_key_pem()).unwrap();
    let token = stdout(&skywave(&["token", "--user", "alice", "--key", private.to_str().unwrap()], &[]));
    let grant = verify(&[("SKYWAVE_AUTH__PUBLIC_KEY", public.to_str().unwrap())], &token);
    assert_eq!(grant.user.as_deref(), Some("alice"));
}

#[test]
fn a_token_that_cannot_be_made_is_told_why() {
    let secret = ("SKYWAVE_AUTH__HMAC_SECRET", SECRET);
    for (more, environment, expected) in [
        (&[][..], &[][..], "nothing to sign with"),
        (&["--ttl", "soon"], &[secret], "expected a duration"),
        (&["--ttl", "0s"], &[secret], "expected 1s … 365d"),
        (&["--channels", "chat:*"], &[secret], "expected PATTERN=RIGHTS"),
        (&["--channels", "chat:*=fly"], &[secret], "\"fly\" is no right"),
        (&["--info", "{"], &[secret], "expected JSON"),
        (&["--key", "/nowhere/key.pem"], &[secret], "cannot read /nowhere/key.pem"),
        (&["--config", "/nowhere/skywave.toml"], &[secret], "cannot read /nowhere/skywave.toml"),
        (&[], &[secret, ("SKYWAVE_AUTH__ALGORITHMS", "ES256")], "auth.algorithms does not accept HS256"),
    ] {
        let arguments = [&["token", "--user", "alice"], more].concat();
        let told = refused(&skywave(&arguments, environment));
        assert!(told.contains(expected), "{expected:?} not in {told}");
        assert!(!told.contains(SECRET));
    }
}
