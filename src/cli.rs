//! What an operator can ask on the command line.

pub mod args;
pub mod logging;
pub mod signal;
