//! History, page by page.

use crate::{
    on_every_broker,
    world::{Kind, World, at, channel, head, offsets, publish},
};
use skywave::broker::{BrokerError, PageLimit, PageOf};
use skywave_protocol::{Position, Text};

on_every_broker! {
    history_is_paged_backward_by_cursor,
    a_page_keeps_within_its_bytes_but_is_never_empty,
    a_page_says_whether_more_is_retained,
    a_foreign_cursor_is_refused,
}

async fn history_is_paged_backward_by_cursor(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 5).await;
    let limit = PageLimit { publications: 2, bytes: 1000 };
    let mut page = broker.history(&channel(), PageOf::Last, limit).await.unwrap();
    let mut seen = vec![offsets(&page.publications)];
    while let Some(cursor) = page.cursor {
        page = broker.history(&channel(), PageOf::Before(cursor), limit).await.unwrap();
        seen.push(offsets(&page.publications));
    }
    assert_eq!(seen, [vec![4, 5], vec![2, 3], vec![1]]);
}

async fn a_page_keeps_within_its_bytes_but_is_never_empty(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 5).await;
    let limit = PageLimit { publications: 100, bytes: 3 };
    let page = broker.history(&channel(), PageOf::Last, limit).await.unwrap();
    assert_eq!(offsets(&page.publications), [3, 4, 5]);
    let limit = PageLimit { publications: 100, bytes: 0 };
    let page = broker.history(&channel(), PageOf::After(Position::new()), limit).await.unwrap();
    assert_eq!(offsets(&page.publications), [1]);
}

async fn a_page_says_whether_more_is_retained(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 5).await;
    let after = |offset, position: &Position| PageOf::After(at(position, offset));
    let position = head(&*broker).await;
    // Each payload has one byte.
    let limit = |publications, bytes| PageLimit { publications, bytes };
    for (page, limit, more) in [
        (PageOf::Last, limit(4, 100), true),
        (PageOf::Last, limit(5, 100), false),
        (PageOf::Last, limit(10, 3), true),
        (after(0, &position), limit(4, 100), true),
        (after(0, &position), limit(10, 3), true),
        (after(0, &position), limit(5, 100), false),
        (after(2, &position), limit(3, 3), false),
        (after(5, &position), limit(3, 3), false),
    ] {
        let read = broker.history(&channel(), page.clone(), limit).await.unwrap();
        assert_eq!(read.more, more, "{page:?} {limit:?}");
    }
}

async fn a_foreign_cursor_is_refused(kind: Kind) {
    let broker = World::new(kind).await;
    let limit = PageLimit { publications: 2, bytes: 1000 };
    let cursor = PageOf::Before(Text::new("nonsense").unwrap());
    let refused = broker.history(&channel(), cursor, limit).await;
    assert_eq!(refused.unwrap_err(), BrokerError::BadCursor);
}
