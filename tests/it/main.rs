//! The gate from outside: every bad input of `docs/refusals.md` and every line of the threat model that a socket can show.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod admin;
mod backends;
mod bodies;
mod connects;
mod documents;
mod drain;
mod expiry;
mod frames;
mod identity;
mod keys;
mod leaks;
mod logout;
mod modes;
mod origins;
mod patience;
mod proxies;
mod refresh;
mod replicas;
mod requests;
mod revocation;
mod secrets;
mod sids;
mod signals;
mod stores;
mod vouchers;
