//! Writes a seed corpus for the fuzz targets from the protocol's golden vectors: `cargo run --example seed` in `fuzz/`.

use serde_json::Value;
use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (vectors, corpus) = (root.join("../protocol/vectors"), root.join("corpus"));
    let mut seeds = Vec::new();
    for directory in ["client", "server"] {
        for entry in fs::read_dir(vectors.join(directory))? {
            collect(&read(&entry?.path())?, &mut seeds)?;
        }
    }
    for file in ["invalid.json", "framing.json"] {
        collect(&read(&vectors.join(file))?, &mut seeds)?;
    }
    // The target `framing` takes how to cut a stream before the stream itself.
    for (target, before) in [("codec", &[][..]), ("framing", &[2, 1, 3])] {
        fs::create_dir_all(corpus.join(target))?;
        for (number, seed) in seeds.iter().enumerate() {
            let path = corpus.join(target).join(format!("vector-{number:04}"));
            fs::write(path, [before, seed.as_slice()].concat())?;
        }
    }
    println!("{} seeds for each target", seeds.len());
    Ok(())
}

fn read(path: &Path) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

/// Takes every text and every hexadecimal byte string of a vector file.
fn collect(vectors: &Value, seeds: &mut Vec<Vec<u8>>) -> Result<(), Box<dyn Error>> {
    match vectors {
        Value::Array(items) => items.iter().try_for_each(|item| collect(item, seeds)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            match (key.as_str(), value) {
                ("json" | "text", Value::String(text)) => seeds.push(text.clone().into_bytes()),
                ("msgpack" | "hex", Value::String(text)) => seeds.push(from_hex(text)?),
                _ => collect(value, seeds)?,
            }
            Ok(())
        }),
        _ => Ok(()),
    }
}

fn from_hex(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
