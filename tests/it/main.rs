//! The gate from outside: every bad input of `docs/refusals.md` and every line of the threat model that a socket can show.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod backends;
mod bodies;
mod frames;
mod identity;
mod origins;
mod patience;
mod requests;
mod secrets;
mod sids;
