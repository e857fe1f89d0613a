//! Whose a Redis is: the name of its region stands in it, beside the number of partitions.
//!
//! Nodes of the region put both in, and again where they are gone; nodes of other regions only read them. A Redis of
//! another region, of another deployment, or of nobody is of no use. Nothing is called in it, and nothing that it says
//! is heard, until it says the expected name.

use crate::{
    address::Address,
    errors::{ConnectError, Stranger},
    keys::Keys,
    lives::Lives,
    reply::{self, Malformed},
    script::{Script, Scripts},
    url::RedisUrl,
};
use parking_lot::Mutex;
use redis::Value;
use skywave_protocol::position::Origin;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// So much is shown of what stands there.
const MAX_SHOWN: usize = 64;
/// What is wrong is told again this often.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Why it cannot be reached is told no more often: servers of one Redis may have reasons of their own.
const TOLD_ANEW: Duration = Duration::from_secs(2);

/// What stands in a Redis.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inscription {
    region: Option<String>,
    partitions: Option<String>,
}

impl Inscription {
    /// Reads the answers to [`Ownership::questions`].
    ///
    /// # Errors
    /// When they are none.
    pub fn read(partitions: Value, region: Value) -> Result<Self, Malformed> {
        let text = |value| match value {
            Value::Nil => Ok(None),
            value => reply::text(value).map(Some),
        };
        Ok(Self { region: text(region)?, partitions: text(partitions)? })
    }
}

/// What is known of a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It has not been looked yet.
    Unknown,
    Recognized {
        /// It says whose it is. Where only nodes of the version before this one were, it does not.
        named: bool,
    },
    Refused(Stranger),
}

/// Of which region a Redis is to be, and whether it is.
#[derive(Debug)]
pub struct Ownership {
    pub keys: Keys,
    pub lives: Arc<Lives>,
    scripts: Scripts,
    region: Origin,
    /// This node is of that region.
    is_own: bool,
    /// Where it is, without the login.
    place: String,
    /// With the time since when.
    standing: watch::Sender<(Standing, Instant)>,
    /// What was told last, and when.
    told: Mutex<Option<(Standing, Instant)>>,
    /// Why it could not be reached, as told last, and when.
    told_unreachable: Mutex<Option<(String, Instant)>>,
}

impl Ownership {
    /// Of the region of this node.
    pub fn of_own(address: &Address) -> Arc<Self> {
        Self::new(address, true)
    }

    /// Of another region.
    pub(crate) fn of_other(address: &Address) -> Arc<Self> {
        Self::new(address, false)
    }

    fn new(address: &Address, is_own: bool) -> Arc<Self> {
        Arc::new(Self {
            keys: Keys::new(address.prefix.clone(), address.partitions)
                .in_database(RedisUrl::database(address.url.expose())),
            lives: Arc::default(),
            scripts: address.scripts,
            region: address.region.clone(),
            is_own,
            place: RedisUrl::place(address.url.expose()),
            standing: watch::Sender::new((Standing::Unknown, Instant::now())),
            told: Mutex::default(),
            told_unreachable: Mutex::default(),
        })
    }

    /// What runs inside it.
    pub fn scripts(&self) -> impl Iterator<Item = &'static Script> {
        self.scripts.iter().copied().flatten().copied()
    }

    /// Whether the Redis is the one that it is taken for, as far as is known.
    pub(crate) fn is_recognized(&self) -> bool {
        matches!(self.standing.borrow().0, Standing::Recognized { .. })
    }

    /// Why it is not; `None` as well while that is not known.
    pub fn stranger(&self) -> Option<Stranger> {
        match &self.standing.borrow().0 {
            Standing::Refused(stranger) => Some(stranger.clone()),
            Standing::Unknown | Standing::Recognized { .. } => None,
        }
    }

    /// Whether the Redis may be used.
    ///
    /// # Errors
    /// When it is another one, or that is not known.
    pub fn check(&self) -> Result<(), ConnectError> {
        match &self.standing.borrow().0 {
            Standing::Recognized { .. } => Ok(()),
            Standing::Unknown => Err(ConnectError::Unrecognized),
            Standing::Refused(stranger) => Err(stranger.clone().into()),
        }
    }

    /// For how long it has been known not to be.
    pub fn refused_for(&self) -> Duration {
        match &*self.standing.borrow() {
            (Standing::Refused(_), since) => since.elapsed(),
            (Standing::Unknown | Standing::Recognized { .. }, _) => Duration::ZERO,
        }
    }

    /// Waits until it turns out not to be.
    pub async fn refused(&self) -> Stranger {
        let mut standing = self.standing.subscribe();
        loop {
            if let (Standing::Refused(stranger), _) = &*standing.borrow_and_update() {
                return stranger.clone();
            }
            if standing.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The keys that tell whose it is. The number is read first, and the name was written first. So there is a name to
    /// each number, unless a node of the version before wrote it.
    pub fn questions(&self) -> [String; 2] {
        [self.keys.partition_count(), self.keys.region()]
    }

    /// Whether this node is to put in what is missing.
    pub(crate) fn is_to_be_entered(&self, found: &Inscription) -> bool {
        self.is_own && (found.region.is_none() || found.partitions.is_none())
    }

    /// What is to stand in them, in the order in which it is put in where nothing stands.
    pub fn entries(&self) -> [(String, String); 2] {
        let (name, number) = (self.region.to_string(), self.keys.partitions().to_string());
        [(self.keys.region(), name), (self.keys.partition_count(), number)]
    }

    /// Takes in what stands there.
    ///
    /// # Errors
    /// When it is not the Redis that it is taken for.
    pub(crate) fn recognize(&self, found: &Inscription) -> Result<(), Stranger> {
        let now = self.judge(found);
        self.standing.send_if_modified(|(standing, since)| {
            let changed = *standing != now;
            if changed {
                (*standing, *since) = (now.clone(), Instant::now());
            }
            changed
        });
        match now {
            Standing::Refused(stranger) => Err(stranger),
            Standing::Unknown | Standing::Recognized { .. } => Ok(()),
        }
    }

    fn judge(&self, found: &Inscription) -> Standing {
        let (ours, place) = (self.region.clone(), self.place.clone());
        let partitions = self.keys.partitions();
        let stranger = match (&found.region, &found.partitions) {
            (Some(theirs), _) if **theirs != *ours => {
                let theirs = shown(theirs);
                if self.is_own {
                    Stranger::Own { ours, theirs, place, key: self.keys.region() }
                } else {
                    Stranger::Other { ours, theirs, place }
                }
            }
            (_, Some(theirs)) if *theirs != partitions.to_string() => {
                Stranger::Partitions { ours: partitions, theirs: shown(theirs), place }
            }
            (None, None) if !self.is_own => {
                Stranger::Nobody { ours, place, prefix: self.keys.prefix().to_owned() }
            }
            (name, _) => return Standing::Recognized { named: name.is_some() },
        };
        Standing::Refused(stranger)
    }

    /// Says in the log what is wrong, or no more: when that changes, and from time to time.
    pub fn tell(&self) {
        let now = self.standing.borrow().0.clone();
        let mut told = self.told.lock();
        let before = told.as_ref().map(|(standing, _)| standing);
        let is_due = told.as_ref().is_none_or(|(_, at)| at.elapsed() >= TOLD_AGAIN);
        if before == Some(&now) && !is_due {
            return;
        }
        let region = &*self.region;
        match (&now, before) {
            (Standing::Unknown, _) => return,
            (Standing::Refused(stranger @ Stranger::Nobody { .. }), _) => {
                tracing::warn!(region, "{stranger}");
            }
            (Standing::Refused(stranger), _) => tracing::error!(region, "{stranger}"),
            (Standing::Recognized { named: false }, _) if !self.is_own => tracing::warn!(
                region,
                place = self.place,
                "this Redis does not say of which region it is, as only nodes of the version before have used it; \
                 it is taken for that of the region which the configuration names"
            ),
            (Standing::Recognized { .. }, Some(Standing::Refused(_))) => {
                tracing::info!(region, "the Redis is that of its region");
            }
            (Standing::Recognized { .. }, _) => {}
        }
        *told = Some((now, Instant::now()));
    }

    /// Says in the log why a connection could not be made: once for all connections, again when the reason changes, and
    /// from time to time.
    pub fn tell_unreachable(&self, error: &ConnectError) {
        if matches!(error, ConnectError::Stranger(_) | ConnectError::Unrecognized) {
            // What it is depends on another connection, which tells.
            return self.tell();
        }
        let why = error.to_string();
        let mut told = self.told_unreachable.lock();
        let is_due = told
            .as_ref()
            .is_none_or(|(before, at)| at.elapsed() >= if *before == why { TOLD_AGAIN } else { TOLD_ANEW });
        if is_due {
            tracing::warn!(
                region = &*self.region,
                place = self.place,
                error = why,
                "no connection to Redis can be made"
            );
            *told = Some((why, Instant::now()));
        }
    }

    /// The name is there no more. It is the same Redis, which lost its data, and its nodes put the name in again.
    pub(crate) fn is_forgotten(&self, found: &Inscription) -> bool {
        match self.standing.borrow().0 {
            Standing::Recognized { named: true } => found.region.is_none(),
            Standing::Recognized { named: false } => *found == Inscription::default(),
            Standing::Unknown | Standing::Refused(_) => false,
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}
