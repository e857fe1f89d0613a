//! A reader that goes from region to region, and holds that each publication comes once and in order, or a gap is told.

use super::Ending;
use serde_json::{Value, json};
use skywave_protocol::{Point, Position, position::Origin};
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::time::Instant;

/// How many frames are told should something be wrong.
const TRACED: usize = 60;

/// A channel, an origin, an epoch and an offset.
pub type Place = (String, String, String, u64);

pub struct Reader {
    pub name: String,
    /// When the storm did.
    begun: Instant,
    /// Where it stands in each channel, from the beginning on.
    seen: HashMap<String, Position>,
    /// The number that it got at each place.
    pub got: HashMap<Place, u64>,
    /// What it got, by channel.
    numbers: HashMap<String, HashSet<u64>>,
    trace: VecDeque<String>,
    /// What it was told that is lost.
    losses: Vec<String>,
}

impl Reader {
    pub fn new(name: String, begun: Instant) -> Self {
        Self {
            name,
            begun,
            seen: HashMap::new(),
            got: HashMap::new(),
            numbers: HashMap::new(),
            trace: VecDeque::new(),
            losses: Vec::new(),
        }
    }

    /// What it asks a node: all channels, from where it stands.
    pub fn connect(&mut self, channels: &[&str]) -> String {
        let mut options = |channel: &&str| {
            let position = self.seen.entry((*channel).to_owned()).or_default();
            json!({ "position": position })
        };
        let subscriptions: HashMap<_, _> =
            channels.iter().map(|channel| (*channel, options(channel))).collect();
        let frame = json!({"connect": {"id": 1, "subscriptions": subscriptions}}).to_string();
        self.note(frame.clone());
        frame
    }

    pub fn take(&mut self, region: &str, frame: &Value) {
        self.note(format!("{region}: {frame}"));
        let (kind, told) = frame.as_object().unwrap().iter().next().unwrap();
        let channel = told["channel"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "gap" => {
                let (origin, point) = place(told);
                let before = self.seen[&channel].get(&origin);
                let leads_back =
                    before.is_some_and(|seen| seen.epoch == point.epoch && seen.offset >= point.offset);
                self.hold(!leads_back, "a gap leads nowhere");
                self.losses.push(format!("{:?} {region} at {before:?}: {frame}", self.begun.elapsed()));
                self.stand(&channel, origin, point);
            }
            "publication" => {
                let (origin, point) = place(told);
                let name = (channel.clone(), origin.to_string(), point.epoch.to_string(), point.offset);
                let is_new = self.got.insert(name, told["data"].as_u64().unwrap()).is_none();
                self.hold(is_new, "it came twice");
                let follows = match self.seen[&channel].get(&origin) {
                    None => point.offset == 1,
                    Some(seen) => seen.epoch == point.epoch && seen.offset + 1 == point.offset,
                };
                self.hold(follows, "it does not follow");
                self.stand(&channel, origin, point);
                self.numbers.entry(channel).or_default().extend(told["data"].as_u64());
            }
            _ => {}
        }
    }

    pub fn numbers(&self, channel: &str) -> HashSet<u64> {
        self.numbers.get(channel).cloned().unwrap_or_default()
    }

    /// Whether it came to where a channel ends, be it by a gap.
    pub fn ended(&self, channel: &str, end: &Ending) -> bool {
        let seen = |origin: &Origin| self.seen.get(channel).and_then(|position| position.get(origin));
        match end {
            Ending::At(last) => {
                seen(&last.origin).is_some_and(|seen| seen.epoch == last.epoch && seen.offset == last.offset)
            }
            // Who saw nothing lost nothing that it knew of.
            Ending::Quiet(origin, life) => {
                seen(origin).is_none_or(|seen| seen.epoch.split('.').next() == Some(life))
            }
        }
    }

    fn stand(&mut self, channel: &str, origin: Origin, point: Point) {
        self.seen.get_mut(channel).unwrap().set(origin, point);
    }

    fn note(&mut self, text: String) {
        self.trace.push_back(format!("{:?} {text}", self.begun.elapsed()));
        if self.trace.len() > TRACED {
            self.trace.pop_front();
        }
    }

    /// Tells what came last if something does not hold.
    pub fn hold(&self, holds: bool, what: &str) {
        let trace = || self.trace.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let losses = || self.losses.join("\n");
        assert!(holds, "reader {}: {what}\n{:?}\n{}\nlost:\n{}", self.name, self.seen, trace(), losses());
    }
}

/// Where a publication or a gap stands.
fn place(told: &Value) -> (Origin, Point) {
    let origin = serde_json::from_value(told["origin"].clone()).unwrap();
    let epoch = serde_json::from_value(told["epoch"].clone()).unwrap();
    (origin, Point { epoch, offset: told["offset"].as_u64().unwrap() })
}
