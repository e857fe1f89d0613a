//! Loading a text as a configuration, and what is wrong with it.

use skywave::config::{Config, ConfigError};
use std::io::Write as _;

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const NO_ENVIRONMENT: [(&str, &str); 0] = [];

/// The least that a node starts with.
pub const MINIMAL: [(&str, &str); 3] = [
    ("SKYWAVE_AUTH__HMAC_SECRET", SECRET),
    ("SKYWAVE_TLS__CERTIFICATE", "certificate.pem"),
    ("SKYWAVE_TLS__KEY", "key.pem"),
];

pub fn write(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

pub fn load(text: &str, dev: bool) -> Result<Config, ConfigError> {
    Config::load(Some(write(text).path()), dev, NO_ENVIRONMENT)
}

/// Loads with what a node needs and, on top, the given variables.
pub fn load_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(None, false, MINIMAL.iter().chain(variables).copied())
}

pub fn messages(result: Result<Config, ConfigError>) -> Vec<String> {
    let error = result.expect_err("the configuration is wrong");
    error.problems.iter().map(|problem| problem.message.clone()).collect()
}

pub fn refused_with(result: Result<Config, ConfigError>, expected: &str) {
    let messages = messages(result);
    assert!(messages.iter().any(|message| message.contains(expected)), "{expected:?} not in {messages:#?}");
}
