//! The heart: one session's packets in, one verdict out. No IO, no clock.
//!
//! [`engine`] is the server half of Engine.IO for one client: polling, WebSocket and the upgrade
//! between them. [`admission`] judges Socket.IO: which namespaces may be joined, with whose token.
//! [`refresh`] reads what asks for a later end, and writes what is said to it.

pub mod admission;
pub mod budget;
pub mod ending;
pub mod engine;
pub mod refresh;
