//! The URL of a Redis: one server, the servers of a service that sentinels watch, or a cluster.

use crate::secret::Secret;
use url::Url;

const EXPECTED: &str = "expected redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], \
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT] …]/SERVICE[/DATABASE] or \
    redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT] …]; rediss… is over TLS; in a PASSWORD, what URLs have for \
    themselves is escaped (%23 for #, %2F for /, %3F for ?, %40 for @, %25 for %)";
/// The most hosts that one URL names.
const MAX_HOSTS: usize = 16;
const SENTINEL_PORT: u16 = 26_379;

/// Where a Redis is. Every text is a URL `redis[s]://[LOGIN@]HOST[:PORT][/DATABASE]` of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisUrl {
    Server(Secret),
    Sentinel {
        /// Whom to ask for the master.
        sentinels: Vec<Secret>,
        service: String,
        /// As the master is reached, but for its host and port.
        master: Secret,
    },
    /// Some of the cluster's servers.
    Cluster(Vec<Secret>),
}

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What was expected. The error does not repeat the URL, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        let (scheme, kind) = match scheme.split_once('+') {
            None => (scheme, None),
            Some((scheme, kind)) => (scheme, Some(kind)),
        };
        if !matches!(scheme, "redis" | "rediss") {
            return Err(EXPECTED);
        }
        if kind.is_none() {
            return server(text).map(Self::Server);
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let parts = Parts { scheme, login, hosts: hosts.split(',').collect() };
        if parts.hosts.len() > MAX_HOSTS {
            return Err("expected at most 16 hosts");
        }
        match kind {
            Some("sentinel") => parts.sentinel(tail),
            Some("cluster") if matches!(tail, "" | "/") => parts.servers("", None).map(Self::Cluster),
            Some("cluster") => {
                Err("a cluster has one database, and no parameters: expected nothing behind the hosts")
            }
            _ => Err(EXPECTED),
        }
    }

    /// The number of the database to which a URL leads.
    pub(crate) fn database(text: &str) -> u32 {
        let url = match Self::parse(text) {
            Ok(Self::Server(url) | Self::Sentinel { master: url, .. }) => url,
            Ok(Self::Cluster(_)) | Err(_) => return 0,
        };
        let path = Url::parse(url.expose()).map(|url| url.path().trim_matches('/').to_owned());
        path.ok().and_then(|path| path.parse().ok()).unwrap_or(0)
    }

    /// Whether a URL leads there over TLS.
    pub fn is_over_tls(text: &str) -> bool {
        text.starts_with("rediss")
    }

    /// Where a URL leads, to be shown: without login and parameters, which may hold passwords.
    pub fn place(text: &str) -> String {
        let (scheme, rest) = text.split_once("://").unwrap_or(("redis", text));
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        format!("{scheme}://{rest}")
    }
}

struct Parts<'a> {
    scheme: &'a str,
    login: &'a str,
    hosts: Vec<&'a str>,
}

impl Parts<'_> {
    /// Each host as a server's URL with a login of its own.
    fn servers(&self, login: &str, default_port: Option<u16>) -> Result<Vec<Secret>, &'static str> {
        let login = if login.is_empty() && default_port.is_none() { self.login } else { login };
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        let one = |host: &&str| {
            let bare = Url::parse(&format!("redis://{host}")).map_err(|_| EXPECTED)?;
            if !is_only_a_host(&bare) {
                return Err(EXPECTED);
            }
            let port = match (bare.port(), default_port) {
                (None, Some(port)) => format!(":{port}"),
                _ => String::new(),
            };
            server(&format!("{}://{login}{host}{port}", self.scheme))
        };
        self.hosts.iter().map(one).collect()
    }

    fn sentinel(&self, tail: &str) -> Result<RedisUrl, &'static str> {
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let mut segments = path.trim_start_matches('/').split('/');
        let service = segments.next().filter(|service| is_service(service)).ok_or(EXPECTED)?.to_owned();
        let database = segments.next().unwrap_or("0");
        if database.parse::<u32>().is_err() || segments.next().is_some() {
            return Err(EXPECTED);
        }
        let (mut user, mut password) = ("", "");
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sentinel_user", value)) => user = value,
                Some(("sentinel_password", value)) => password = value,
                _ => return Err("expected no parameters but sentinel_user and sentinel_password"),
            }
        }
        let login = if password.is_empty() { String::new() } else { format!("{user}:{password}") };
        let sentinels = self.servers(&login, Some(SENTINEL_PORT))?;
        let login = if self.login.is_empty() { String::new() } else { format!("{}@", self.login) };
        let master = server(&format!("{}://{login}{}/{database}", self.scheme, self.hosts[0]))?;
        Ok(RedisUrl::Sentinel { sentinels, service, master })
    }
}

/// The URL of one server, if it is one. Parameters would be Redis clients' own, such as another version of its
/// protocol.
fn server(text: &str) -> Result<Secret, &'static str> {
    let url = Url::parse(text).map_err(|_| EXPECTED)?;
    let database = url.path().trim_matches('/');
    let is_server = url.has_host()
        && url.query().is_none()
        && url.fragment().is_none()
        && (database.is_empty() || database.parse::<u32>().is_ok());
    if is_server { Ok(Secret::new(text)) } else { Err(EXPECTED) }
}

fn is_only_a_host(url: &Url) -> bool {
    url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
}

/// What Sentinel allows in a service's name.
fn is_service(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(*text)).collect()
    }

    #[test]
    fn one_server_is_taken_as_it_is_written() {
        for url in ["redis://localhost", "rediss://u:p@h:1/2", "redis://[::1]:6380"] {
            assert_eq!(RedisUrl::parse(url), Ok(RedisUrl::Server(Secret::new(url))));
        }
    }

    #[test]
    fn a_url_leads_to_a_database() {
        for (url, number) in [
            ("redis://localhost", 0),
            ("redis://localhost/", 0),
            ("rediss://u:p@h:1/2", 2),
            ("redis+sentinel://a,b/main/7?sentinel_password=q", 7),
            ("redis+sentinel://a/main", 0),
            ("redis+cluster://a,b", 0),
        ] {
            assert_eq!(RedisUrl::database(url), number, "{url}");
        }
    }

    #[test]
    fn sentinels_have_a_login_and_a_port_of_their_own() {
        let url = "rediss+sentinel://u:p%40@a:1,[::1]/main.x/3?sentinel_user=s&sentinel_password=q%2F";
        let expected = RedisUrl::Sentinel {
            sentinels: secrets(&["rediss://s:q%2F@a:1", "rediss://s:q%2F@[::1]:26379"]),
            service: "main.x".to_owned(),
            master: Secret::new("rediss://u:p%40@a:1/3"),
        };
        assert_eq!(RedisUrl::parse(url), Ok(expected));
        let expected = RedisUrl::Sentinel {
            sentinels: secrets(&["redis://a:26379"]),
            service: "main".to_owned(),
            master: Secret::new("redis://:p@a/0"),
        };
        assert_eq!(RedisUrl::parse("redis+sentinel://:p@a/main"), Ok(expected));
    }

    #[test]
    fn a_clusters_servers_share_a_login() {
        let expected = RedisUrl::Cluster(secrets(&["redis://u:p@a:1", "redis://u:p@b"]));
        assert_eq!(RedisUrl::parse("redis+cluster://u:p@a:1,b"), Ok(expected));
    }

    #[test]
    fn a_place_is_shown_without_what_is_secret() {
        for (url, place) in [
            ("redis://localhost", "redis://localhost"),
            ("rediss://u:p%40@h:1/2", "rediss://h:1/2"),
            ("redis://:p@[::1]:6380", "redis://[::1]:6380"),
            ("redis+sentinel://u:p@a,b:1/main/3?sentinel_password=q", "redis+sentinel://a,b:1/main/3"),
        ] {
            assert_eq!(RedisUrl::place(url), place);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for url in [
            "localhost",
            "http://localhost",
            "redis+other://a",
            "redis://a?protocol=resp3",
            "redis://a/x",
            "redis://:p#w@a",
            "redis://:p/w@a",
            "redis://:p?w@a",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://a/main/x",
            "redis+sentinel://a/main/0/1",
            "redis+sentinel://a/main?db=1",
            "redis+sentinel://a,/main",
            "redis+sentinel://a:x/main",
            "redis+cluster://a/1",
            "redis+cluster://a?x=1",
            "redis+cluster://a,b@c:1:2",
            "redis+cluster://",
        ] {
            assert!(RedisUrl::parse(url).is_err(), "{url}");
        }
    }
}
