//! The sections about how long a session may live.

use crate::config::duration;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[session]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// No session lives longer, whatever its token says, and however often it is refreshed.
    #[serde(with = "duration")]
    pub max_lifetime: Duration,
    /// A session whose application says nothing for so long, in either direction, is ended; heartbeats do not count;
    /// `"0s"`: never.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// New tokens without a new connection.
    pub refresh: Refresh,
}

impl Default for Session {
    fn default() -> Self {
        Self { max_lifetime: Duration::from_secs(24 * 3600), idle_timeout: Duration::ZERO, refresh: Refresh::default() }
    }
}

/// `[session.refresh]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Refresh {
    /// Listen for the event, and for `POST /.siogate/refresh`.
    pub enabled: bool,
    /// The client's event with a new token; the backend never sees it.
    pub event: String,
    /// The event that tells the client how many seconds are left.
    pub warn_event: String,
    /// So long before the end, or half-way where less is left; `"0s"`: never.
    #[serde(with = "duration")]
    pub warn_before: Duration,
    /// The event that tells the backend of a new end, as if the client had sent it; `""`: none.
    pub notify: String,
}

impl Default for Refresh {
    fn default() -> Self {
        Self {
            enabled: false,
            event: "siogate:refresh".into(),
            warn_event: "siogate:expiring".into(),
            warn_before: Duration::from_secs(30),
            notify: String::new(),
        }
    }
}
