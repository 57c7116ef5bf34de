//! The doors: sockets, TLS and HTTP.
