//! The closed list of words that say why a session or a request was refused or ended.
//!
//! One word everywhere: the log record, the metric label, `connect_error.data.code`, the WebSocket
//! close reason and the admin list all carry [`Reason::word`]. Operators get a detail beside it;
//! clients only ever get the word and [`Reason::message`].

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $word:literal, $message:literal;)*) => {
        /// Why a session or request was refused or ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The stable word of the contract, such as `token_expired`.
            pub fn word(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// A short sentence that may be shown to any client.
            pub fn message(self) -> &'static str {
                match self { $(Reason::$name => $message,)* }
            }
        }
    };
}

reasons! {
    /// No credential stood in any configured place.
    CredentialMissing => "credential_missing", "no credential was sent";
    /// A credential was there, but is not of any form that can be verified.
    CredentialMalformed => "credential_malformed", "the credential is malformed";
    /// `exp` (plus leeway) has passed.
    TokenExpired => "token_expired", "token expired";
    /// `nbf` or `iat` lies in the future.
    TokenNotYetValid => "token_not_yet_valid", "token not yet valid";
    /// The signature does not verify under the key it names.
    SignatureInvalid => "signature_invalid", "invalid token signature";
    /// No key of the issuer has the token's `kid`.
    KeyUnknown => "key_unknown", "unknown signing key";
    /// What credentials are checked with is away: an issuer's keys were never fetched or are too old to be trusted,
    /// or a session store, introspection endpoint or call-out does not answer.
    KeysUnavailable => "keys_unavailable", "credentials cannot be checked now";
    /// The token's `alg` is not allowed for its issuer or key.
    AlgorithmNotAllowed => "algorithm_not_allowed", "token algorithm not allowed";
    /// `iss` is none of the configured issuers.
    IssuerUnknown => "issuer_unknown", "unknown token issuer";
    /// `aud` does not name this service.
    AudienceMismatch => "audience_mismatch", "token is for another audience";
    /// A claim is missing, of the wrong type, or not acceptable.
    ClaimRejected => "claim_rejected", "token claim not acceptable";
    /// The credential is good but belongs to somebody other than the session.
    SubjectMismatch => "subject_mismatch", "credential belongs to another subject";
    /// The right to be connected was revoked.
    Revoked => "revoked", "session revoked";
    /// The user logged out, at the identity provider or by the end of the session that opened it.
    LoggedOut => "logged_out", "logged out";
    /// An operator ended the session.
    Kicked => "kicked", "disconnected by an operator";
    /// The session reached `[session] max_lifetime`.
    MaxSession => "max_session", "maximum session lifetime reached";
    /// Nobody said anything for too long.
    Idle => "idle", "session idle for too long";
    /// No valid CONNECT came within `connect_deadline`.
    ConnectTimeout => "connect_timeout", "no valid CONNECT in time";
    /// The page's origin is not in `allowed_origins`.
    OriginNotAllowed => "origin_not_allowed", "origin not allowed";
    /// The namespace is not allowed for this identity.
    NamespaceForbidden => "namespace_forbidden", "namespace not allowed";
    /// The event is not allowed for this identity.
    EventForbidden => "event_forbidden", "event not allowed";
    /// Too many requests or packets in a time.
    RateLimited => "rate_limited", "too many requests";
    /// A limit on open sessions was reached.
    TooManyConnections => "too_many_connections", "too many connections";
    /// A message, body or frame is larger than allowed.
    PayloadTooLarge => "payload_too_large", "payload too large";
    /// The peer broke the WebSocket, Engine.IO or Socket.IO protocol.
    ProtocolError => "protocol_error", "protocol error";
    /// No backend could be reached.
    UpstreamUnavailable => "upstream_unavailable", "the server is unavailable";
    /// The backend answered, but not with a session.
    UpstreamRefused => "upstream_refused", "the server refused the connection";
    /// The gate is shutting down.
    Draining => "draining", "the server is restarting";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_fit_a_close_frame() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|r| r.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(words.iter().all(|w| w.len() <= 123), "RFC 6455 section 5.5");
    }
}
