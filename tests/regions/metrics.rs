//! What the metrics tell of a link: what crossed it, what was known already, and what waits.

use crate::deployment::{CHANNEL, Deployment};
use skywave_testing::eventually;

/// A sample of the first node of eu, by its name and labels as `/metrics` shows them.
fn sample(deployment: &Deployment, name: &str) -> Option<f64> {
    let text = deployment.region("eu").node().node().metrics.render().unwrap();
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    values.next()
}

fn link(deployment: &Deployment, metric: &str) -> f64 {
    // Some are not told before there is something to tell: then it is no number.
    sample(deployment, &format!("skywave_link_{metric}{{link=\"us\"}}")).unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crosses_a_link_is_counted_and_what_was_there_already_apart() {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=50).await;
    deployment.all_arrive("eu", "us", 50).await;
    // Redis has said so a moment before the leader hears it.
    eventually("it is counted", async || link(&deployment, "applied_total") == 50.0).await;
    for (metric, value) in [("duplicates_total", 0.0), ("gaps_total", 0.0), ("malformed_total", 0.0)] {
        assert_eq!(link(&deployment, metric), value, "{metric}");
    }
    for (metric, value) in [("leader", 1.0), ("takeovers_total", 1.0), ("filled_total", 4.0)] {
        assert_eq!(link(&deployment, metric), value, "{metric}");
    }
    eventually("beats", async || link(&deployment, "rtt_seconds_count") >= 2.0).await;
    eventually("it is up", async || link(&deployment, "up") == 1.0).await;
    assert!(link(&deployment, "phi") < 8.0, "it is not suspected");
    assert!(link(&deployment, "rtt_seconds_sum") > 0.0);

    // Another leader reads from the beginning what is here already.
    drop(deployment.region_mut("eu").nodes.remove(0));
    let eu = &deployment.region("eu").redis;
    for partition in 0..4 {
        let cursors = format!("sky:{{{partition}}}:cursor");
        let cursor: String = eu.run(&format!("HGET {cursors} us")).await;
        let life = cursor.split(' ').next().unwrap();
        eu.run_words::<u64>(&["HSET", &cursors, "us", &format!("{life} 0-0 0")]).await;
    }
    deployment.add_node("eu").await;
    deployment.publish("us", 51..=60).await;
    deployment.all_arrive("eu", "us", 60).await;
    eventually("it is counted", async || link(&deployment, "applied_total") == 10.0).await;
    assert_eq!(link(&deployment, "duplicates_total"), 50.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_told_while_it_cannot_be_applied() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    deployment.region("eu").redis.freeze();
    deployment.publish("us", 11..=60).await;
    eventually("a backlog", async || link(&deployment, "backlog_entries") >= 50.0).await;
    eventually("a lag", async || link(&deployment, "lag_seconds") > 0.0).await;
    deployment.region("eu").redis.thaw();
    deployment.all_arrive("eu", "us", 60).await;
    eventually("none", async || link(&deployment, "backlog_entries") == 0.0).await;
    eventually("no lag", async || link(&deployment, "lag_seconds") == 0.0).await;
    assert_eq!(deployment.region("eu").numbers(CHANNEL, "us").len(), 60);
}
