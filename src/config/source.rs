//! Where settings come from: a TOML file and the environment, merged into one tree that knows the origin of each value.

use super::problem::{Place, Problem};
use std::{collections::BTreeMap, ffi::OsString, path::Path, sync::Arc};
use toml::de::{DeTable, DeValue};

/// The configuration file may be this long, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
pub(super) const ENVIRONMENT_PREFIX: &str = "SKYWAVE_";
pub(super) const ENVIRONMENT_SEPARATOR: &str = "__";

/// A value and where it was set.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub value: Value,
    pub place: Place,
}

/// A value of the file, or the raw text of an environment variable, whose type only its reader knows.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Located>),
    Table(Table),
    /// A TOML type that no setting has: its name.
    Other(&'static str),
    Environment(String),
}

pub(super) type Table = BTreeMap<String, Located>;

impl Value {
    /// What to call it in an error message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Environment(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Reads the file, if there is one, into a tree.
pub(super) fn read_file(path: &Path) -> Result<Table, Vec<Problem>> {
    let name: Arc<str> = path.display().to_string().into();
    let text = read_bounded(path, MAX_FILE_BYTES)
        .map_err(|reason| vec![Problem::new(Place::File { path: name.clone(), line: None }, reason)])?;
    let lines = Lines { path: name, text: &text };
    let (document, errors) = DeTable::parse_recoverable(&text);
    if errors.is_empty() {
        return Ok(lines.table(document.get_ref()));
    }
    Err(errors
        .iter()
        .map(|error| Problem::new(lines.place(error.span().map_or(0, |span| span.start)), error.message()))
        .collect())
}

/// Reads a file of UTF-8 text that must not be longer than `limit_bytes`; the error says why it could not be read.
pub(super) fn read_bounded(path: &Path, limit_bytes: u64) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if text.len() as u64 > limit_bytes {
        return Err(format!("{} is longer than {limit_bytes} bytes", path.display()));
    }
    Ok(text)
}

struct Lines<'a> {
    path: Arc<str>,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Place::File { path: self.path.clone(), line: Some(line) }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                // The key's own line, not the value's: an inline list may begin lines below it.
                let place = self.place(key.span().start);
                (key.get_ref().to_string(), Located { value: self.value(value.get_ref()), place })
            })
            .collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or(Value::Other("an integer out of range"), Value::Integer),
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Float(_) => Value::Other("a float"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| Located {
                        value: self.value(item.get_ref()),
                        place: self.place(item.span().start),
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}

/// What the environment holds that is no key.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    pub problems: Vec<Problem>,
    /// Variables without a separator, by what follows the prefix, in lower case.
    pub unseparated: BTreeMap<String, Arc<str>>,
}

/// Lays the variables `SKYWAVE_<SECTION>__<KEY>` over the tree; all others are left alone.
///
/// A namespace or a region stands between section and key: `SKYWAVE_CHANNELS__CHAT__HISTORY`,
/// `SKYWAVE_REGIONS__US__URL`. A key that nothing knows stays in the tree, to be reported by whoever reads it.
pub(super) fn overlay_environment(
    tree: &mut Table,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Leftovers {
    let mut leftovers = Leftovers::default();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let Some((section, key)) = rest.split_once(ENVIRONMENT_SEPARATOR) else {
            leftovers.unseparated.insert(rest.to_lowercase(), name.into());
            continue;
        };
        let place = Place::Environment { name: name.into() };
        let inserted = match value.into_string() {
            Ok(value) => {
                let value = Located { value: Value::Environment(value), place: place.clone() };
                insert(tree, &section.to_lowercase(), &key.to_lowercase(), value)
            }
            Err(_) => Err("is not UTF-8"),
        };
        if let Err(message) = inserted {
            leftovers.problems.push(Problem::new(place, message));
        }
    }
    leftovers
}

fn insert(tree: &mut Table, section: &str, key: &str, value: Located) -> Result<(), &'static str> {
    let place = value.place.clone();
    let target = match (section, key.rsplit_once(ENVIRONMENT_SEPARATOR)) {
        ("channels", Some((namespace, key))) => subtable(tree, section, &place)
            .and_then(|channels| subtable(channels, namespace, &place))
            .map(|options| (options, key)),
        ("regions", Some((name, key))) => region(tree, name, &place).map(|region| (region, key)),
        ("regions", None) => return Err("names no region: expected SKYWAVE_REGIONS__<NAME>__<KEY>"),
        _ => subtable(tree, section, &place).map(|table| (table, key)),
    };
    // Where the file has no table in this spot, its reader reports that.
    if let Some((table, key)) = target {
        table.insert(key.to_owned(), value);
    }
    Ok(())
}

fn subtable<'a>(table: &'a mut Table, key: &str, place: &Place) -> Option<&'a mut Table> {
    let empty = || Located { value: Value::Table(Table::new()), place: place.clone() };
    match &mut table.entry(key.to_owned()).or_insert_with(empty).value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

/// The table of the region with this name, appended to the list when the file has none.
fn region<'a>(tree: &'a mut Table, name: &str, place: &Place) -> Option<&'a mut Table> {
    let empty = || Located { value: Value::List(Vec::new()), place: place.clone() };
    let Value::List(regions) = &mut tree.entry("regions".to_owned()).or_insert_with(empty).value else {
        return None;
    };
    let is_named = |region: &Located| match &region.value {
        Value::Table(table) => table.get("name").is_some_and(
            |known| matches!(&known.value, Value::Text(text) | Value::Environment(text) if text == name),
        ),
        _ => false,
    };
    let index = regions.iter().position(is_named).unwrap_or_else(|| {
        let known = Located { value: Value::Environment(name.to_owned()), place: place.clone() };
        let table = Table::from([("name".to_owned(), known)]);
        regions.push(Located { value: Value::Table(table), place: place.clone() });
        regions.len() - 1
    });
    match &mut regions[index].value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}
