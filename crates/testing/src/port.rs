//! Ports for those who must be told theirs before they start: free, and nobody else's while they are held.

use crate::eventually;
use rand::RngExt;
use std::{
    fs::{File, create_dir_all},
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
};

/// Below those that the kernel gives to whoever asks for any, so that no other socket takes one in passing.
const RANGE: Range<u16> = 20_000..32_000;

/// A port of this machine that was free on TCP and UDP, and that no test takes, in whatever process, while it is held:
/// its server may end and start again.
pub struct Port {
    number: u16,
    /// Locked; it is no longer when it is closed.
    _claim: File,
}

impl Port {
    pub fn free() -> Self {
        Self::free_at(Ipv4Addr::LOCALHOST.into())
    }

    /// As [`Self::free`], at another address of this machine.
    pub fn free_at(address: IpAddr) -> Self {
        let claims = std::env::temp_dir().join("skywave-ports");
        create_dir_all(&claims).unwrap();
        // Each begins somewhere else, so that they seldom meet.
        let begin = rand::rng().random_range(RANGE);
        for number in (begin..RANGE.end).chain(RANGE.start..begin) {
            // It may be another user's.
            let Ok(claim) = File::create(claims.join(number.to_string())) else { continue };
            if claim.try_lock().is_ok() && is_free(address, number) {
                return Self { number, _claim: claim };
            }
        }
        panic!("no port is free");
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// Waits until the server that had it has let go of it: QUIC's task closes its socket a little after the server's
    /// end.
    pub async fn is_left(&self) {
        eventually("the port is free again", async || is_free(Ipv4Addr::LOCALHOST.into(), self.number)).await;
    }
}

/// Others than tests may use it.
fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok() && UdpSocket::bind((address, port)).is_ok()
}
