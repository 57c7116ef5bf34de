//! Bytes in, values out: Engine.IO, Socket.IO, WebSocket frames and HTTP targets.
pub mod frame;
