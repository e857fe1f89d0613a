//! A history that is read page by page while its reader moves to another region.

use crate::deployment::Deployment;
use skywave_client::{HistoryRange, TransportChoice};
use skywave_protocol::ErrorCode;
use skywave_testing::soon;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_refused_by_a_region_whose_order_would_leave_out_what_stands_before_it() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.path("eu", "us").cut();
    deployment.publish("us", 1..=2).await;
    let there = deployment.region("us").client(TransportChoice::WebSocket).await;
    let newest = soon(there.history("chat:1", HistoryRange::last(1))).await.unwrap();
    assert_eq!(newest.publications[0].offset, 2);
    deployment.path("eu", "us").heal();
    deployment.deliveries("eu", 2).await;
    // Where the first one stands at a later time than the second one does there.
    let here = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let further =
        HistoryRange { before: newest.cursor.map(|cursor| cursor.to_string()), ..HistoryRange::last(10) };
    let page = soon(here.history("chat:1", further.clone())).await;
    let refused = page.map(|page| page.publications.len()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::BadRequest.code());
    let page = soon(there.history("chat:1", further)).await.unwrap();
    assert!(page.publications.iter().map(|one| one.offset).eq([1]));
}
