//! Reads one table of settings, key by key, and reports every wrong value and every key that nobody asked for.

use super::{
    duration::{format_duration, parse_duration},
    problem::{Place, Problem, Report},
    source::{Located, Table, Value, read_bounded},
};
use crate::redis::Secret;
use std::{fmt::Display, net::IpAddr, ops::RangeInclusive, path::Path, time::Duration};

/// A secret may be this long, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// A known key is suggested when it is at most this far from the unknown one, as a share of its length.
const SUGGESTION_DISTANCE: f64 = 0.45;

/// A table whose keys are taken out one after the other. [`Section::finish`] reports those that are left.
pub(super) struct Section<'a> {
    /// Empty for the whole configuration.
    name: String,
    table: Table,
    known: Vec<String>,
    report: &'a mut Report,
}

impl<'a> Section<'a> {
    pub(crate) fn new(name: impl Into<String>, table: Table, report: &'a mut Report) -> Self {
        Self { name: name.into(), table, known: Vec::new(), report }
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn take(&mut self, key: &str) -> Option<Located> {
        self.known.push(key.to_owned());
        let located = self.table.remove(key)?;
        self.report.remember(self.path(key), located.place.clone());
        Some(located)
    }

    fn refuse(&mut self, place: &Place, key: &str, message: impl Display) {
        let message = format!("{}: {message}", self.path(key));
        self.report.problems.push(Problem::new(place.clone(), message));
    }

    fn refuse_kind(&mut self, key: &str, located: &Located, expected: &str) {
        let message = format!("expected {expected}, found {}", located.value.kind());
        self.refuse(&located.place, key, message);
    }

    /// A table inside this one, which may be absent.
    pub(crate) fn section(&mut self, key: &str) -> Section<'_> {
        let table = match self.take(key) {
            Some(Located { value: Value::Table(table), .. }) => table,
            Some(other) => {
                self.refuse_kind(key, &other, "a table");
                Table::new()
            }
            None => Table::new(),
        };
        let name = self.path(key);
        Section::new(name, table, self.report)
    }

    /// The keys that were not taken yet, for tables whose keys are names that the operator chooses.
    pub(crate) fn remaining_keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// Reads each table of a list of tables.
    pub(crate) fn tables<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(Located { value: Value::List(items), .. }) => items,
            Some(other) => {
                self.refuse_kind(key, &other, "a list of tables");
                return Vec::new();
            }
        };
        let mut values = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let Located { value: Value::Table(table), place } = item else {
                self.refuse_kind(key, &item, "a table");
                continue;
            };
            let name = format!("{}[{index}]", self.path(key));
            self.report.remember(name.clone(), place);
            let mut section = Section::new(name, table, self.report);
            values.extend(read(&mut section));
            section.finish();
        }
        values
    }

    /// A text, of which `parse` makes a value or says what it expected instead.
    pub(crate) fn parsed<T, E: Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let located = self.take(key)?;
        match &located.value {
            Value::Text(text) | Value::Environment(text) => {
                parse(text).map_err(|message| self.refuse(&located.place, key, message)).ok()
            }
            _ => {
                self.refuse_kind(key, &located, "a string");
                None
            }
        }
    }

    /// A text that is not empty.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        self.parsed(key, |text| if text.is_empty() { Err("must not be empty") } else { Ok(text.to_owned()) })
    }

    /// A whole number within `bounds`.
    pub(crate) fn integer<T: TryFrom<u64>>(
        &mut self,
        key: &str,
        default: T,
        bounds: RangeInclusive<u64>,
    ) -> T {
        let Some(located) = self.take(key) else { return default };
        let number = match &located.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Environment(text) => match text.trim().parse::<i64>() {
                Ok(number) => u64::try_from(number).ok(),
                Err(_) => {
                    self.refuse_kind(key, &located, "an integer");
                    return default;
                }
            },
            _ => {
                self.refuse_kind(key, &located, "an integer");
                return default;
            }
        };
        let value =
            number.filter(|number| bounds.contains(number)).and_then(|number| T::try_from(number).ok());
        value.unwrap_or_else(|| {
            let message = format!("must be within {} … {}", bounds.start(), bounds.end());
            self.refuse(&located.place, key, message);
            default
        })
    }

    /// A duration within `bounds`.
    pub(crate) fn duration(
        &mut self,
        key: &str,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let parse = |text: &str| match parse_duration(text) {
            Ok(duration) if bounds.contains(&duration) => Ok(duration),
            Ok(_) => Err(format!(
                "must be within {} … {}",
                format_duration(*bounds.start()),
                format_duration(*bounds.end())
            )),
            Err(error) => Err(error.to_string()),
        };
        self.parsed(key, parse).unwrap_or(default)
    }

    /// `true` or `false`; absent when it was not set.
    pub(crate) fn boolean(&mut self, key: &str) -> Option<bool> {
        let located = self.take(key)?;
        let value = match &located.value {
            Value::Boolean(value) => Some(*value),
            Value::Environment(text) => text.trim().parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.refuse_kind(key, &located, "true or false");
        }
        value
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        let parse = |text: &str| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
                format!("expected {}", names.join(" or "))
            })
        };
        self.parsed(key, parse).unwrap_or(default)
    }

    /// A list of at least one text, or one text alone; absent when it was not set. From the environment: a TOML list,
    /// or texts separated by commas.
    pub(crate) fn list<T, E: Display>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let located = self.take(key)?;
        let items = self.items(key, &located)?;
        if items.is_empty() {
            // What is checked against such a list is not checked where there is none: that has to be meant.
            self.refuse(&located.place, key, "must name at least one");
        }
        Some(self.parse_items(key, items, parse))
    }

    /// As [`Self::list`], which may be empty.
    pub(crate) fn list_or_none<T, E: Display>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let located = self.take(key)?;
        let items = self.items(key, &located)?;
        Some(self.parse_items(key, items, parse))
    }

    /// The texts of a list with their places.
    fn items(&mut self, key: &str, located: &Located) -> Option<Vec<(String, Place)>> {
        let items = match &located.value {
            Value::Text(text) => vec![(text.clone(), located.place.clone())],
            Value::Environment(text) => match environment_list(text) {
                Ok(items) => items.into_iter().map(|item| (item, located.place.clone())).collect(),
                Err(message) => {
                    self.refuse(&located.place, key, message);
                    return None;
                }
            },
            Value::List(items) => items
                .iter()
                .filter_map(|item| match &item.value {
                    Value::Text(text) => Some((text.clone(), item.place.clone())),
                    _ => {
                        self.refuse_kind(key, item, "a string");
                        None
                    }
                })
                .collect(),
            _ => {
                self.refuse_kind(key, located, "a list of strings");
                return None;
            }
        };
        Some(items)
    }

    fn parse_items<T, E: Display>(
        &mut self,
        key: &str,
        items: Vec<(String, Place)>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(items.len());
        for (text, place) in items {
            match parse(&text) {
                Ok(value) => values.push(value),
                Err(message) => self.refuse(&place, key, format!("{text:?}: {message}")),
            }
        }
        values
    }

    /// A secret of at least `min_bytes`, given as `key` or in the file that `key_file` names. It does not end with a
    /// line end.
    pub(crate) fn secret(&mut self, key: &str, min_bytes: usize) -> Option<Secret> {
        let file_key = format!("{key}_file");
        let given = self.parsed(key, |text| Ok::<_, String>(without_line_end(text)));
        let from_file = self.parsed(&file_key, |file| {
            read_bounded(Path::new(file), MAX_SECRET_BYTES).map(|text| without_line_end(&text))
        });
        if self.is_set(key) && self.is_set(&file_key) {
            self.add(&file_key, format!("give either {key} or {file_key}, not both"));
        }
        let used = if given.is_some() { key } else { &file_key };
        let secret = given.or(from_file)?;
        if secret.len() < min_bytes {
            self.add(used, format!("must be at least {min_bytes} bytes long"));
            return None;
        }
        Some(Secret::new(secret))
    }

    /// Whether the key was given, be it right or wrong.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.report.is_set(&self.path(key))
    }

    /// Reports that a key which was given does not fit.
    pub(crate) fn add(&mut self, key: &str, message: impl Display) {
        let path = self.path(key);
        self.report.add(&path, format!("{path}: {message}"));
    }

    /// Reports every key that was not asked for.
    pub(crate) fn finish(self) {
        // A variable may be named like a section and have nothing to do with it.
        for key in self.known.iter().filter(|_| !self.name.is_empty()) {
            let key = self.path(key);
            self.report.look_for_unseparated(&key);
        }
        for (key, located) in &self.table {
            let mut message = format!("unknown key {:?}", self.path(key));
            match nearest(key, &self.known) {
                Some(known) => message.push_str(&format!("; did you mean {known:?}?")),
                None => message.push_str(&format!("; known are {}", self.known.join(", "))),
            }
            self.report.problems.push(Problem::new(located.place.clone(), message));
        }
    }
}

/// Editors end a file with a line end, and many secrets get one that nobody sees, wherever they are kept.
fn without_line_end(text: &str) -> String {
    text.trim_end_matches(['\r', '\n']).to_owned()
}

fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    let distance = |candidate: &String| strsim::damerau_levenshtein(key, candidate);
    let candidate = known.iter().min_by_key(|candidate| distance(candidate))?;
    let longest = key.chars().count().max(candidate.chars().count());
    (distance(candidate) as f64 <= longest as f64 * SUGGESTION_DISTANCE).then_some(candidate)
}

fn environment_list(text: &str) -> Result<Vec<String>, String> {
    if !text.trim_start().starts_with('[') {
        return Ok(text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect());
    }
    let list: toml::Value = toml::de::ValueDeserializer::parse(text)
        .and_then(serde::Deserialize::deserialize)
        .map_err(|error| error.message().to_owned())?;
    let items = list.as_array().ok_or("expected a list of strings")?;
    let text =
        |item: &toml::Value| item.as_str().map(str::to_owned).ok_or("expected a list of strings".to_owned());
    items.iter().map(text).collect()
}

/// Whether an address reaches this machine only.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
