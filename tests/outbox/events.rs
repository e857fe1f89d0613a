//! Events: which of them a session gets.

use crate::{
    content::event,
    reader::{events, outbox},
};

#[test]
fn events_of_one_slot_are_conflated_and_those_of_others_kept() {
    let outbox = outbox();
    outbox.event(&event("a", Some("cursor"), 1));
    outbox.event(&event("b", Some("cursor"), 2));
    outbox.event(&event("a", Some("cursor"), 3));
    outbox.event(&event("a", None, 4));
    outbox.event(&event("a", None, 5));
    assert_eq!(outbox.take_counts().events_conflated, 1);
    assert_eq!(events(&outbox), ["Json(2)", "Json(3)", "Json(4)", "Json(5)"]);
}

#[test]
fn a_session_does_not_get_its_own_events() {
    let outbox = outbox();
    outbox.event(&event("me", None, 1));
    assert_eq!(events(&outbox), Vec::<String>::new());
}
