//! siogate: an authenticating reverse proxy for Socket.IO.
//!
//! ```text
//! 10  main                       parse, dispatch, exit code
//!  9  cli/                       run | check | token | dev
//!  8  app          dev/          build all rooms from Config, open doors, drain | the playground
//!  7  listen/                    TCP, TLS, HTTP: the public door, the private door
//!  6  proxy/       admin/        the engines: move bytes, obey verdicts | health, metrics
//!  5  session/                   who is inside now, until when, how to show them out
//!  4  gate/         vouch/       THE HEART: packets in, one verdict out (no IO, no clock) | who is asked about users
//!  3  upstream/     store/       everything we dial: backends, key servers | a Redis
//!  2  auth/                      token -> identity (no IO, no clock)
//!  1  protocol/ config/ telemetry/ reason stream      street level: import nothing of ours but the cellar
//!  0  random                     unpredictable bytes
//! ```
//!
//! Every file imports by full address; this one is a map, not a hub.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod dev;
pub mod gate;
pub mod listen;
pub mod protocol;
pub mod proxy;
pub mod random;
pub mod reason;
pub mod session;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod upstream;
pub mod vouch;
