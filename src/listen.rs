//! The doors: sockets, TLS and HTTP.

pub mod accept;
pub mod door;
pub mod front;
pub mod private;
pub mod public;
pub mod tls;
