//! Properties of all frames: what is written is read back, alike in both encodings; what is cut or broken is never
//! taken for a frame or a reason to panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use proptest::{collection, option, prelude::*, sample::Index};
use skywave_protocol::{
    Channel, ClientFrame, Encoding, Json, Payload, Point, Position, RequestId, ServerFrame, Text,
    codec::EncodedFrame,
    frame::*,
    position::{Epoch, Origin},
};
use std::{borrow::Cow, sync::Arc};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

// The strategies are boxed: nested by value, their trees outgrow the stack of a test.

fn id() -> impl Strategy<Value = RequestId> {
    prop_oneof![Just(1), Just(u32::MAX), 1..=u32::MAX].prop_map(|id| RequestId::new(id).unwrap())
}

/// Up to `MAX` bytes, any characters.
fn text<const MAX: usize>() -> BoxedStrategy<Text<MAX>> {
    any::<String>()
        .prop_map(|mut text| {
            text.truncate(text.floor_char_boundary(MAX));
            Text::new(text).unwrap()
        })
        .boxed()
}

fn shared() -> BoxedStrategy<Arc<str>> {
    any::<String>().prop_map(Arc::from).boxed()
}

fn words() -> impl Strategy<Value = Cow<'static, str>> {
    any::<String>().prop_map(Cow::from)
}

fn channel() -> impl Strategy<Value = Channel> {
    prop_oneof!["[a-z0-9_-]{1,32}:\\PC{1,50}", "@\\PC{1,50}"].prop_map(|mut name| {
        name.truncate(name.floor_char_boundary(255));
        Channel::new(&name).unwrap()
    })
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just((1 << 53) - 1), Just(u64::MAX), any::<u64>()]
}

fn position() -> BoxedStrategy<Position> {
    let point = (text::<32>(), number()).prop_map(|(epoch, offset)| Point { epoch, offset });
    collection::vec((text::<32>(), point), 0..5).prop_map(|points| points.into_iter().collect()).boxed()
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// JSON text, compact or with white space within.
fn json() -> BoxedStrategy<Json> {
    (json_value(), any::<bool>())
        .prop_map(|(value, pretty)| {
            let text =
                if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            Json::parse(text.unwrap()).unwrap()
        })
        .boxed()
}

fn payload() -> BoxedStrategy<Payload> {
    prop_oneof![
        json().prop_map(Payload::Json),
        any::<Vec<u8>>().prop_map(|bytes| Payload::Binary(Bytes::from(bytes))),
    ]
    .boxed()
}

fn network() -> impl Strategy<Value = Network> {
    (option::of(text()), option::of(any::<bool>()))
        .prop_map(|(kind, background)| Network { kind, background })
}

fn subscribe_options() -> impl Strategy<Value = SubscribeOptions> {
    (option::of(position()), option::of(any::<u32>()), any::<bool>())
        .prop_map(|(position, history, presence)| SubscribeOptions { position, history, presence })
}

fn connect() -> BoxedStrategy<ClientFrame> {
    let client = (text(), option::of(text())).prop_map(|(name, version)| ClientInfo { name, version });
    let subscriptions = collection::btree_map(channel(), subscribe_options(), 0..4);
    (
        id(),
        option::of(shared()),
        option::of(shared()),
        option::of(number()),
        subscriptions,
        option::of(client),
        option::of(network()),
    )
        .prop_map(|(id, token, resume, attempt, subscriptions, client, network)| {
            ClientFrame::Connect(Connect { id, token, resume, attempt, subscriptions, client, network })
        })
        .boxed()
}

fn request_on_a_channel() -> BoxedStrategy<ClientFrame> {
    let history = (id(), channel(), any::<u32>(), option::of(position()), option::of(text()))
        .prop_map(|(id, channel, limit, after, before)| HistoryRequest { id, channel, limit, after, before });
    prop_oneof![
        (id(), channel(), subscribe_options()).prop_map(|(id, channel, options)| {
            ClientFrame::Subscribe(Subscribe::new(id, channel, options))
        }),
        (id(), channel()).prop_map(|(id, channel)| ClientFrame::Unsubscribe(Unsubscribe { id, channel })),
        (id(), channel(), option::of(text()), payload())
            .prop_map(|(id, channel, key, data)| ClientFrame::Publish(Publish { id, channel, key, data })),
        (channel(), option::of(text()), payload())
            .prop_map(|(channel, slot, data)| ClientFrame::Emit(Emit { channel, slot, data })),
        history.prop_map(ClientFrame::History),
        (id(), channel()).prop_map(|(id, channel)| ClientFrame::Presence(PresenceRequest { id, channel })),
    ]
    .boxed()
}

fn client_frame() -> BoxedStrategy<ClientFrame> {
    let call = (id(), text(), option::of(number()), payload())
        .prop_map(|(id, method, deadline_ms, data)| Call { id, method, deadline_ms, data });
    prop_oneof![
        2 => connect(),
        6 => request_on_a_channel(),
        1 => call.prop_map(ClientFrame::Call),
        1 => (id(), shared()).prop_map(|(id, token)| ClientFrame::Refresh(Refresh { id, token })),
        1 => network().prop_map(ClientFrame::Network),
        1 => any::<u32>().prop_map(|seq| ClientFrame::Pong(Pong { seq })),
    ]
    .boxed()
}

fn gap_reason() -> impl Strategy<Value = GapReason> {
    prop_oneof![
        Just(GapReason::Trimmed),
        Just(GapReason::EpochChanged),
        Just(GapReason::UnknownPosition),
        Just(GapReason::TooFarBehind),
    ]
}

fn member() -> BoxedStrategy<Member> {
    // `null` stands for no data, so a member that has data has something else.
    let data = json().prop_filter("null is none", |data| data.get() != "null");
    (text(), option::of(shared()), option::of(data), number())
        .prop_map(|(session, user, data, since_ms)| Member { session, user, data, since_ms })
        .boxed()
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    collection::vec(member(), 0..3)
}

fn connected() -> BoxedStrategy<ServerFrame> {
    let heartbeat =
        (number(), number()).prop_map(|(interval_ms, timeout_ms)| Heartbeat { interval_ms, timeout_ms });
    let limits = [number(), number(), number(), number(), number()].prop_map(|limits| {
        let [frame_bytes, channels_per_session, requests_per_second, publishes_per_second, idempotency_ms] =
            limits;
        Limits {
            frame_bytes,
            channels_per_session,
            requests_per_second,
            publishes_per_second,
            idempotency_ms,
        }
    });
    let region = (text(), shared()).prop_map(|(name, url)| Region { name, url });
    let who = (id(), text(), shared(), option::of(shared()), option::of(number()), any::<bool>());
    let place = (shared(), text(), collection::vec(region, 0..3), option::of(shared()));
    (who, place, heartbeat, limits)
        .prop_map(|(who, place, heartbeat, limits)| {
            let (id, session, resume, user, expires_at_ms, resumed) = who;
            let (node, region, regions, prefer_url) = place;
            ServerFrame::Connected(Connected {
                id,
                session,
                resume,
                node,
                region,
                user,
                expires_at_ms,
                resumed,
                heartbeat,
                limits,
                regions,
                prefer_url,
            })
        })
        .boxed()
}

fn subscription_frame() -> BoxedStrategy<ServerFrame> {
    let presence = (number(), members()).prop_map(|(count, members)| Members { count, members });
    let subscribed = (
        option::of(id()),
        channel(),
        option::of(number()),
        position(),
        option::of(any::<bool>()),
        option::of(gap_reason()),
        option::of(number()),
        option::of(presence),
    )
        .prop_map(|(id, channel, subscription, position, recovered, reason, recovers, presence)| {
            ServerFrame::Subscribed(Subscribed {
                id,
                channel,
                subscription,
                position,
                recovered,
                reason,
                recovers,
                presence,
            })
        });
    let stream = (channel(), number())
        .prop_map(|(channel, subscription)| ServerFrame::Stream(Stream { channel, subscription }));
    let unsubscribed = (option::of(id()), channel(), option::of(any::<u16>()), option::of(words())).prop_map(
        |(id, channel, code, reason)| ServerFrame::Unsubscribed(Unsubscribed { id, channel, code, reason }),
    );
    let gap = (channel(), text(), gap_reason(), text(), number()).prop_map(
        |(channel, origin, reason, epoch, offset)| {
            ServerFrame::Gap(Gap { channel, origin, reason, epoch, offset })
        },
    );
    prop_oneof![subscribed, unsubscribed, stream, gap].boxed()
}

fn publication() -> BoxedStrategy<Publication> {
    let place = (channel(), text::<32>(), text::<32>(), number());
    (place, number(), option::of(text()), option::of(shared()), payload())
        .prop_map(|((channel, origin, epoch, offset), time_ms, key, user, data)| Publication {
            channel,
            origin,
            epoch,
            offset,
            time_ms,
            key,
            user,
            data,
        })
        .boxed()
}

fn message_frame() -> BoxedStrategy<ServerFrame> {
    let event = (channel(), text(), option::of(shared()), option::of(text()), payload()).prop_map(
        |(channel, session, user, slot, data)| {
            ServerFrame::Event(Event { channel, session, user, slot, data })
        },
    );
    let published = (id(), channel(), text::<32>(), text::<32>(), number()).prop_map(
        |(id, channel, origin, epoch, offset): (_, _, Origin, Epoch, _)| {
            ServerFrame::Published(Published { id, channel, origin, epoch, offset })
        },
    );
    let page = (collection::vec(publication(), 0..3), option::of(text()), any::<bool>());
    let history = (id(), channel(), page).prop_map(|(id, channel, (publications, cursor, more))| {
        ServerFrame::History(History { id, channel, publications, cursor, more })
    });
    prop_oneof![publication().prop_map(ServerFrame::Publication), event, published, history].boxed()
}

fn presence_frame() -> BoxedStrategy<ServerFrame> {
    prop_oneof![
        (id(), channel(), number(), members()).prop_map(|(id, channel, count, members)| {
            ServerFrame::Presence(Presence { id, channel, count, members })
        }),
        (channel(), number(), members(), members()).prop_map(|(channel, count, joined, left)| {
            ServerFrame::PresenceChanged(PresenceChanged { channel, count, joined, left })
        }),
    ]
    .boxed()
}

fn session_frame() -> BoxedStrategy<ServerFrame> {
    let error = (option::of(id()), any::<u16>(), words(), words(), any::<bool>(), option::of(number()))
        .prop_map(|(id, code, reason, message, transient, retry_after_ms)| {
            ServerFrame::Error(Error { id, code, reason, message, transient, retry_after_ms })
        });
    prop_oneof![
        error,
        (id(), payload()).prop_map(|(id, data)| ServerFrame::Result(CallResult { id, data })),
        (id(), number())
            .prop_map(|(id, expires_at_ms)| { ServerFrame::Refreshed(Refreshed { id, expires_at_ms }) }),
        (any::<u32>(), number(), number()).prop_map(|(seq, interval_ms, timeout_ms)| {
            ServerFrame::Ping(Ping { seq, interval_ms, timeout_ms })
        }),
        (number(), option::of(shared()))
            .prop_map(|(after_ms, url)| ServerFrame::Drain(Drain { after_ms, url })),
        (any::<u16>(), words(), option::of(words()), any::<bool>(), option::of(number())).prop_map(
            |(code, reason, message, reconnect, retry_after_ms)| {
                ServerFrame::Disconnect(Disconnect { code, reason, message, reconnect, retry_after_ms })
            }
        ),
    ]
    .boxed()
}

fn server_frame() -> BoxedStrategy<ServerFrame> {
    prop_oneof![
        1 => connected(),
        3 => subscription_frame(),
        4 => message_frame(),
        2 => presence_frame(),
        5 => session_frame(),
    ]
    .boxed()
}

fn encode(encoding: Encoding, frame: &impl serde::Serialize) -> EncodedFrame {
    encoding.encode(frame).unwrap()
}

/// Overwrites, removes or repeats bytes here and there.
fn damage(mut bytes: Vec<u8>, changes: &[(Index, u8, u8)]) -> Vec<u8> {
    for (place, kind, value) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = place.index(bytes.len());
        match kind % 3 {
            0 => bytes[at] = *value,
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, *value),
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    collection::vec(any::<(Index, u8, u8)>(), 1..6)
}

/// Whatever damaged bytes decode to is a frame like any other: it is written and read back.
fn survives_reading(bytes: &[u8]) -> Result<(), TestCaseError> {
    for encoding in ENCODINGS {
        if let Ok(frame) = encoding.decode_client(bytes) {
            prop_assert_eq!(encoding.decode_client(&encode(encoding, &frame).bare()), Ok(frame));
        }
        if let Ok(frame) = encoding.decode_server(bytes) {
            prop_assert_eq!(encoding.decode_server(&encode(encoding, &frame).bare()), Ok(frame));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn client_frames_are_read_back_in_both_encodings(frame in client_frame()) {
        for encoding in ENCODINGS {
            let decoded = encoding.decode_client(&encode(encoding, &frame).bare());
            prop_assert_eq!(decoded.as_ref(), Ok(&frame), "{:?}", encoding);
        }
    }

    #[test]
    fn server_frames_are_read_back_in_both_encodings(frame in server_frame()) {
        for encoding in ENCODINGS {
            let decoded = encoding.decode_server(&encode(encoding, &frame).bare());
            prop_assert_eq!(decoded.as_ref(), Ok(&frame), "{:?}", encoding);
        }
    }

    #[test]
    fn a_frame_in_json_is_valid_json_with_its_name_as_the_only_key(frame in server_frame()) {
        let text = encode(Encoding::Json, &frame).bare();
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
        let names: Vec<&str> = value.keys().map(String::as_str).collect();
        prop_assert_eq!(names.len(), 1);
        prop_assert!(ServerFrame::NAMES.contains(&names[0]));
    }

    #[test]
    fn a_beginning_of_a_client_frame_is_no_frame(frame in client_frame(), cut: Index) {
        for encoding in ENCODINGS {
            let bytes = encode(encoding, &frame).bare();
            prop_assert!(encoding.decode_client(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn a_beginning_of_a_server_frame_is_no_frame(frame in server_frame(), cut: Index) {
        for encoding in ENCODINGS {
            let bytes = encode(encoding, &frame).bare();
            prop_assert!(encoding.decode_server(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn damaged_client_frames_do_no_harm(frame in client_frame(), changes in changes()) {
        for encoding in ENCODINGS {
            survives_reading(&damage(encode(encoding, &frame).bare().to_vec(), &changes))?;
        }
    }

    #[test]
    fn damaged_server_frames_do_no_harm(frame in server_frame(), changes in changes()) {
        for encoding in ENCODINGS {
            survives_reading(&damage(encode(encoding, &frame).bare().to_vec(), &changes))?;
        }
    }
}
