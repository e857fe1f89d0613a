//! What is wrong with a configuration, and where.

use super::source::{ENVIRONMENT_PREFIX, ENVIRONMENT_SEPARATOR, Leftovers};
use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

/// Where a setting was made. Sorted: the file by line, then the environment, then what belongs to no place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file; the line counts from 1, and is absent when the file could not be read.
    File {
        /// As it was given.
        path: Arc<str>,
        line: Option<usize>,
    },
    /// In an environment variable.
    Environment { name: Arc<str> },
    /// Nowhere: something is missing, and there is no file that it could be added to.
    Nowhere,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(formatter, "{path}:{line}"),
            Self::File { path, line: None } => formatter.write_str(path),
            Self::Environment { name } => formatter.write_str(name),
            Self::Nowhere => formatter.write_str("configuration"),
        }
    }
}

/// One thing that is wrong, with its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub place: Place,
    /// Without any secret.
    pub message: String,
}

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

/// Collects the problems of one configuration, and remembers where each key was set.
#[derive(Debug)]
pub(super) struct Report {
    file: Place,
    places: BTreeMap<String, Place>,
    /// Variables of the environment that name no section apart from a key.
    unseparated: BTreeMap<String, Arc<str>>,
    pub problems: Vec<Problem>,
}

impl Report {
    pub(crate) fn new(file: Option<&Path>, leftovers: Leftovers) -> Self {
        let file = file.map_or(Place::Nowhere, |path| Place::File {
            path: path.display().to_string().into(),
            line: None,
        });
        let Leftovers { problems, unseparated } = leftovers;
        Self { file, places: BTreeMap::new(), unseparated, problems }
    }

    pub(crate) fn remember(&mut self, key: String, place: Place) {
        self.places.insert(key, place);
    }

    /// Adds a problem at the place where `key` (`section.key`) was set; failing that, at its section or the file.
    pub(crate) fn add(&mut self, key: &str, message: impl Into<String>) {
        let section = key.rsplit_once('.').map_or(key, |(section, _)| section);
        let place = self.places.get(key).or_else(|| self.places.get(section)).unwrap_or(&self.file);
        self.problems.push(Problem::new(place.clone(), message));
    }

    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Adds a problem where a variable is meant for this key (`section.key`) and has one underscore for two. Where the
    /// key is set by its right name, such a variable belongs to something else.
    pub(crate) fn look_for_unseparated(&mut self, key: &str) {
        let Some(name) = self.unseparated.remove(&key.replace('.', "_")) else { return };
        if !matches!(self.places.get(key), Some(Place::Environment { .. })) {
            let right = key.replace('.', ENVIRONMENT_SEPARATOR).to_uppercase();
            let message = format!("has no effect: {key} is set by {ENVIRONMENT_PREFIX}{right}");
            self.problems.push(Problem::new(Place::Environment { name }, message));
        }
    }
}
