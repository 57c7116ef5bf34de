//! A credential in, an identity or a reason out. No IO, no clock.

pub mod assertion;
pub mod cache;
pub mod callout;
pub mod claims;
pub mod credential;
pub mod events;
pub mod identity;
pub mod introspection;
pub mod jose;
pub mod keys;
pub mod logout;
pub mod revocation;
pub mod rules;
pub mod session_cookie;
pub mod statement;
pub mod stored;
#[cfg(test)]
pub mod testing;
pub mod verifier;
pub mod vouch;
