//! The private door's answers: health, readiness, metrics, and who is inside.

pub mod api;
pub mod query;
pub mod readiness;
pub mod revocations;
pub mod routes;
pub mod sessions;
