//! Any bytes are decoded or refused, and what was decoded survives being written and read again, in both encodings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use skywave_protocol::{DecodeError, Encoding};
use std::fmt::Debug;

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

fuzz_target!(|bytes: &[u8]| {
    for encoding in ENCODINGS {
        check(encoding.decode_client(bytes), Encoding::decode_client);
        check(encoding.decode_server(bytes), Encoding::decode_server);
    }
});

fn check<T: Serialize + PartialEq + Debug>(
    decoded: Result<T, DecodeError>,
    decode: fn(Encoding, &[u8]) -> Result<T, DecodeError>,
) {
    match decoded {
        Ok(frame) => {
            for encoding in ENCODINGS {
                let encoded = encoding.encode(&frame).expect("a frame can be written");
                assert_eq!(decode(encoding, &encoded.bare()).as_ref(), Ok(&frame), "{encoding:?}");
            }
        }
        // What is sent back or logged of a bad frame stays short.
        Err(error) => assert!(error.to_string().len() < 1_000, "{error}"),
    }
}
