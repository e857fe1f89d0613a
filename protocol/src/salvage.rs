//! What can be kept of a `connect` of which some subscriptions make no sense.

use crate::{
    channel::{Channel, MAX_CHANNEL_BYTES},
    frame::{ClientInfo, Connect, Network, RequestId, SubscribeOptions},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny},
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// A `connect` without the subscriptions that make no sense, and those.
#[derive(Debug, Clone, PartialEq)]
pub struct Salvaged {
    pub connect: Connect,
    pub refused: Vec<Refused>,
}

/// A subscription that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The name as it came, if it is text of at most 255 bytes.
    pub name: Option<String>,
    /// What is wrong, for a developer.
    pub message: String,
}

impl<'de> Deserialize<'de> for Salvaged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Frame::Connect(fields) = Frame::deserialize(deserializer)?;
        let Fields { id, token, resume, attempt, subscriptions, client, network } = fields;
        let Subscriptions { good, refused } = subscriptions;
        let connect = Connect { id, token, resume, attempt, subscriptions: good, client, network };
        Ok(Self { connect, refused })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Frame {
    Connect(Fields),
}

#[derive(Deserialize)]
struct Fields {
    id: RequestId,
    #[serde(default)]
    token: Option<Arc<str>>,
    #[serde(default)]
    resume: Option<Arc<str>>,
    #[serde(default)]
    attempt: Option<u64>,
    #[serde(default)]
    subscriptions: Subscriptions,
    #[serde(default)]
    client: Option<ClientInfo>,
    #[serde(default)]
    network: Option<Network>,
}

#[derive(Default)]
struct Subscriptions {
    good: BTreeMap<Channel, SubscribeOptions>,
    refused: Vec<Refused>,
}

/// Options, or anything else.
#[derive(Deserialize)]
#[serde(untagged)]
enum Options {
    Good(SubscribeOptions),
    Bad(#[allow(dead_code, reason = "it is passed over")] IgnoredAny),
}

impl<'de> Deserialize<'de> for Subscriptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Subscriptions;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of channels")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Subscriptions, A::Error> {
                let mut all = Subscriptions::default();
                while let Some((Name(name), options)) = map.next_entry()? {
                    all.add(&name, options);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl Subscriptions {
    fn add(&mut self, name: &[u8], options: Options) {
        let text = std::str::from_utf8(name).ok();
        let message = match (text.map(Channel::new), options) {
            (Some(Ok(channel)), Options::Good(options)) => {
                self.good.insert(channel, options);
                return;
            }
            (Some(Err(error)), _) => error.to_string(),
            (None, _) => "a channel's name is text".to_owned(),
            (_, Options::Bad(_)) => "its options make no sense".to_owned(),
        };
        let name = text.filter(|text| text.len() <= MAX_CHANNEL_BYTES).map(str::to_owned);
        self.refused.push(Refused { name, message });
    }
}

/// A name as bytes: text may hold half of a surrogate pair, which is no UTF-8.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Name;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(name.as_bytes().to_vec()))
            }
            fn visit_bytes<E>(self, name: &[u8]) -> Result<Name, E> {
                Ok(Name(name.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Encoding, frame::Connect};
    use serde_json::json;

    fn salvaged(encoding: Encoding, frame: &serde_json::Value) -> (Connect, Vec<Option<String>>) {
        let bytes = encoding.encode(frame).unwrap().bare();
        let salvaged = *encoding.read_client(&bytes).unwrap_err().salvaged.unwrap();
        (salvaged.connect, salvaged.refused.into_iter().map(|refused| refused.name).collect())
    }

    #[test]
    fn good_subscriptions_are_kept_beside_bad_ones() {
        let long = format!("chat:{}", "x".repeat(300));
        let frame = json!({"connect": {"id": 1, "token": "t", "subscriptions": {
            "chat:1": {"history": 5}, "chat:2": {"position": {"eu": 7}}, "nonsense": {}, "chat:3": 4, &long: {},
        }}});
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let (connect, mut refused) = salvaged(encoding, &frame);
            assert_eq!(connect.token.as_deref(), Some("t"));
            assert!(connect.subscriptions.keys().map(|name| &**name).eq(["chat:1"]));
            assert_eq!(connect.subscriptions.values().next().unwrap().history, Some(5));
            refused.sort();
            let names = ["chat:2", "chat:3", "nonsense"].map(|name| Some(name.to_owned()));
            assert_eq!(refused, [&[None][..], &names].concat());
        }
    }

    #[test]
    fn half_a_surrogate_pair_spoils_its_own_channel_only() {
        let text = r#"{"connect":{"id":1,"subscriptions":{"chat:\ud83d":{},"chat:1":{}}}}"#;
        let salvaged = Encoding::Json.read_client(text.as_bytes()).unwrap_err().salvaged.unwrap();
        assert!(salvaged.connect.subscriptions.keys().map(|name| &**name).eq(["chat:1"]));
        assert_eq!(salvaged.refused[0].name, None);
    }

    #[test]
    fn what_else_is_wrong_with_a_connect_cannot_be_helped() {
        for text in [
            r#"{"connect":{"subscriptions":{}}}"#,
            r#"{"connect":{"id":1,"token":5}}"#,
            r#"{"connect":{"id":1,"subscriptions":[]}}"#,
            r#"{"publish":{"id":1}}"#,
            "{",
        ] {
            assert!(Encoding::Json.read_client(text.as_bytes()).unwrap_err().salvaged.is_none(), "{text}");
        }
    }
}
