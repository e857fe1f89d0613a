//! Tokens of users, and the secret that nodes check them with.

use skywave::{
    auth::mint::{Claims, Minter},
    config::Secret,
};
use std::time::{Duration, SystemTime};

pub const HMAC_SECRET: &str = "0123456789abcdef0123456789abcdef";

pub fn token(user: &str) -> String {
    let claims = Claims {
        user: Some(user.to_owned()),
        channels: Vec::new(),
        info: None,
        audience: None,
        issuer: None,
        lifetime: Duration::from_secs(600),
    };
    Minter::from_secret(&Secret::new(HMAC_SECRET)).mint(&claims, SystemTime::now()).unwrap()
}
