//! Bytes in, values out: Engine.IO, Socket.IO, WebSocket frames and HTTP targets.

pub mod engineio;
pub mod handshake;
pub mod payload;
pub mod sid;
pub mod socketio;
