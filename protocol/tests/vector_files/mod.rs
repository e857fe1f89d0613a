//! Reads and writes the golden vectors under `vectors/`.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use skywave_protocol::{
    ClientFrame, DecodeError, Encoding, ServerFrame, codec::EncodedFrame, frame::RequestId,
};
use std::{fs, path::PathBuf};

/// Who sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Client,
    Server,
}

/// A frame of either direction.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Client(ClientFrame),
    Server(ServerFrame),
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// Its directory under `vectors/`.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// The names of the frames that travel this way.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Client => ClientFrame::NAMES,
            Self::Server => ServerFrame::NAMES,
        }
    }

    pub fn decode(self, encoding: Encoding, bytes: &[u8]) -> Result<Frame, DecodeError> {
        match self {
            Self::Client => encoding.decode_client(bytes).map(Frame::Client),
            Self::Server => encoding.decode_server(bytes).map(Frame::Server),
        }
    }

    /// All cases of the frame `name`.
    pub fn cases(self, name: &str) -> Vec<Case> {
        read(&self.file(name))
    }

    pub fn write_cases(self, name: &str, cases: &[Case]) {
        let mut text = serde_json::to_string_pretty(cases).unwrap();
        text.push('\n');
        fs::write(path(&self.file(name)), text).unwrap();
    }

    fn file(self, name: &str) -> String {
        format!("{}/{name}.json", self.directory())
    }
}

impl Frame {
    pub fn id(&self) -> Option<RequestId> {
        match self {
            Self::Client(frame) => frame.id(),
            Self::Server(frame) => frame.id(),
        }
    }

    pub fn encode(&self, encoding: Encoding) -> EncodedFrame {
        match self {
            Self::Client(frame) => encoding.encode(frame).unwrap(),
            Self::Server(frame) => encoding.encode(frame).unwrap(),
        }
    }
}

/// One frame in both encodings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// The exact JSON text.
    pub json: String,
    /// The exact MessagePack bytes in hexadecimal.
    pub msgpack: String,
    /// Whether the frame is written like this; otherwise it is only read.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub canonical: bool,
}

fn yes() -> bool {
    true
}

impl Case {
    /// The bytes of the frame in `encoding`.
    pub fn bytes(&self, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Json => self.json.clone().into_bytes(),
            Encoding::MessagePack => from_hex(&self.msgpack),
        }
    }
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file)
}

/// Reads a vector file.
pub fn read<T: DeserializeOwned>(file: &str) -> T {
    let text = fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("vectors/{file}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("vectors/{file}: {error}"))
}

/// The names of the vector files in a directory, without `.json`.
pub fn list(directory: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

pub fn from_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of hexadecimal digits");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
