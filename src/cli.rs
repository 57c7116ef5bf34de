//! What an operator can ask on the command line.

pub mod args;
pub mod check;
pub mod dev;
pub mod failure;
pub mod json_log;
pub mod log_writer;
pub mod logging;
pub mod run;
pub mod signal;
pub mod token;
