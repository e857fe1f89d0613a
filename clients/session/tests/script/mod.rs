//! Reads the scripted sessions, and compares what a session does with what is written there.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use skywave_client_session::{RequestError, Time};
use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

/// How long a session is watched after the last step.
const REST_MS: u64 = 1_000;

/// One session: what happens to it, and what it does.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub name: String,
    #[serde(default)]
    pub options: Options,
    #[serde(rename = "script")]
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub publish_queue: usize,
    pub request_timeout_ms: u64,
    /// Where nodes are. A script that has them tells all about its connections.
    pub urls: Vec<String>,
    /// The token to begin with.
    pub token: Option<String>,
    /// Whether tokens are fetched.
    pub fetches_tokens: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            publish_queue: 1_024,
            request_timeout_ms: 10_000,
            urls: Vec::new(),
            token: None,
            fetches_tokens: false,
        }
    }
}

/// What happens, or is done, at that time in milliseconds.
#[derive(Debug, Deserialize)]
#[serde(from = "Written")]
pub enum Step {
    In(u64, Value),
    Out(u64, Value),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    at: u64,
    r#in: Option<Value>,
    out: Option<Value>,
}

impl From<Written> for Step {
    fn from(Written { at, r#in, out }: Written) -> Self {
        match (r#in, out) {
            (Some(input), None) => Self::In(at, input),
            (None, Some(output)) => Self::Out(at, output),
            _ => panic!("a step at {at} is either `in` or `out`"),
        }
    }
}

impl Step {
    pub fn at(&self) -> u64 {
        let (Self::In(at, _) | Self::Out(at, _)) = self;
        *at
    }
}

impl Script {
    /// Until when it is watched.
    pub fn end(&self) -> u64 {
        self.steps.last().map_or(0, Step::at) + REST_MS
    }
}

/// All scripts, with the files that they are in.
pub fn all() -> Vec<(String, Script)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../protocol/vectors/sessions");
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut scripts = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let parsed: Vec<Script> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("sessions/{name}.json: {error}"));
        scripts.extend(parsed.into_iter().map(|script| (name.clone(), script)));
    }
    assert!(!scripts.is_empty());
    scripts
}

/// That moment of a script, by a clock that has gone for long.
pub fn moment(ms: u64) -> Time {
    BEGIN + Duration::from_millis(ms)
}

pub fn ms(time: Time) -> u64 {
    u64::try_from(time.since(BEGIN).as_millis()).unwrap()
}

const BEGIN: Time = Time::from_begin(Duration::from_secs(1_000));

/// The one entry of an object.
pub fn entry(value: &Value) -> (&str, &Value) {
    let (name, body) =
        value.as_object().and_then(|object| object.iter().next()).expect("an object with one entry");
    (name, body)
}

/// How long it has been since 1970, by a calendar whose beginning is the clock's.
pub fn today(time: Time) -> Duration {
    time.since(Time::BEGIN)
}

/// With times of the script in place of those since its beginning.
pub fn dated(mut body: Value) -> Value {
    if let Some(at) = body.get_mut("expires_at_ms") {
        let begin = u64::try_from(today(BEGIN).as_millis()).unwrap();
        *at = json!(at.as_u64().unwrap() + begin);
    }
    body
}

/// A `connected` with what the script says of it, and the rest filled in.
pub fn connected(body: &Value, id: &Value) -> Value {
    let mut connected = json!({
        "id": id, "session": "s1", "resume": "r1", "node": "n1", "region": "eu", "resumed": false,
        "heartbeat": { "interval_ms": 120_000, "timeout_ms": 0 }, "regions": [],
        "limits": { "frame_bytes": 65_536, "channels_per_session": 0, "requests_per_second": 0, "publishes_per_second": 0 },
    });
    for (name, value) in body.as_object().unwrap().iter().filter(|(name, _)| *name != "on") {
        match value {
            Value::Object(fields) => connected[name].as_object_mut().unwrap().extend(fields.clone()),
            value => connected[name] = value.clone(),
        }
    }
    dated(connected)
}

/// What a script tells of an error.
pub fn error(error: &RequestError) -> Value {
    json!({ "code": error.code, "reason": error.reason, "transient": error.transient })
}

/// With ids in place of the names that a script has for them.
pub fn with_ids(value: &Value, ids: &HashMap<String, Value>) -> Value {
    match value {
        Value::Array(values) => values.iter().map(|value| with_ids(value, ids)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| match value.as_str() {
                Some(known) if name == "id" => {
                    (name.clone(), ids.get(known).cloned().expect("no such id yet"))
                }
                _ => (name.clone(), with_ids(value, ids)),
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// Whether it did what was expected. A name in place of an id stands for the same id wherever it stands.
pub fn is_same(expected: &Value, done: &Value, ids: &mut HashMap<String, Value>) -> bool {
    match (expected, done) {
        (Value::Array(expected), Value::Array(done)) => {
            expected.len() == done.len()
                && expected.iter().zip(done).all(|(one, other)| is_same(one, other, ids))
        }
        (Value::Object(expected), Value::Object(done)) => {
            expected.len() == done.len()
                && expected.iter().all(|(name, value)| match (value.as_str(), done.get(name)) {
                    (_, None) => false,
                    (Some(id), Some(done)) if name == "id" => {
                        ids.entry(id.to_owned()).or_insert_with(|| done.clone()) == done
                    }
                    (_, Some(done)) => is_same(value, done, ids),
                })
        }
        (expected, done) => expected == done,
    }
}
