//! The private door's answers: health, readiness, metrics.

pub mod readiness;
pub mod routes;
