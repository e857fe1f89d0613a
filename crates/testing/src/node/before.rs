//! What nodes of the version before this one do in Redis: their scripts, as they were.

use crate::RedisServer;
use redis::Value;
use skywave::redis::keys::partition_of;
use skywave_protocol::Channel;

const PUBLISH: &str = concat!(include_str!("before/life.lua"), include_str!("before/publish.lua"));
const READ: &str = concat!(include_str!("before/life.lua"), include_str!("before/read.lua"));

/// Calls a script of theirs on a channel, with these arguments behind those of every script.
async fn call(server: &RedisServer, script: &str, channel: &str, args: &[&str]) -> Vec<Value> {
    let told: String = server.run("INFO server").await;
    let run = told.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap();
    let partition = partition_of(&Channel::new(channel).unwrap(), 4);
    let key = |rest: &str| format!("sky:{{{partition}}}:{rest}");
    let keys = ["life", "log", &format!("pos:{channel}"), &format!("hist:{channel}")].map(key);
    let words = ["EVAL", script, "4"].into_iter().chain(keys.iter().map(String::as_str));
    let words: Vec<_> = words.chain([run, "fresh"]).chain(args.iter().copied()).collect();
    server.run_words(&words).await
}

fn text(value: &Value) -> String {
    redis::from_redis_value_ref(value).unwrap()
}

/// Accepts a publication in a region that knows others, as they do; its epoch and offset.
pub async fn publish(server: &RedisServer, origin: &str, channel: &str, number: u64) -> (String, u64) {
    let partition = partition_of(&Channel::new(channel).unwrap(), 4);
    let (out, payload) = (format!("sky:{{{partition}}}:out"), number.to_string());
    let args = [
        origin, channel, "j", "", "", &payload, "1000", "600000", "600000", "1000", "600000", "600000", &out,
    ];
    let answer = call(server, PUBLISH, channel, &args).await;
    (text(&answer[0]), text(&answer[1]).parse().unwrap())
}

/// Where a channel stands for them, and how many publications they find.
pub async fn read(server: &RedisServer, channel: &str) -> (String, usize) {
    let answer = call(server, READ, channel, &["backward", "+", "100", "600000", ""]).await;
    let Value::Array(positions) = &answer[2] else { panic!("{answer:?}") };
    let Value::Array(entries) = &answer[3] else { panic!("{answer:?}") };
    (text(&positions[1]), entries.len())
}
