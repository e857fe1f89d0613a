//! The channels whose changes subscribers of this node are told, and what they were told last.

use super::{
    answers::Listing,
    held::{Held, News},
};
use parking_lot::Mutex;
use skywave_channels::{
    by_session::BySession,
    hub::Hub,
    presence::{
        MAX_MEMBERS,
        telling::{Change, Telling},
    },
};
use skywave_protocol::{
    Channel,
    frame::{Member, Members},
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// What is swept from a channel is told together even where changes are told at once.
const SWEEP_BATCH: Duration = Duration::from_millis(500);

/// All watched channels.
pub(crate) struct Rooms {
    hub: Arc<Hub>,
    telling: Arc<Telling>,
    rooms: Mutex<HashMap<Channel, Room>>,
}

/// How what Redis says of a channel relates to what its subscribers were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Footing {
    /// They are alike.
    Settled,
    /// Some of what was said may not have been heard.
    Missed,
    /// Redis lost what it knew, and nodes say it again.
    Restoring,
}

/// One channel, as all of its subscribers know it once all that waits has been told. Lists are given and changes are
/// told so that this stays true, whatever Redis forgot.
#[derive(Default)]
struct Room {
    /// All of its members while they are few; only then can it be said who was missed, and what is known already.
    everyone: Option<BySession<Member>>,
    count: Option<u64>,
    /// The life and the number of the news that were heard of it last.
    heard: (String, u64),
    /// The same of the newest list that was taken for what is.
    taken: (String, u64),
    /// The life and the number of the news up to which all was told as a list shows it, although some of them may be
    /// heard later.
    listed: (String, u64),
}

impl Room {
    /// Takes someone in; whether that is new, as far as is known.
    fn join(&mut self, member: &Member) -> bool {
        let Some(everyone) = &mut self.everyone else { return true };
        let is_new = everyone.insert(member.session.clone(), member.clone()).is_none();
        self.everyone.take_if(|everyone| everyone.len() > MAX_MEMBERS);
        is_new
    }

    /// The same for someone who left.
    fn leave(&mut self, member: &Member) -> bool {
        self.everyone.as_mut().is_none_or(|everyone| everyone.remove(&member.session).is_some())
    }

    /// Whether something was heard, or shown by another list, that this one does not show yet.
    fn is_ahead_of(&self, listing: &Listing) -> bool {
        let is_newer = |(life, number): &(String, u64)| *life == listing.life && *number > listing.said;
        is_newer(&self.heard) || is_newer(&self.taken)
    }

    /// Whether a list shows what these news tell: they come late.
    fn has_listed(&self, life: &str, number: u64) -> bool {
        self.listed.0 == life && number <= self.listed.1
    }

    /// How many are there by what is known, if that is all of them.
    fn known(&self) -> Option<u64> {
        self.everyone.as_ref().map(|everyone| everyone.len() as u64)
    }

    /// All of its members, where they are known.
    fn members(&self) -> Option<Members> {
        let members: Vec<_> = self.everyone.as_ref()?.values().cloned().collect();
        Some(Members { count: members.len() as u64, members })
    }

    /// Takes a list for who is there; answers how that differs.
    fn replace(&mut self, Listing { life, said, members }: &Listing) -> Vec<Change> {
        self.taken = (life.clone(), *said);
        let listed = members.members.iter().map(|member| (member.session.clone(), member.clone()));
        let new: Option<BySession<_>> = is_complete(members).then(|| listed.collect());
        let mut changes = Vec::new();
        if let (Some(old), Some(new)) = (&self.everyone, &new) {
            let lacking = |member: &&Member, from: &BySession<_>| !from.contains_key(&member.session);
            let joined = new.values().filter(|member| lacking(member, old)).cloned();
            let left = old.values().filter(|member| lacking(member, new)).cloned();
            changes.extend(joined.map(Change::Joined).chain(left.map(Change::Left)));
        }
        self.everyone = new;
        changes
    }
}

fn is_complete(members: &Members) -> bool {
    members.count == members.members.len() as u64
}

impl Rooms {
    pub(crate) fn new(hub: Arc<Hub>, telling: Arc<Telling>) -> Self {
        Self { hub, telling, rooms: Mutex::default() }
    }

    /// Tells the channel's subscribers what changed. Until things are settled, numbers alone are not told.
    pub(crate) fn heard(&self, news: News, footing: Footing) {
        let News { life, number, channel, count, joined, back, left, swept, .. } = news;
        let mut rooms = self.rooms.lock();
        if !self.hub.is_watched(&channel) {
            // Whoever watches later asks who is there, and was told nothing of what waits.
            rooms.remove(&channel);
            self.telling.forget(&channel);
            return;
        }
        let room = rooms.entry(channel.clone()).or_default();
        let is_late = room.has_listed(&life, number);
        room.heard = (life, number);
        if is_late && room.everyone.is_some() {
            return;
        }
        // A full list may not name everyone.
        let is_full = |list: &[Held]| list.len() >= MAX_MEMBERS;
        room.everyone.take_if(|_| is_full(&joined) || is_full(&back) || is_full(&left));
        let (mut changes, mut repeats) = (Vec::new(), is_late);
        for Held { member, .. } in joined {
            repeats |= !room.join(&member);
            changes.push(Change::Joined(member));
        }
        let missed = back.into_iter().filter(|one| room.everyone.is_some() && room.join(&one.member));
        changes.extend(missed.map(|one| Change::Joined(one.member)));
        for Held { member, .. } in left {
            repeats |= !room.leave(&member);
            changes.push(Change::Left(member));
        }
        let count = room.known().filter(|_| footing == Footing::Restoring).unwrap_or(count);
        let least = if swept { SWEEP_BATCH } else { Duration::ZERO };
        let differs = footing == Footing::Settled && room.count.is_some_and(|told| told != count);
        if changes.is_empty() && differs {
            // Those who are back come in parts.
            room.count = Some(count);
            self.telling.add(&channel, changes, count, SWEEP_BATCH);
        } else if !changes.is_empty() {
            room.count = Some(count);
            self.telling.add(&channel, changes, count, least);
            if repeats {
                // What is known already does not cancel out with what follows.
                self.telling.listed(&channel);
            }
        } else if self.telling.correct(&channel, count) {
            room.count = Some(count);
        }
    }

    /// Who is there is being read for subscribers, or not any more.
    pub(crate) fn reads(&self, channel: &Channel, reading: bool) {
        self.telling.reads(channel, reading);
    }

    /// What whoever asked is told of who is there. While Redis may not know all of them again, the list also has those
    /// whom subscribers know. So what all are told later is right for this reader, too.
    pub(crate) fn listed(&self, channel: &Channel, listing: Listing, footing: Footing) -> Members {
        let mut rooms = self.rooms.lock();
        if !self.hub.is_watched(channel) {
            return listing.members;
        }
        let room = rooms.entry(channel.clone()).or_default();
        let is_behind = room.is_ahead_of(&listing);
        if footing == Footing::Restoring {
            if is_behind || room.everyone.is_some() {
                return self.completed(channel, room, listing.members);
            }
            room.replace(&listing);
        } else if is_behind {
            // All are told how what they know changes, and not what is in between.
            return room.members().unwrap_or(listing.members);
        } else if is_complete(&listing.members) {
            self.take(channel, room, &listing);
        } else {
            room.replace(&listing);
            room.listed = (listing.life, listing.said);
        }
        room.count.get_or_insert(listing.members.count);
        listing.members
    }

    /// Takes a list for the truth. Subscribers are told how it differs from what they were told, whether the news of it
    /// are heard or not.
    fn take(&self, channel: &Channel, room: &mut Room, listing: &Listing) {
        // Of what the first one shows nobody is told: its news are heard as ever.
        if room.everyone.is_some() {
            room.listed = (listing.life.clone(), listing.said);
        }
        let changes = room.replace(listing);
        let count = listing.members.count;
        let differs = room.count.replace(count).is_some_and(|told| told != count);
        if differs || !changes.is_empty() {
            self.telling.add(channel, changes, count, Duration::ZERO);
        }
    }

    /// These, and all that are known besides; the others are told whom they did not know.
    fn completed(&self, channel: &Channel, room: &mut Room, members: Members) -> Members {
        let new: Vec<_> = members.members.iter().filter(|one| room.join(one)).cloned().collect();
        let Some(known) = room.members() else { return members };
        if !new.is_empty() {
            room.count = Some(known.count);
            let changes = new.into_iter().map(Change::Joined).collect();
            self.telling.add(channel, changes, known.count, Duration::ZERO);
        }
        known
    }

    /// Tells how who is there differs from what was told. `false`: something was heard since it was asked, which would
    /// be taken back; it has to be asked again.
    pub(crate) fn compare(&self, channel: &Channel, listing: &Listing) -> bool {
        let mut rooms = self.rooms.lock();
        let Some(room) = rooms.get_mut(channel) else { return true };
        if room.is_ahead_of(listing) {
            return false;
        }
        self.take(channel, room, listing);
        true
    }

    /// The watched channels; the others are forgotten.
    pub(crate) fn watched(&self) -> Vec<Channel> {
        let mut rooms = self.rooms.lock();
        rooms.retain(|channel, _| self.hub.is_watched(channel));
        rooms.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_channels::{hub::outbox::Outbox, namespace::Namespaces};
    use skywave_protocol::{Text, form};

    const LIFE: &str = "life";

    fn held(session: &str) -> Held {
        Held::parse(session, "node 1 1 {}").unwrap()
    }

    fn news(number: u64, joined: &[&str], left: &[&str]) -> News {
        let held = |names: &[&str]| names.iter().copied().map(held).collect();
        News {
            life: LIFE.to_owned(),
            number,
            channel: Channel::new("chat:1").unwrap(),
            count: 0,
            joined: held(joined),
            back: Vec::new(),
            left: held(left),
            taken: Vec::new(),
            swept: false,
        }
    }

    /// Who is there after the news of that number.
    fn listing(said: u64, sessions: &[&str]) -> Listing {
        let members: Vec<Member> = sessions.iter().map(|session| held(session).member).collect();
        Listing { life: LIFE.to_owned(), said, members: Members { count: members.len() as u64, members } }
    }

    #[test]
    fn a_list_that_is_older_than_what_was_heard_takes_nothing_back() {
        let hub: Arc<Hub> = Arc::default();
        let telling = Arc::new(Telling::new(hub.clone(), Namespaces::default()));
        let rooms = Rooms::new(hub.clone(), telling);
        let channel = Channel::new("chat:1").unwrap();
        let outbox = Arc::new(Outbox::new(&form::JSON, 65_536));
        let _watches = hub.join(channel.clone(), &outbox, true);
        let known = || {
            let rooms = rooms.rooms.lock();
            let mut known: Vec<_> =
                rooms[&channel].everyone.iter().flatten().map(|one| one.0.clone()).collect();
            known.sort();
            known
        };
        let named = |names: &[&str]| names.iter().map(|name| Text::new(*name).unwrap()).collect::<Vec<_>>();
        // The first list is as old as any.
        rooms.heard(news(1, &[], &["gone"]), Footing::Settled);
        rooms.listed(&channel, listing(0, &["gone"]), Footing::Settled);
        assert_eq!(known(), named(&[]));
        rooms.listed(&channel, listing(1, &["stays", "goes"]), Footing::Settled);
        rooms.heard(news(2, &["comes"], &[]), Footing::Settled);
        rooms.heard(news(3, &[], &["goes"]), Footing::Settled);
        assert!(!rooms.compare(&channel, &listing(2, &["stays", "goes", "comes"])));
        assert_eq!(known(), named(&["comes", "stays"]));
        assert!(rooms.compare(&channel, &listing(3, &["stays", "comes", "missed"])));
        assert_eq!(known(), named(&["comes", "missed", "stays"]));
        // Nor does what comes late of that which a list shows.
        rooms.listed(&channel, listing(5, &["stays", "comes"]), Footing::Settled);
        rooms.heard(news(4, &["gone"], &["stays"]), Footing::Settled);
        assert_eq!(known(), named(&["comes", "stays"]));
        rooms.heard(news(6, &[], &["comes"]), Footing::Settled);
        assert_eq!(known(), named(&["stays"]));
    }

    #[test]
    fn of_two_lists_that_are_read_at_once_the_newer_one_counts_in_whatever_order_they_come() {
        let hub: Arc<Hub> = Arc::default();
        let telling = Arc::new(Telling::new(hub.clone(), Namespaces::default()));
        let rooms = Rooms::new(hub.clone(), telling);
        let channel = Channel::new("chat:1").unwrap();
        let outbox = Arc::new(Outbox::new(&form::JSON, 65_536));
        let _watches = hub.join(channel.clone(), &outbox, true);
        let there = |members: Members| {
            let mut there: Vec<_> = members.members.iter().map(|one| one.session.to_string()).collect();
            there.sort();
            there
        };
        let listed = |said, sessions: &[&str]| {
            there(rooms.listed(&channel, listing(said, sessions), Footing::Settled))
        };
        rooms.heard(news(1, &["stays"], &[]), Footing::Settled);
        // The news that the lists show come later, or never.
        assert!(rooms.compare(&channel, &listing(4, &["stays", "new"])));
        assert_eq!(listed(3, &["stays", "passing"]), ["new", "stays"]);
        assert_eq!(listed(7, &["stays", "newer"]), ["newer", "stays"]);
        assert!(!rooms.compare(&channel, &listing(6, &["stays", "new", "passing"])));
        assert_eq!(listed(7, &["stays", "newer"]), ["newer", "stays"]);
    }

    #[test]
    fn who_begins_to_watch_is_not_told_what_waited_for_those_who_watched_before() {
        let hub: Arc<Hub> = Arc::default();
        let telling = Arc::new(Telling::new(hub.clone(), Namespaces::default()));
        let rooms = Rooms::new(hub.clone(), telling.clone());
        let channel = Channel::new("chat:1").unwrap();
        let outbox = Arc::new(Outbox::new(&form::JSON, 65_536));
        let watches = hub.join(channel.clone(), &outbox, true);
        rooms.heard(news(1, &["goes"], &["comes"]), Footing::Settled);
        drop(watches);
        rooms.heard(news(2, &["comes"], &["goes"]), Footing::Settled);
        let _watches = hub.join(channel.clone(), &outbox, true);
        rooms.listed(&channel, listing(2, &["comes"]), Footing::Settled);
        telling.flush(&channel);
        assert_eq!(outbox.bytes(), 0, "it is told what is not so any more");
    }
}
