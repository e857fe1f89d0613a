//! A member as it stands in Redis, and the changes that scripts tell of.

use serde::{Deserialize, Deserializer, Serialize};
use skywave_channels::claim::Claim;
use skywave_protocol::{
    Channel, Json, Text,
    frame::{Member, SessionId},
};
use skywave_redis::Malformed;
use std::sync::Arc;

/// What a member shows besides its session and its time. The claim of its transport comes first: scripts look for it at
/// the beginning.
#[derive(Serialize, Deserialize)]
struct Details {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    data: Option<Json>,
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(value).map(Some)
}

/// A claim as it stands in the details.
pub(crate) fn claim(claim: Claim) -> String {
    let [attempt, turn, since_ms, number] = claim.into();
    format!("[{attempt},{turn},{since_ms},{number}]")
}

/// A member's details as text. Nodes of the version before tell no claim.
pub(crate) fn details(member: &Member, claim: Option<Claim>) -> String {
    let details = Details { claim, user: member.user.clone(), data: member.data.clone() };
    serde_json::to_string(&details).unwrap_or_else(|error| {
        tracing::error!(%error, "a member is shown without details");
        "{}".to_owned()
    })
}

/// A member, and who holds it there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub holder: String,
    /// Grows whenever the session passes to another holder.
    pub stay: u64,
    /// Of the transport that is there; absent where a node of the version before holds it.
    pub claim: Option<Claim>,
    pub member: Member,
}

impl Held {
    /// Reads `holder stay since_ms details`.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn parse(session: &str, value: &str) -> Result<Self, Malformed> {
        let mut words = value.splitn(4, ' ');
        let mut word = || words.next().ok_or(Malformed("member"));
        let (holder, stay, since, details) = (word()?, word()?, word()?, word()?);
        let number = |text: &str| text.parse().map_err(|_| Malformed("member"));
        let Details { claim, user, data } = serde_json::from_str(details).map_err(|_| Malformed("member"))?;
        let session: SessionId = Text::new(session).map_err(|_| Malformed("session"))?;
        let member = Member { session, user, data, since_ms: number(since)? };
        Ok(Self { holder: holder.to_owned(), stay: number(stay)?, claim, member })
    }
}

/// Changes of one channel, told in the order in which they happened in its partition.
#[derive(Debug)]
pub(crate) struct News {
    /// The life of the partition in which they happened.
    pub life: String,
    /// What is said in a partition is numbered in its order, without gaps.
    pub number: u64,
    pub channel: Channel,
    /// How many are there now.
    pub count: u64,
    pub joined: Vec<Held>,
    /// They were missing by mistake, and are there again; who did not miss them need not be told.
    pub back: Vec<Held>,
    pub left: Vec<Held>,
    /// They are held by another holder than before.
    pub taken: Vec<Held>,
    /// The holder's lease had run out; there may be more in a moment.
    pub(crate) swept: bool,
}

/// [`News`] as it travels.
#[derive(Deserialize)]
struct Told {
    life: String,
    number: u64,
    channel: Channel,
    count: u64,
    #[serde(default)]
    joined: Vec<String>,
    #[serde(default)]
    back: Vec<String>,
    #[serde(default)]
    left: Vec<String>,
    #[serde(default)]
    taken: Vec<String>,
    #[serde(default)]
    swept: bool,
}

impl News {
    /// # Errors
    /// When no script wrote it.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let told: Told = rmp_serde::from_slice(payload).map_err(|_| Malformed("news of presence"))?;
        let Told { life, number, channel, count, joined, back, left, taken, swept } = told;
        let [joined, back, left, taken] = [joined, back, left, taken].map(|list| pairs(&list));
        Ok(Self {
            life,
            number,
            channel,
            count,
            joined: joined?,
            back: back?,
            left: left?,
            taken: taken?,
            swept,
        })
    }
}

/// Reads session, value, session, value, …
fn pairs(list: &[String]) -> Result<Vec<Held>, Malformed> {
    list.chunks(2)
        .map(|pair| match pair {
            [session, value] => Held::parse(session, value),
            _ => Err(Malformed("list of members")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(user: Option<&str>, data: Option<&str>) -> Member {
        Member {
            session: Text::new("s1").unwrap(),
            user: user.map(Arc::from),
            data: data.map(|data| Json::parse(data).unwrap()),
            since_ms: 5,
        }
    }

    #[test]
    fn a_member_is_read_as_it_was_written() {
        for member in [
            member(None, None),
            member(Some(""), Some("null")),
            member(Some("a b\n\0ü"), Some(r#"{"name": "A  B", "n": 1.50}"#)),
        ] {
            for claim in [None, Some(Claim::from([1, 0, (1 << 53) - 1, 7]))] {
                let value = format!("node.1 17 5 {}", details(&member, claim));
                let held = Held::parse("s1", &value).unwrap();
                assert_eq!((held.holder.as_str(), held.stay, held.claim), ("node.1", 17, claim));
                assert_eq!(held.member, member);
            }
        }
    }

    #[test]
    fn details_begin_with_the_claim_as_scripts_look_for_it() {
        let written = claim(Claim::from([3, 2, 1, 0]));
        assert_eq!(written, "[3,2,1,0]");
        let details = details(&member(Some("alice"), None), Some(Claim::from([3, 2, 1, 0])));
        assert!(details.starts_with(&format!("{{\"claim\":{written}")), "{details}");
    }

    #[test]
    fn what_no_node_wrote_is_refused() {
        for value in ["", "node 1 2", "node x 2 {}", "node 1 -2 {}", "node 1 2 [", "node 1 2 {\"user\":7}"] {
            assert!(Held::parse("s1", value).is_err(), "{value}");
        }
        assert!(Held::parse(&"s".repeat(65), "node 1 2 {}").is_err());
        assert!(News::decode(b"what is this").is_err());
        assert!(pairs(&["s1".to_owned()]).is_err());
    }
}
