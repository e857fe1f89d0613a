//! Presence of a node by itself: the members are its residents.

use super::{
    MAX_MEMBERS, Roster,
    residents::{Resident, Residents, Shards},
    telling::{Change, Telling},
};
use crate::broker::BrokerError;
use futures_util::future::{self, BoxFuture};
use skywave_protocol::{Channel, frame::Members};
use std::{sync::Arc, time::Duration};

pub(crate) struct MemoryRoster {
    shards: Arc<Shards>,
    telling: Arc<Telling>,
}

impl MemoryRoster {
    pub(crate) fn new(shards: Arc<Shards>, telling: Arc<Telling>) -> Self {
        Self { shards, telling }
    }
}

impl Roster for MemoryRoster {
    fn arrived(&self, residents: &Residents, channel: &Channel, resident: &Resident) {
        let joined = Change::Joined(resident.member.clone());
        self.telling.add(channel, vec![joined], residents.count(channel), Duration::ZERO);
    }

    fn returned(&self, _residents: &Residents, _channel: &Channel, _resident: &Resident) {}

    fn departed(&self, residents: &Residents, channel: &Channel, resident: Resident) {
        let left = Change::Left(resident.member);
        self.telling.add(channel, vec![left], residents.count(channel), Duration::ZERO);
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'static, Result<Members, BrokerError>> {
        let residents = self.shards.of(channel).lock();
        self.telling.listed(channel);
        let members = residents.on(channel).take(MAX_MEMBERS).map(|one| one.member.clone()).collect();
        Box::pin(future::ready(Ok(Members { count: residents.count(channel), members })))
    }
}
