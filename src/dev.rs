//! The playground behind `siogate dev`: an issuer, an echo backend and a page, all on loopback only.

pub mod backend;
pub mod door;
pub mod echo;
pub mod issuer;
pub mod page;
pub mod playground;
