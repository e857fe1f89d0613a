//! `[heartbeat]`: how often sessions give signs of life.

use super::{
    duration::{HOUR, MILLISECOND},
    section::Section,
};
use skywave_protocol::heartbeat::HeartbeatConfig;

/// Reads `[heartbeat]`. Every duration is 100ms … 1h, and all lie between `min` and `max`.
pub(super) fn read(section: &mut Section<'_>) -> HeartbeatConfig {
    let bounds = 100 * MILLISECOND..=HOUR;
    let default = HeartbeatConfig::default();
    let mut config = HeartbeatConfig {
        min: section.duration("min", default.min, bounds.clone()),
        max: section.duration("max", default.max, bounds.clone()),
        foreground_max: section.duration("foreground_max", default.foreground_max, bounds.clone()),
        udp_start: section.duration("udp_start", default.udp_start, bounds.clone()),
        tcp_start: section.duration("tcp_start", default.tcp_start, bounds),
    };
    let (min, max) = (config.min, config.max);
    if min > max {
        section.add(if section.is_set("min") { "min" } else { "max" }, "min must not be longer than max");
        return config;
    }
    for (key, value) in [
        ("foreground_max", &mut config.foreground_max),
        ("udp_start", &mut config.udp_start),
        ("tcp_start", &mut config.tcp_start),
    ] {
        if section.is_set(key) && !(min..=max).contains(value) {
            section.add(key, "must lie between min and max");
        }
        // A default gives way to a bound that was written.
        *value = (*value).clamp(min, max);
    }
    config
}
