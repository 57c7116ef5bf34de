//! Bytes in, values out: Engine.IO, Socket.IO, WebSocket frames and HTTP targets.

pub mod engineio;
pub mod event;
pub mod forwarded;
pub mod frame;
pub mod handshake;
pub mod json;
pub mod origin;
pub mod payload;
pub mod scanner;
pub mod sid;
pub mod socketio;
pub mod target;
