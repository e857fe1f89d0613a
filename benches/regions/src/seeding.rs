//! What a region has accepted before anybody looks: some publications on the channels that clients use, among those on
//! many others.

use crate::{site::Site, stream::connect, user::Message};
use futures_util::{StreamExt, TryStreamExt, stream};
use skywave_client::{CertificateCheck, Json};

/// Publishes that wait for their answer at once.
const IN_FLIGHT: usize = 512;
/// How many of the channels are those that clients use.
const USED: u64 = 6;
/// A publisher that is no client's.
const PUBLISHER: u32 = u32::MAX;

/// Publishes on `count` channels, once on each.
///
/// # Errors
/// When a publish is refused.
pub async fn seed(site: &Site, url: &str, certificate: CertificateCheck, count: u64) -> anyhow::Result<()> {
    let client = connect(site, url, certificate).await?;
    let publish = async |number: u64| {
        let message: Message = (PUBLISHER, number + 1, 0);
        let used = number < USED;
        let channel = if used { format!("chat:{number}") } else { format!("room:{number}") };
        client.publish(&channel, Json::of(&message)?).await?;
        anyhow::Ok(())
    };
    stream::iter(0..count).map(publish).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    client.close().await;
    Ok(())
}
