//! `[node]`: who this node is.

use super::{
    checks::{base_path, identifier, nodes_url},
    section::Section,
};

/// `[node]`: who this node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// `id`: names this process among the nodes of all regions. Each has its own; 1 … 64 of `A-Z a-z 0-9 . _ -`.
    /// Default: random.
    pub id: String,
    /// `region`: the region of this node; 1 … 32 of `a-z 0-9 _ -`. Default: `local`.
    pub region: String,
    /// `url`: where clients reach this node, `https://HOST[:PORT][/PATH]`. Absent: no client is ever told to come here.
    pub url: Option<String>,
}

impl NodeConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            id: section.parsed("id", |text| identifier(text, 64, true)).unwrap_or_else(random_id),
            region: section
                .parsed("region", |text| identifier(text, 32, false))
                .unwrap_or_else(|| "local".to_owned()),
            url: section.parsed("url", nodes_url),
        }
    }

    /// A request's path, as far as it is below the path of [`Self::url`]: a proxy may pass the whole path on, or take
    /// that part off.
    pub fn path_below<'p>(&self, path: &'p str) -> &'p str {
        let base = self.url.as_deref().map_or("", base_path);
        path.strip_prefix(base).filter(|below| below.starts_with('/')).unwrap_or(path)
    }
}

#[allow(clippy::disallowed_methods, reason = "whoever runs a node can name it")]
fn random_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}
