//! A token in, an identity or a reason out. No IO, no clock.

pub mod assertion;
pub mod cache;
pub mod claims;
pub mod credential;
pub mod events;
pub mod identity;
pub mod jose;
pub mod keys;
pub mod logout;
pub mod revocation;
pub mod rules;
pub mod statement;
#[cfg(test)]
pub mod testing;
pub mod verifier;
