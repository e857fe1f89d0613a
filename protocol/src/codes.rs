//! The one list of error and close codes, and which of them mean "try again" or "reconnect".

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $code:literal $reason:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum $name { $($(#[$variant_meta])* $variant = $code,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub fn code(self) -> u16 {
                self as u16
            }

            /// The word beside the number on the wire.
            pub fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason,)+ }
            }

            pub fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    /// Why a request failed; the session goes on.
    ErrorCode {
        Internal = 100 "internal",
        Unauthenticated = 101 "unauthenticated",
        UnknownNamespace = 102 "unknown_namespace",
        Forbidden = 103 "forbidden",
        NotSubscribed = 104 "not_subscribed",
        AlreadySubscribed = 105 "already_subscribed",
        LimitReached = 106 "limit_reached",
        BadRequest = 107 "bad_request",
        NotAvailable = 108 "not_available",
        TokenExpired = 109 "token_expired",
        Unavailable = 110 "unavailable",
        RateLimited = 111 "rate_limited",
        Timeout = 112 "timeout",
    }
}

impl ErrorCode {
    /// Whether the same request may succeed later.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Internal | Self::Unavailable | Self::RateLimited | Self::Timeout)
    }
}

codes! {
    /// Why a transport ends: 3000–3499 the client comes back, 3500–3999 it does not.
    CloseCode {
        Drain = 3000 "drain",
        Shutdown = 3001 "shutdown",
        HeartbeatTimeout = 3002 "heartbeat_timeout",
        SlowConsumer = 3003 "slow_consumer",
        ConnectTimeout = 3004 "connect_timeout",
        TokenExpired = 3005 "token_expired",
        Overloaded = 3006 "overloaded",
        Rotate = 3007 "rotate",
        Replaced = 3500 "replaced",
        BadFrame = 3501 "bad_frame",
        FrameTooLarge = 3502 "frame_too_large",
        Unauthenticated = 3503 "unauthenticated",
        Disconnected = 3504 "disconnected",
        TooManySessions = 3505 "too_many_sessions",
    }
}

impl CloseCode {
    /// Whether the client should come back by itself.
    pub fn reconnect(self) -> bool {
        self.code() < 3500
    }
}

/// Whether a client should come back after this close code, known to it or not. Codes outside of
/// Skywave's ranges are a transport's own (a lost connection, a proxy): it should.
pub fn should_reconnect(code: u16) -> bool {
    !(3500..4000).contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(code.code()), Some(*code));
        }
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(code.code()), Some(*code));
            assert_eq!(code.reconnect(), should_reconnect(code.code()));
        }
    }
}
