//! The heart: one session's packets in, one verdict out. No IO, no clock.
