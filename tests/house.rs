//! How the house is kept: each file says what it owns, fits a few screens, and has a name that says something.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

const MAX_LINES: usize = 500;
/// Names of whatever has found no place.
const SAYING_NOTHING: [&str; 7] = ["util", "utils", "common", "commons", "helper", "helpers", "manager"];
/// What was made by programs, or is others'.
const NOT_WRITTEN_HERE: [&str; 4] = ["target", "node_modules", "build", "dist"];

/// A file that somebody wrote.
struct Source {
    /// From the repository's root on.
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let sources = written(&["rs", "ts"]);
    assert!(sources.len() > 300, "{} files are not all", sources.len());
    sources
}

/// All that is written in languages whose files end so.
fn written(endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Source { path: path.strip_prefix(root).unwrap().display().to_string(), text }
    };
    files(root, endings).into_iter().map(read).collect()
}

fn files(directory: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let written = entries.filter(|entry| {
        let name = entry.file_name();
        !name.to_string_lossy().starts_with('.') && !NOT_WRITTEN_HERE.iter().any(|other| name == *other)
    });
    let within = written.flat_map(|entry| match entry.file_type().unwrap().is_dir() {
        true => files(&entry.path(), endings),
        false => vec![entry.path()],
    });
    let is_meant =
        |path: &PathBuf| endings.iter().any(|ending| path.extension().is_some_and(|it| it == *ending));
    within.filter(is_meant).collect()
}

#[test]
fn each_file_begins_with_what_it_owns() {
    let begins = |source: &Source| match source.path.ends_with(".rs") {
        true => source.text.starts_with("//! "),
        false => source.text.starts_with("// ") || source.text.starts_with("/**"),
    };
    let silent: Vec<_> = sources().into_iter().filter(|one| !begins(one)).map(|one| one.path).collect();
    assert!(silent.is_empty(), "begin with no sentence: {silent:#?}");
}

#[test]
fn no_file_is_longer_than_it_may_be() {
    let is_long = |source: &Source| source.text.lines().count() > MAX_LINES;
    let long: Vec<_> = sources().into_iter().filter(is_long).map(|one| one.path).collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:#?}");
}

#[test]
fn each_library_has_the_compiler_say_what_is_public_for_nobody() {
    let is_silent = |source: &Source| {
        source.path.ends_with("src/lib.rs") && !source.text.contains("\n#![warn(unreachable_pub)]\n")
    };
    let silent: Vec<_> = sources().into_iter().filter(is_silent).map(|one| one.path).collect();
    assert!(silent.is_empty(), "are not warned: {silent:#?}");
}

#[test]
fn each_file_has_a_name_that_says_something() {
    let says_nothing = |source: &Source| {
        let mut words = source.path.split(['/', '_', '-', '.']);
        words.any(|word| SAYING_NOTHING.contains(&word))
    };
    let named: Vec<_> = sources().into_iter().filter(says_nothing).map(|one| one.path).collect();
    assert!(named.is_empty(), "say nothing by their names: {named:#?}");
}

#[test]
fn links_of_documents_lead_to_files_that_are_there() {
    let documents = written(&["md"]);
    let mut broken = Vec::new();
    let mut count = 0;
    for Source { path, text } in &documents {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).parent().unwrap().to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains(':')) {
            count += 1;
            if !folder.join(link).exists() {
                broken.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(count > 200, "{count} links are not all");
    assert!(broken.is_empty(), "lead nowhere: {broken:#?}");
}
