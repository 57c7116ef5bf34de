//! Rules about times, limits and the log.

use super::*;

#[test]
fn times_are_neither_zero_nor_endless() {
    let changes: [fn(&mut Config, Duration); 9] = [
        |c, d| c.upstream.connect_timeout = d,
        |c, d| c.socketio.connect_deadline = d,
        |c, d| c.socketio.ping_interval = Some(d),
        |c, d| c.socketio.ping_timeout = Some(d),
        |c, d| c.session.max_lifetime = d,
        |c, d| c.limits.header_timeout = d,
        |c, d| c.limits.body_timeout = d,
        |c, d| c.limits.write_timeout = d,
        |c, d| c.issuer[0].max_age = Some(d),
    ];
    for change in changes {
        assert_eq!(paths(|c| change(c, Duration::ZERO)).len(), 1);
        assert_eq!(paths(|c| change(c, Duration::MAX)).len(), 1);
        assert!(paths(|c| change(c, Duration::from_secs(1))).is_empty());
    }
    assert!(paths(|c| c.server.drain_timeout = Duration::ZERO).is_empty());
    assert_eq!(paths(|c| c.server.drain_timeout = Duration::MAX), ["server.drain_timeout"]);
}

#[test]
fn a_heartbeat_fits_a_javascript_timer() {
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(
        paths(|c| (c.socketio.ping_interval, c.socketio.ping_timeout) = (Some(day * 20), Some(day * 10))),
        ["socketio.ping_interval"]
    );
    assert!(paths(|c| c.socketio.ping_interval = Some(day * 24)).is_empty());
}

#[test]
fn limits_admit_something_and_bound_it() {
    let changes: [fn(&mut Config); 6] = [
        |c| c.limits.max_sessions = 0,
        |c| c.limits.max_unauthenticated = 0,
        |c| c.limits.max_unauthenticated_per_ip = 0,
        |c| c.limits.max_packets_per_payload = 0,
        |c| c.limits.max_queue = 0,
        |c| c.socketio.max_payload = Some(0),
    ];
    for change in changes {
        assert_eq!(paths(change).len(), 1);
    }
    for (size, good) in [(0, false), (8191, false), (8192, true), (1 << 20, true), (usize::MAX, false)] {
        assert_eq!(paths(|c| c.limits.max_header_size = size).is_empty(), good, "{size}");
    }
}

#[test]
fn log_levels_are_words_or_filters() {
    for good in ["info", "DEBUG", "off", "info,siogate=debug", "siogate::proxy=trace, hyper=warn"] {
        assert!(paths(|c| c.log.level = good.into()).is_empty(), "{good}");
    }
    for bad in ["", "verbose", "info,", "siogate=", "=info", "siogate=loud"] {
        assert_eq!(paths(|c| c.log.level = bad.into()), ["log.level"], "{bad}");
    }
}
