//! A clock of its own for a process (libfaketime, which `make test` installs), moved by a file.

use std::{fs, path::Path};

/// The variables that give a process its own clock; the file `clock` in the directory moves it.
pub fn in_directory(directory: &Path) -> Vec<(&'static str, String)> {
    let directories = fs::read_dir("/usr/lib").unwrap();
    let mut libraries = directories.map(|entry| entry.unwrap().path().join("faketime/libfaketime.so.1"));
    let library = libraries.find(|path| path.exists()).expect("libfaketime is needed");
    let clock = directory.join("clock");
    fs::write(&clock, "+0").unwrap();
    vec![
        // With glibc's allocator: jemalloc asks for the time before libfaketime is ready.
        ("LD_PRELOAD", format!("{}:libc.so.6", library.display())),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// Sets the clock of a directory so many seconds ahead of ours.
pub fn set(directory: &Path, ahead: i64) {
    let new = directory.join("clock.new");
    fs::write(&new, format!("{ahead:+}")).unwrap();
    // In one step, so that it is never read empty.
    fs::rename(new, directory.join("clock")).unwrap();
}
