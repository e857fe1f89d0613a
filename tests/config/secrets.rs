//! Secrets: where they come from, and that they stay.

use crate::loading::{NO_ENVIRONMENT, SECRET, refused_with, write};
use skywave::config::Config;

#[test]
fn session_secrets_are_random_for_a_node_that_is_alone() {
    let secret = || {
        let config = Config::load(None, true, NO_ENVIRONMENT).unwrap();
        config.auth.session_secret.expose().to_owned()
    };
    assert!(secret().len() >= 32);
    assert_ne!(secret(), secret());
}

#[test]
fn a_secret_ends_before_the_line_end_that_a_file_or_a_variable_has() {
    for ending in ["", "\n", "\r\n", "\n\n"] {
        let secret = format!("{SECRET}{ending}");
        let file = write(&secret);
        let path = file.path().to_str().unwrap();
        for variable in [("SKYWAVE_AUTH__API_KEY_FILE", path), ("SKYWAVE_AUTH__API_KEY", &secret)] {
            let config = Config::load(None, true, [variable]).unwrap();
            assert_eq!(config.auth.api_key.unwrap().expose(), SECRET);
        }
    }
}

#[test]
fn an_api_key_that_no_header_can_bring_is_refused() {
    for key in [
        " a key of sixteen bytes",
        "a key of sixteen bytes ",
        "a key of\nsixteen bytes",
        "ein Schlüssel, lang",
    ] {
        refused_with(
            Config::load(None, true, [("SKYWAVE_AUTH__API_KEY", key)]),
            "auth.api_key: expected printable",
        );
        let file = write(key);
        let path = file.path().to_str().unwrap();
        refused_with(
            Config::load(None, true, [("SKYWAVE_AUTH__API_KEY_FILE", path)]),
            "auth.api_key_file: expected printable",
        );
    }
}

#[test]
fn a_secret_given_twice_or_too_short_or_in_no_file_is_refused() {
    let file = write(SECRET);
    let path = file.path().to_str().unwrap();
    refused_with(
        Config::load(None, true, [("SKYWAVE_AUTH__API_KEY", SECRET), ("SKYWAVE_AUTH__API_KEY_FILE", path)]),
        "give either api_key or api_key_file",
    );
    refused_with(
        Config::load(None, true, [("SKYWAVE_AUTH__HMAC_SECRET", "short")]),
        "auth.hmac_secret: must be at least 32 bytes long",
    );
    refused_with(
        Config::load(None, true, [("SKYWAVE_AUTH__HMAC_SECRET_FILE", "/nowhere/secret")]),
        "cannot read /nowhere/secret",
    );
}

#[test]
fn no_secret_shows_in_debug_output_or_in_an_error() {
    let secret = "a-very-secret-secret-of-32-bytes-or-more";
    let redis = format!("redis://:{secret}@localhost");
    let variables = [
        ("SKYWAVE_AUTH__HMAC_SECRET", secret),
        ("SKYWAVE_AUTH__SESSION_SECRET", secret),
        ("SKYWAVE_AUTH__API_KEY", secret),
        ("SKYWAVE_BROKER__KIND", "redis"),
        ("SKYWAVE_BROKER__URL", &redis),
        ("SKYWAVE_REGIONS__US__REDIS", &redis),
        ("SKYWAVE_REGIONS__US__URL", "https://us.example.com"),
    ];
    let config = Config::load(None, true, variables).unwrap();
    assert_eq!(config.auth.hmac_secret.as_ref().unwrap().expose(), secret);
    let shown = format!("{config:?}");
    assert!(shown.contains("***"));
    assert!(!shown.contains(secret));

    let wrong = format!("http://:{secret}@localhost");
    let error =
        Config::load(None, true, [("SKYWAVE_BROKER__KIND", "redis"), ("SKYWAVE_BROKER__URL", &wrong)]);
    assert!(!error.unwrap_err().to_string().contains(secret));
}
