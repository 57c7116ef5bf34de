//! The engines: move bytes, obey verdicts, decide nothing.
//!
//! [`gateway`] takes a request and chooses; [`handshake`] opens sessions; [`polling`] carries the
//! requests of sessions that poll to the task that owns them ([`conversation`]); [`relay`] passes the
//! frames of those on a WebSocket; [`http`] passes everything else, and
//! [`own`] hears what identity providers tell the gate.

pub mod context;
pub mod conversation;
pub mod frames;
pub mod gateway;
pub mod gets;
pub mod handshake;
pub mod headers;
pub mod http;
pub mod keeper;
pub mod own;
pub mod polling;
pub mod refresh;
pub mod refusal;
pub mod relay;
pub mod reply;
pub mod scratch;
pub mod takeover;
pub mod timers;
pub mod upgrade;

#[cfg(test)]
mod support;
