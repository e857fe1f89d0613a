//! What was counted for the last release, and with which tools.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The file `release.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The compiler, the processor and the C library: others make other instructions of the same code.
    pub tools: String,
    /// Per round, by the cases' names.
    pub instructions: BTreeMap<String, u64>,
}

impl Release {
    pub fn new(instructions: BTreeMap<String, u64>) -> anyhow::Result<Self> {
        Ok(Self { tools: tools()?, instructions })
    }

    pub fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string(path()).with_context(|| format!("cannot read {}", path().display()))?;
        Ok(toml::from_str(&text)?)
    }

    pub fn write(&self) -> anyhow::Result<()> {
        let text = format!("# Written by `make instructions KEEP=1`.\n{}", toml::to_string(self)?);
        Ok(fs::write(path(), text)?)
    }

    /// Whether these tools are those of the release.
    pub fn is_comparable(&self) -> anyhow::Result<bool> {
        Ok(self.tools == tools()?)
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("release.toml")
}

/// Such as `rustc 1.95.0 (…), x86_64 with AVX2, glibc 2.36`.
fn tools() -> anyhow::Result<String> {
    let [compiler, libc] = [told_by("rustc", "--version")?, told_by("getconf", "GNU_LIBC_VERSION")?];
    Ok(format!("{compiler}, {}, {libc}", processor()))
}

fn told_by(program: &str, question: &str) -> anyhow::Result<String> {
    let output =
        Command::new(program).arg(question).output().with_context(|| format!("`{program}` cannot be run"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Searching and copying take other ways on processors with wider registers.
fn processor() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return "x86_64 with AVX2";
    }
    env::consts::ARCH
}
