//! The doors: sockets, TLS and HTTP.

pub mod accept;
pub mod door;
pub mod front;
pub mod head;
pub mod private;
pub mod public;
pub mod requests;
pub mod respond;
pub mod tls;
