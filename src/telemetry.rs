//! Counters and the one record per session.
