//! The faults of docs/regions.md: what it says of each is held by tests that exist.

use std::{collections::BTreeSet, path::Path};

/// The rows of the document's table with this head, cell by cell.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let text = include_str!("../../docs/regions.md");
    let (_, rows) = text.split_once(head).unwrap();
    let rows = rows.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The names of all test functions of the workspace's node.
fn tests(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let functions = text.lines().filter_map(|line| line.trim_start().strip_prefix("async fn "));
            names.extend(functions.filter_map(|line| line.split('(').next()).map(str::to_owned));
        }
    }
}

#[test]
fn each_fault_of_the_documentation_has_tests() {
    let faults = table("| fault | what subscribers notice | what is lost | how long it takes |");
    let held = table("| fault | tests |");
    let names = |rows: &[Vec<&'static str>]| rows.iter().map(|row| row[0]).collect::<Vec<_>>();
    assert!(faults.len() > 10);
    assert_eq!(names(&faults), names(&held));
    let mut known = BTreeSet::new();
    tests(Path::new("tests"), &mut known);
    for row in held {
        for name in row[1].split(", ") {
            assert!(known.contains(name.trim_matches('`')), "{}: {name} is no test", row[0]);
        }
    }
}
