//! A token in, an identity or a reason out. No IO, no clock.
