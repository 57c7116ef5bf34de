//! The private door's answers: health, readiness, metrics.
