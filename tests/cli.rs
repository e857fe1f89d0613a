//! What a person at the command line can rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use skywave::auth::Authenticator;
use skywave::auth::rights::{Right, Rights};
use skywave::config::{Config, TlsConfig};
use skywave_protocol::channel::Channel;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Runs the binary with nothing of this process's environment that could configure it.
fn skywave(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skywave"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

/// What stderr says of wrong usage or a wrong configuration; stdout says nothing then.
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn cert(directory: &Path, more: &[&str]) -> String {
    let arguments = [&["cert", "--out", directory.to_str().unwrap()], more].concat();
    stdout(&skywave(&arguments, &[]))
}

fn verify(environment: &[(&str, &str)], token: &str) -> skywave::auth::Grant {
    let config = Config::load(None, true, environment.iter().copied()).unwrap();
    let authenticator = Authenticator::new(&config.auth).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(authenticator.verify(token)).unwrap()
}

#[test]
fn version_is_that_of_the_package() {
    assert_eq!(stdout(&skywave(&["--version"], &[])), format!("skywave {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    for arguments in [&[][..], &["fly"], &["check", "--colour"], &["token"]] {
        refused(&skywave(arguments, &[]));
    }
    assert!(stdout(&skywave(&["--help"], &[])).contains("check"));
    assert!(stdout(&skywave(&["token", "--help"], &[])).contains("chat:*=subscribe,publish"));
}

#[test]
fn check_accepts_a_configuration_whose_files_are_there() {
    let directory = tempfile::tempdir().unwrap();
    cert(directory.path(), &[]);
    let file = directory.path().join("skywave.toml");
    let text = format!(
        "[tls]\ncertificate = {:?}\nkey = {:?}\n[auth]\nhmac_secret = {SECRET:?}\n",
        directory.path().join("certificate.pem"),
        directory.path().join("key.pem"),
    );
    std::fs::write(&file, text).unwrap();
    assert_eq!(stdout(&skywave(&["check", "--config", file.to_str().unwrap()], &[])), "OK");
}

#[test]
fn check_tells_every_problem_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("skywave.toml");
    std::fs::write(&file, "[limits]\nsesions = 5\nframe_bytes = 1\n").unwrap();
    let path = file.to_str().unwrap();
    let told = refused(&skywave(&["check", "--config", path], &[("SKYWAVE_DRAIN__DEADLINE", "soon")]));
    for expected in [
        format!("{path}:2: unknown key \"limits.sesions\"; did you mean \"sessions\"?"),
        format!("{path}:3: limits.frame_bytes: must be within"),
        "SKYWAVE_DRAIN__DEADLINE: drain.deadline: expected a duration".to_owned(),
        format!("{path}: auth: there is no key"),
        format!("{path}: tls: certificate and key are missing"),
    ] {
        assert!(told.contains(&expected), "{expected:?} not in {told}");
    }
}

#[test]
fn check_looks_into_the_files_that_the_configuration_names() {
    let environment = [
        ("SKYWAVE_AUTH__PUBLIC_KEY", "/nowhere/jwt.pem"),
        ("SKYWAVE_TLS__CERTIFICATE", "/nowhere/certificate.pem"),
        ("SKYWAVE_TLS__KEY", "/nowhere/key.pem"),
    ];
    let told = refused(&skywave(&["check"], &environment));
    assert!(told.contains("/nowhere/jwt.pem") && told.contains("/nowhere/certificate.pem"), "{told}");
}

#[test]
fn check_accepts_dev_without_anything() {
    assert_eq!(stdout(&skywave(&["check", "--dev"], &[])), "OK");
    refused(&skywave(&["check"], &[]));
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

#[test]
fn cert_writes_a_certificate_with_its_key_and_prints_its_sha256() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("new/certs");
    let printed = cert(&out, &["--host", "example.test"]);
    let config = TlsConfig { certificate: out.join("certificate.pem"), key: out.join("key.pem") };
    let certified = skywave::certificate::load(&config).unwrap();
    assert_eq!(printed, skywave::certificate::sha256(&certified));
    let again = cert(&out, &[]);
    assert_ne!(again, printed);
    assert_eq!(again, skywave::certificate::sha256(&skywave::certificate::load(&config).unwrap()));
}

#[cfg(unix)]
#[test]
fn a_key_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    std::fs::write(&key, "an older key, open to all").unwrap();
    cert(directory.path(), &[]);
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_host_that_is_no_name_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    refused(&skywave(&["cert", "--out", out, "--host", "n\u{f6}name"], &[]));
}
