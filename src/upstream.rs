//! Everything the gate dials: backends and key servers.

pub mod answer;
pub mod client;
pub mod connect;
pub mod dial;
pub mod discovery;
pub mod fetch;
pub mod head;
pub mod jwks;
pub mod pool;
pub mod probe;
pub mod refresh;
pub mod target;
pub mod timings;
pub mod tls;

#[cfg(test)]
mod support;
