//! Counters and the one record per session. Takes words, imports no room.

pub mod access;
pub mod address;
pub mod endings;
pub mod facts;
pub mod metrics;
