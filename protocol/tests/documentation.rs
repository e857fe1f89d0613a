//! The protocol's document says what the code does: frames, fields, bounds, codes and examples.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod schema;
#[allow(dead_code, reason = "it serves the test of the vectors as well")]
mod vector_files;

use serde_json::{Value, json};
use skywave_protocol::{
    CONNECT_PATH, CloseCode, Encoding, ErrorCode, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK,
    channel::{MAX_CHANNEL_BYTES, MAX_NAMESPACE_BYTES},
    frame::{GapReason, MAX_HISTORY_LIMIT, ServerFrame},
    framing::{MAX_FRAME_BYTES, MAX_PREFIX_BYTES, write_prefix},
    payload::MAX_JSON_DEPTH,
    position::MAX_ORIGINS,
};
use std::{collections::BTreeMap, fs, path::Path};
use vector_files::{Case, Direction, from_hex, to_hex};

/// What stands under a heading, up to the next one.
struct Section {
    /// The heading of the second level that it is under.
    part: String,
    title: String,
    lines: Vec<String>,
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    fs::read_to_string(path).unwrap()
}

fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut part = String::new();
    for line in document().lines() {
        let title = ["# ", "## ", "### "].iter().find_map(|marker| line.strip_prefix(marker));
        if let Some(title) = title {
            if line.starts_with("## ") {
                part = title.to_owned();
            }
            sections.push(Section { part: part.clone(), title: title.to_owned(), lines: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line.to_owned());
        }
    }
    sections
}

fn section(part: &str, title: &str) -> Section {
    let mut found: Vec<Section> =
        sections().into_iter().filter(|section| section.part == part && section.title == title).collect();
    assert_eq!(found.len(), 1, "sections `{title}` under `{part}`");
    found.remove(0)
}

fn frame_section(direction: Direction, name: &str) -> Section {
    section(part(direction), &format!("`{name}`"))
}

fn part(direction: Direction) -> &'static str {
    match direction {
        Direction::Client => "Client frames",
        Direction::Server => "Node frames",
    }
}

impl Section {
    /// The rows of the table with this first line, cell by cell.
    fn table(&self, header: &str) -> Vec<Vec<String>> {
        let start = self.lines.iter().position(|line| line == header);
        let start = start.unwrap_or_else(|| panic!("no table `{header}` under `{}`", self.title));
        let cells = |line: &String| {
            let row = line.trim_matches('|');
            row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        };
        self.lines[start + 2..].iter().take_while(|line| line.starts_with('|')).map(cells).collect()
    }

    /// Name, type and obligation of each field.
    fn fields(&self) -> Vec<Field> {
        let rows = self.table("| field | type | must | meaning |");
        rows.into_iter()
            .map(|row| {
                let [name, kind, must, _meaning] = <[String; 4]>::try_from(row).expect("four columns");
                Field { name, kind, must }
            })
            .collect()
    }

    /// The code blocks in this language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let fence = format!("```{language}");
        let mut lines = self.lines.iter();
        let mut blocks = Vec::new();
        while lines.any(|line| *line == fence) {
            let block: Vec<&str> =
                lines.by_ref().map(String::as_str).take_while(|line| *line != "```").collect();
            blocks.push(block.join("\n"));
        }
        blocks
    }
}

struct Field {
    name: String,
    kind: String,
    must: String,
}

impl Field {
    /// The most bytes that the document allows the text to have.
    fn max_bytes(&self) -> Option<usize> {
        match self.kind.as_str() {
            "origin" | "epoch" => Some(32),
            kind => kind.strip_prefix("text, ≤ ")?.strip_suffix(" bytes")?.parse().ok(),
        }
    }
}

/// All frames of one direction: name and fields.
fn frames(direction: Direction) -> Vec<schema::Shape> {
    match direction {
        Direction::Client => schema::client_frames(),
        Direction::Server => schema::server_frames(),
    }
}

/// A vector with this field, as a value that can be changed.
fn vector_with(direction: Direction, frame: &str, field: &str) -> Value {
    let values = direction
        .cases(frame)
        .into_iter()
        .map(|Case { json, .. }| -> Value { serde_json::from_str(&json).unwrap() });
    let found = values.into_iter().find(|value| value[frame].get(field).is_some());
    found.unwrap_or_else(|| panic!("no vector of {frame} with {field}"))
}

fn decodes(direction: Direction, frame: &Value) -> bool {
    direction.decode(Encoding::Json, frame.to_string().as_bytes()).is_ok()
}

#[test]
fn every_frame_and_no_other_has_a_section() {
    for direction in Direction::BOTH {
        let titles: Vec<String> = sections()
            .into_iter()
            .filter(|section| section.part == part(direction) && section.title.starts_with('`'))
            .map(|section| section.title.trim_matches('`').to_owned())
            .collect();
        assert_eq!(titles, direction.names(), "{direction:?}");
    }
}

#[test]
fn every_field_and_no_other_is_described() {
    let mut shapes: Vec<(Section, schema::Shape)> = Vec::new();
    for direction in Direction::BOTH {
        for shape in frames(direction) {
            shapes.push((frame_section(direction, shape.name), shape));
        }
    }
    for shape in schema::structures() {
        shapes.push((section("Structures", &format!("`{}`", shape.name)), shape));
    }
    for (section, shape) in shapes {
        let mut described: Vec<String> = section.fields().into_iter().map(|field| field.name).collect();
        let mut fields = shape.fields.to_vec();
        described.sort();
        fields.sort_unstable();
        assert_eq!(described, fields, "`{}` under `{}`", section.title, section.part);
    }
}

#[test]
fn exactly_the_fields_that_must_be_there_are_needed() {
    for direction in Direction::BOTH {
        for name in direction.names() {
            for field in frame_section(direction, name).fields() {
                let mut frame = vector_with(direction, name, &field.name);
                frame[name].as_object_mut().unwrap().remove(&field.name);
                let needed = match field.must.as_str() {
                    "yes" | "one of the two" => true,
                    "no" => false,
                    other => panic!("{name}.{}: must {other}", field.name),
                };
                assert_eq!(
                    decodes(direction, &frame),
                    !needed,
                    "{direction:?} {name} without {}",
                    field.name
                );
            }
        }
    }
}

#[test]
fn texts_are_bounded_as_described() {
    let mut bounded = 0;
    for direction in Direction::BOTH {
        for name in direction.names() {
            for field in frame_section(direction, name).fields() {
                let Some(maximum) = field.max_bytes() else { continue };
                let mut frame = vector_with(direction, name, &field.name);
                frame[name][&field.name] = json!("x".repeat(maximum));
                assert!(decodes(direction, &frame), "{name}.{} of {maximum} bytes", field.name);
                frame[name][&field.name] = json!("x".repeat(maximum + 1));
                assert!(!decodes(direction, &frame), "{name}.{} of {maximum} + 1 bytes", field.name);
                bounded += 1;
            }
        }
    }
    assert!(bounded > 10, "only {bounded} bounded fields are described");
}

#[test]
fn every_frame_has_examples_and_they_are_golden_vectors() {
    for direction in Direction::BOTH {
        for name in direction.names() {
            let vectors: Vec<Value> =
                direction.cases(name).iter().map(|case| serde_json::from_str(&case.json).unwrap()).collect();
            let examples = frame_section(direction, name).blocks("json");
            assert!(!examples.is_empty(), "{direction:?} {name} has no example");
            for example in examples {
                direction
                    .decode(Encoding::Json, example.as_bytes())
                    .unwrap_or_else(|error| panic!("{direction:?} {name}: {error}\n{example}"));
                let value: Value = serde_json::from_str(&example).unwrap();
                assert!(value.get(name).is_some(), "under `{name}`: {example}");
                assert!(vectors.contains(&value), "{direction:?} {name}: no vector is\n{example}");
            }
        }
    }
}

#[test]
fn the_example_of_both_encodings_is_one_frame() {
    let section = section("Encodings", "Encodings");
    let json = Direction::Client.decode(Encoding::Json, section.blocks("json")[0].as_bytes());
    // The bytes stand before a gap of several spaces, their meaning after it.
    let hex: String = section.blocks("msgpack")[0]
        .lines()
        .flat_map(|line| line.trim().split("  ").next())
        .flat_map(|bytes| bytes.chars().filter(|digit| !digit.is_whitespace()))
        .collect();
    let msgpack = Direction::Client.decode(Encoding::MessagePack, &from_hex(&hex));
    assert_eq!(json, msgpack);
    assert_eq!(to_hex(&json.unwrap().encode(Encoding::MessagePack).bare()), hex);
}

#[test]
fn the_error_codes_are_those_of_the_code() {
    let listed: Vec<[String; 3]> = section("Codes", "Error codes")
        .table("| code | reason | transient | what happened, and what a client does |")
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    let known: Vec<[String; 3]> = ErrorCode::ALL
        .iter()
        .map(|code| [code.code().to_string(), code.reason().to_owned(), yes_or_no(code.is_transient())])
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn the_close_codes_are_those_of_the_code() {
    let listed: Vec<[String; 3]> = section("Codes", "Close codes")
        .table("| code | reason | reconnect | what happened, and what a client does |")
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    let known: Vec<[String; 3]> = CloseCode::ALL
        .iter()
        .map(|code| [code.code().to_string(), code.reason().to_owned(), yes_or_no(code.reconnect())])
        .collect();
    assert_eq!(listed, known);
}

fn yes_or_no(value: bool) -> String {
    if value { "yes".to_owned() } else { "no".to_owned() }
}

#[test]
fn the_gap_reasons_are_those_of_the_code() {
    let listed: Vec<String> = frame_section(Direction::Server, "gap")
        .table("| reason | publications are missing because |")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let known = GapReason::ALL.map(|reason| json!(reason).as_str().unwrap().to_owned());
    assert_eq!(listed, known);
}

#[test]
fn a_gap_for_a_reason_that_is_not_known_is_a_gap() {
    let gap =
        json!({"gap": {"channel": "chat:1", "origin": "eu", "reason": "because", "epoch": "e", "offset": 1}});
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let frame = encoding.encode(&gap).unwrap();
        let decoded = encoding.decode_server(&frame.bare()).unwrap();
        assert!(matches!(decoded, ServerFrame::Gap(gap) if gap.reason == GapReason::Other), "{encoding:?}");
    }
}

#[test]
fn the_lengths_shown_are_those_written() {
    let rows = section("Framing", "Framing").table("| length | bytes |");
    assert!(!rows.is_empty());
    for row in rows {
        let mut space = [0; MAX_PREFIX_BYTES];
        let size = write_prefix(row[0].replace(',', "").parse().unwrap(), &mut space);
        assert_eq!(to_hex(&space[MAX_PREFIX_BYTES - size..]), row[1], "{}", row[0]);
    }
}

#[test]
fn the_bounds_are_those_of_the_code() {
    let document = document();
    let thousands = format!("{},{:03}", MAX_HISTORY_LIMIT / 1000, MAX_HISTORY_LIMIT % 1000);
    for stated in [
        format!("https://HOST:PORT{CONNECT_PATH}"),
        format!("| `{SUBPROTOCOL_JSON}` |"),
        format!("| `{SUBPROTOCOL_MSGPACK}` |"),
        format!("1 … {MAX_CHANNEL_BYTES} bytes of UTF-8"),
        format!("`[a-z0-9_-]{{1,{MAX_NAMESPACE_BYTES}}}`"),
        format!("at most {MAX_ORIGINS} origins"),
        format!("| `limit`, `history` | integer, 1 … {thousands} |"),
        format!("at most {MAX_JSON_DEPTH} levels"),
    ] {
        assert!(document.contains(&stated), "{stated}");
    }
    assert_eq!(MAX_FRAME_BYTES, (1 << 30) - 1);
    assert!(document.contains("A frame has at most 2³⁰−1 bytes"));
}

#[test]
fn links_within_the_document_lead_somewhere() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = Vec::new();
    for section in sections() {
        let kept = section.title.to_lowercase();
        let slug: String = kept
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
            .map(|letter| if letter == ' ' { '-' } else { letter })
            .collect();
        let count = seen.entry(slug.clone()).or_default();
        anchors.push(if *count == 0 { slug.clone() } else { format!("{slug}-{count}") });
        *count += 1;
    }
    let document = document();
    let links: Vec<&str> =
        document.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() > 30);
    for link in links {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link}");
    }
}
