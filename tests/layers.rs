//! Imports between the modules of a crate run one way: none names, over others or not, one that names it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The node's modules, the lowest first.
const OF_NODE: &[&str] = &[
    "cause",
    "limits",
    "config",
    "auth",
    "refusals",
    "certificate", //
    "metrics",
    "registry",
    "cluster",
    "scripts",
    "node", //
    "session",
    "transport",
    "demo",
    "api",
    "server",
    "cli",
];
/// Those of the Rust client.
const OF_CLIENT: &[&str] = &[
    "tls",
    "transport",
    "error",
    "options", //
    "staggered",
    "race",
    "readers",
    "orders", //
    "engine",
    "subscription",
    "client",
];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The first names of the paths that begin behind `text`, which is what follows on `crate::`.
fn names(text: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|one| one.is_alphanumeric() || *one == '_').collect();
    let Some(group) = text.strip_prefix('{') else { return BTreeSet::from([name(text)]) };
    let (mut depth, mut names, mut is_first) = (1, BTreeSet::new(), true);
    for (index, one) in group.char_indices() {
        match one {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => is_first = true,
            _ if is_first && one.is_alphanumeric() => {
                names.insert(name(&group[index..]));
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Which modules of the crate at `package` name one that stands above them in `layers`.
fn upward(package: &str, layers: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(package).join("src");
    let layer = |module: &str| layers.iter().position(|layer| *layer == module);
    let mut wrong = Vec::new();
    for path in sources(&root) {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let module = relative.iter().next().unwrap().to_str().unwrap();
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let here = layer(module).unwrap_or_else(|| panic!("{module} has no layer yet"));
        for text in fs::read_to_string(&path).unwrap().split("crate::").skip(1) {
            let above = names(text).into_iter().filter(|name| layer(name).is_some_and(|there| there > here));
            wrong.extend(above.map(|name| format!("{} names {name}", relative.display())));
        }
    }
    wrong
}

/// Crates whose modules name each other in circles: the methods of a client's session are spread over its modules.
const OF_ONE_PIECE: [&str; 1] = ["clients/session"];

/// The folders of the libraries.
fn libraries() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![".".to_owned(), "protocol".to_owned()];
    for group in ["crates", "clients"] {
        let entries = fs::read_dir(root.join(group)).unwrap();
        all.extend(entries.map(|entry| format!("{group}/{}", entry.unwrap().file_name().display())));
    }
    all.retain(|library| root.join(library).join("src/lib.rs").exists());
    all
}

/// What is compiled, but for tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let written = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    written
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|one: char| !one.is_alphanumeric() && one != '_').filter(|word| !word.is_empty())
}

/// Which other modules each module of a library names. What the library's root has of its own counts as the module
/// `lib`; what it only passes on counts as the module that has it.
fn imports(library: &str) -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(library).join("src");
    let mut texts = BTreeMap::<String, String>::new();
    for path in sources(&root) {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let module = relative.iter().next().unwrap().to_str().unwrap();
        if module != "main" && !relative.ends_with("tests") {
            texts.entry(module.to_owned()).or_default().push_str(&code(&path));
        }
    }
    let mut passed_on = BTreeMap::new();
    for item in texts["lib"].split("use ").skip(1).filter_map(|text| text.split(';').next()) {
        let mut words = words(item).filter(|word| *word != "crate");
        let module = words.next().unwrap_or_default();
        passed_on.extend(words.map(|name| (name.to_owned(), module.to_owned())));
    }
    let owner = |name: String| match passed_on.get(&name) {
        _ if texts.contains_key(&name) => name,
        Some(module) if texts.contains_key(module) => module.clone(),
        _ => "lib".to_owned(),
    };
    let named = |(module, text): (&String, &String)| {
        let mut named: BTreeSet<_> = match module.as_str() {
            "lib" => used_by_root(text).map(str::to_owned).filter(|name| texts.contains_key(name)).collect(),
            _ => text.split("crate::").skip(1).flat_map(names).map(owner).collect(),
        };
        named.remove(module);
        (module.clone(), named)
    };
    texts.iter().map(named).collect()
}

/// What stands before a `::` in a library's root, but for what it only passes on.
fn used_by_root(text: &str) -> impl Iterator<Item = &str> {
    let items = text.split(';').filter(|item| !item.trim_start().starts_with("pub use"));
    items.flat_map(|item| item.match_indices("::").filter_map(|(index, _)| words(&item[..index]).last()))
}

/// What is left when those are taken away, again and again, that name none of the others or are named by none.
fn circles(mut imports: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let before = imports.len();
        let named: BTreeSet<_> = imports.values().flatten().cloned().collect();
        imports.retain(|module, names| !names.is_empty() && named.contains(module));
        let left: BTreeSet<_> = imports.keys().cloned().collect();
        imports.values_mut().for_each(|names| names.retain(|name| left.contains(name)));
        if imports.len() == before {
            return imports;
        }
    }
}

#[test]
fn modules_name_each_other_in_no_circle() {
    for library in libraries().iter().filter(|library| !OF_ONE_PIECE.contains(&library.as_str())) {
        let circles = circles(imports(library));
        assert!(circles.is_empty(), "{library}: {circles:#?}");
    }
}

#[test]
fn a_circle_is_found_however_long_it_is() {
    let imports = |all: &[(&str, &str)]| {
        let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
        for (module, named) in all {
            imports.entry((*module).to_owned()).or_default().insert((*named).to_owned());
            imports.entry((*named).to_owned()).or_default();
        }
        imports
    };
    assert!(circles(imports(&[("top", "middle"), ("middle", "bottom"), ("top", "bottom")])).is_empty());
    let round = imports(&[("top", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "bottom")]);
    assert!(circles(round).keys().eq(["a", "b", "c"]));
}

#[test]
fn modules_name_only_those_below_them() {
    for (package, layers) in [(".", OF_NODE), ("clients/rust", OF_CLIENT)] {
        let wrong = upward(package, layers);
        assert!(wrong.is_empty(), "{package}: {wrong:#?}");
    }
}

#[test]
fn names_are_found_in_groups_of_groups() {
    let found =
        names("{\n    broker::{Broker, memory::{A, B}},\n    hub::Hub,\n};\nuse crate::session::Session;");
    assert_eq!(found, BTreeSet::from(["broker", "hub"].map(str::to_owned)));
    assert_eq!(names("node::Node;"), BTreeSet::from(["node".to_owned()]));
}

/// What only a transport knows of: its own name, and what it is made of.
const OF_TRANSPORTS: [&str; 5] = ["websocket", "webtransport", "tungstenite", "quinn", "hyper"];

#[test]
fn whoever_is_not_a_transport_knows_of_none() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for (module, text) in below_transports(root) {
        let text = text.to_lowercase();
        let named = OF_TRANSPORTS.iter().filter(|name| text.contains(*name));
        wrong.extend(named.map(|name| format!("{module} names {name}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The crates that a node is made of, beside its own.
fn crates_of_the_node(root: &Path) -> Vec<PathBuf> {
    let is_of_it = |library: &String| library.starts_with("crates/") && library != "crates/testing";
    let crates: Vec<_> = libraries().into_iter().filter(is_of_it).map(|library| root.join(library)).collect();
    assert!(crates.len() >= 4, "{crates:?} are not all");
    crates
}

/// Where no transport is known: each file, and what is in it.
fn below_transports(root: &Path) -> impl Iterator<Item = (String, String)> {
    let mut below = crates_of_the_node(root);
    below.extend(["src/session", "src/cluster", "src/registry"].map(|module| root.join(module)));
    let all = ["src", "crates"].into_iter().flat_map(|directory| sources(&root.join(directory)));
    all.filter_map(move |path| {
        let module = path.strip_prefix(root).unwrap().with_extension("");
        let is_below = below.iter().any(|place| path.with_extension("").starts_with(place));
        is_below.then(|| (module.display().to_string(), fs::read_to_string(&path).unwrap()))
    })
}

/// A `select!` draws which of its branches is polled first, of a generator that nobody hands in, unless it is `biased`.
#[test]
fn nothing_is_left_to_chance_that_is_not_handed_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let draws = |text: &str| {
        text.split("select! {").skip(1).any(|branches| {
            let first =
                branches.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("//"));
            first != Some("biased;")
        })
    };
    let drawing: Vec<_> =
        below_transports(root).filter(|(_, text)| draws(text)).map(|(module, _)| module).collect();
    assert!(drawing.is_empty(), "{drawing:#?}");
}

/// See clippy.toml.
#[test]
fn nothing_is_asked_of_the_system_that_is_not_handed_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for library in crates_of_the_node(root).into_iter().chain([root.to_owned()]) {
        let text = fs::read_to_string(library.join("src/lib.rs")).unwrap();
        assert!(text.contains("deny(clippy::disallowed_methods)"), "{}", library.display());
    }
}
