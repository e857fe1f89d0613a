//! Configurations are checked, wrong usage is told.

use crate::world::{SECRET, cert, refused, skywave, stdout};

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
    assert_eq!(refused(&skywave(&["serve"], &environment)), told);
}

#[test]
fn check_looks_into_the_files_that_say_who_vouches_for_redis() {
    let environment = [
        ("SKYWAVE_AUTH__SESSION_SECRET", SECRET),
        ("SKYWAVE_BROKER__KIND", "redis"),
        ("SKYWAVE_BROKER__URL", "rediss://redis.example.com"),
        ("SKYWAVE_BROKER__CA", "/nowhere/eu.pem"),
        ("SKYWAVE_REGIONS__US__REDIS", "rediss://redis.us.example.com"),
        ("SKYWAVE_REGIONS__US__URL", "https://us.example.com"),
        ("SKYWAVE_REGIONS__US__CA", "/nowhere/us.pem"),
    ];
    let told = refused(&skywave(&["check", "--dev"], &environment));
    assert!(told.contains("/nowhere/eu.pem") && told.contains("/nowhere/us.pem"), "{told}");
    assert_eq!(refused(&skywave(&["serve", "--dev"], &environment)), told);
}

#[test]
fn a_variable_that_is_empty_turns_no_check_off() {
    let environment = [("SKYWAVE_AUTH__HMAC_SECRET", SECRET), ("SKYWAVE_AUTH__AUDIENCE", "")];
    for command in ["check", "serve"] {
        let told = refused(&skywave(&[command, "--dev"], &environment));
        assert!(told.contains("SKYWAVE_AUTH__AUDIENCE: auth.audience: must name at least one"), "{told}");
    }
}

#[test]
fn check_accepts_dev_without_anything() {
    assert_eq!(stdout(&skywave(&["check", "--dev"], &[])), "OK");
    refused(&skywave(&["check"], &[]));
}

#[test]
fn check_accepts_every_node_of_the_example_with_three_regions() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("certs");
    cert(&certs, &[]);
    for secret in ["hmac_secret", "session_secret"] {
        std::fs::write(certs.join(secret), SECRET).unwrap();
    }
    for region in ["eu", "us", "ap"] {
        let file = format!("{}/config/regions/{region}.toml", env!("CARGO_MANIFEST_DIR"));
        for number in 1..=2 {
            let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_skywave"));
            check.args(["check", "--config", &file]).current_dir(&directory).env_clear();
            check.env("SKYWAVE_NODE__ID", format!("{region}-{number}"));
            check.env("SKYWAVE_NODE__URL", format!("https://{region}-{number}.example.com:4433"));
            assert_eq!(stdout(&check.output().unwrap()), "OK");
        }
    }
}
