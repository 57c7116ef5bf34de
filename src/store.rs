//! What the gate shares with others: a Redis.

pub mod redis;
