//! How a command fails, and with which exit code.

use crate::app::BuildError;
use crate::config::problem::Problems;
use thiserror::Error;

/// A command that did not do what was asked.
#[derive(Debug, Error)]
pub enum Failure {
    /// The configuration cannot be used: exit code 64 (`EX_USAGE` of sysexits.h).
    #[error("{0}")]
    Config(String),
    /// Something went wrong while running: exit code 1.
    #[error("{0}")]
    Running(String),
    /// Already said: exit code 1.
    #[error("")]
    Told,
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) => 64,
            Failure::Running(_) | Failure::Told => 1,
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Failure::Config(problems.to_string())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Config(text) => Failure::Config(text),
            error @ BuildError::Bind { .. } => Failure::Running(error.to_string()),
        }
    }
}
