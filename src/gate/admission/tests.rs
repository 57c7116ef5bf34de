//! What a session may say before and after its user is known, packet by packet.

mod crossing;
mod namespaces;
mod payloads;
mod users;

use super::*;
use crate::auth::identity::Identity;
use secrecy::ExposeSecret;

fn rules(forward: bool) -> Rules {
    let sources = Sources::parse(&["auth:token", "query:token", "query:key"]).unwrap();
    Rules { sources, forward }
}

fn user(subject: &str) -> User {
    User { issuer: "idp".into(), subject: subject.into() }
}

fn identity(issuer: &str, subject: &str) -> Identity {
    Identity {
        issuer: issuer.into(),
        subject: subject.into(),
        expires_at: 10,
        ends_at: 15,
        jti: None,
        session: None,
        issued_at: None,
        claims: Default::default(),
        hold: None,
    }
}

fn nobodys(_: &str, _: &User) -> bool {
    false
}

/// What a verdict says, in short.
#[derive(Debug, PartialEq)]
enum Said {
    Forward,
    Replace(String),
    Answer(String),
    Judge(String),
    Close(Reason),
}

fn said(verdict: Verdict) -> Said {
    match verdict {
        Verdict::Forward => Said::Forward,
        Verdict::Replace(text) => Said::Replace(text),
        Verdict::Answer(text) => Said::Answer(text),
        Verdict::Judge(judgement) => Said::Judge(judgement.token.expose_secret().into()),
        Verdict::Close(reason) => Said::Close(reason),
    }
}

fn replace(text: &str) -> Said {
    Said::Replace(text.into())
}

fn refusal(namespace: &str, reason: Reason) -> Said {
    Said::Answer(socketio::connect_error(Version::V4, namespace, reason.message(), reason.word()))
}

/// A session whose tokens are `good:<subject>` or anything else, and bad.
struct Session {
    admission: Admission,
    rules: Rules,
}

impl Session {
    fn new(admission: Admission) -> Self {
        Self { admission, rules: rules(false) }
    }

    fn stranger() -> Self {
        Self::new(Admission::without_user(Version::V4, Reason::CredentialMissing))
    }

    fn of(subject: &str) -> Self {
        Self::new(Admission::with_user(Version::V4, user(subject)))
    }

    fn of_v3(subject: &str) -> Self {
        Self::new(Admission::with_user(Version::V3, user(subject)))
    }

    /// The client's packet up to the verifier.
    fn first(&mut self, text: &str) -> Said {
        said(self.admission.from_client(text, &self.rules, &nobodys))
    }

    /// The client's packet, verified where it asks for that.
    fn client(&mut self, text: &str) -> Said {
        self.client_owning(text, &nobodys)
    }

    fn client_owning(&mut self, text: &str, owns: OwnsPid<'_>) -> Said {
        let verdict = self.admission.from_client(text, &self.rules, owns);
        let Verdict::Judge(judgement) = verdict else { return said(verdict) };
        let answer = match judgement.token.expose_secret().strip_prefix("good:") {
            Some(subject) => Ok(identity("idp", subject)),
            None => Err(Reason::SignatureInvalid),
        };
        let answer = answer.as_ref().map_err(|reason| *reason);
        said(self.admission.judged(*judgement, answer, &self.rules, owns))
    }

    fn server(&mut self, text: &str) -> Option<String> {
        self.admission.from_server(text)
    }

    fn subject(&self) -> Option<&str> {
        self.admission.user().map(|user| &*user.subject)
    }
}
