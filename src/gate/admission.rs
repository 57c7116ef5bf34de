//! Judges the Socket.IO packets that matter: CONNECT, DISCONNECT and what the backend says to them.
//!
//! One session has one user. The first valid credential fixes it (in the handshake, or in the first
//! CONNECT); every further namespace passes with it, or with a token of the same user.

use crate::auth::credential::{Found, Passed, Sources};
use crate::auth::identity::Identity;
use crate::protocol::engineio::Version;
use crate::protocol::socketio::{self, Connect, SioKind};
use crate::reason::Reason;
use secrecy::SecretString;
use std::sync::Arc;

/// Namespaces that one session may join.
pub const MAX_NAMESPACES: usize = 256;

/// Bytes of a namespace's name: as many names as are joined are kept.
pub const MAX_NAME: usize = 1024;

/// Refused CONNECTs after which a session is closed.
pub const MAX_REFUSALS: u8 = 10;

/// Who a session belongs to: issuer and subject, nothing else of the token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// The issuer that vouched.
    pub issuer: Arc<str>,
    /// The subject.
    pub subject: Arc<str>,
}

impl User {
    /// The user of a verified token.
    pub fn of(identity: &Identity) -> User {
        User { issuer: identity.issuer.clone(), subject: identity.subject.clone() }
    }
}

/// What stays the same for all sessions.
pub struct Rules {
    /// Where credentials may stand.
    pub sources: Sources,
    /// Pass a credential that was verified on to the backend.
    pub forward: bool,
}

impl Rules {
    /// What goes on where the credential in this place was verified, or none was.
    pub fn passed(&self, verified: Option<usize>) -> Passed {
        verified.filter(|_| self.forward).map_or(Passed::None, Passed::Verified)
    }
}

/// What to do with a packet of the client.
pub enum Verdict {
    /// Pass it on as it came.
    Forward,
    /// Pass this packet on in its place.
    Replace(String),
    /// Send this packet to the client and nothing to the backend.
    Answer(String),
    /// Verify the token, then call [`Admission::judged`].
    Judge(Box<Judgement>),
    /// End the session.
    Close(Reason),
}

/// A CONNECT that waits for its token to be verified.
pub struct Judgement {
    /// The packet.
    pub connect: Connect,
    /// Its token.
    pub token: SecretString,
    /// Where that stood.
    pub source: usize,
}

/// A namespace, as the packets of both sides have left it.
///
/// They cross: what the backend says while a CONNECT is on its way to it is about the time before that. A backend
/// answers each CONNECT once, in order, before it says anything else of that namespace.
#[derive(Clone, Copy, Default)]
struct State {
    /// CONNECTs that the backend has not answered yet.
    asked: u16,
    /// The client is in it, or waits to be.
    wanted: bool,
    /// The backend agreed.
    joined: bool,
}

impl State {
    const JOINED: State = State { asked: 0, wanted: true, joined: true };

    fn is_over(self) -> bool {
        self.asked == 0 && !self.wanted
    }

    fn leave(&mut self) {
        (self.wanted, self.joined) = (false, false);
    }

    /// `None`: there are too many that nobody has answered.
    fn ask(&mut self) -> Option<()> {
        self.asked = self.asked.checked_add(1)?;
        self.wanted = true;
        Some(())
    }

    fn accepted(&mut self) {
        if self.asked > 0 {
            self.asked -= 1;
            self.joined = self.asked == 0 && self.wanted;
        }
    }

    fn refused(&mut self, version: Version) {
        match self.asked {
            // Protocol 3: an error of the application's. Protocol 4: the client takes it for the end.
            0 if version == Version::V3 => {}
            0 | 1 => {
                self.asked = 0;
                self.leave();
            }
            _ => self.asked -= 1,
        }
    }

    fn ended(&mut self) {
        if self.asked == 0 {
            self.leave();
        }
    }
}

/// One session's namespaces and its user.
pub struct Admission {
    version: Version,
    user: Option<User>,
    fallback: Reason,
    refusals: u8,
    refused: Option<Reason>,
    root: State,
    others: Vec<(Box<str>, State)>,
}

/// Says whether a recovery id was given to this user by the backend.
pub type OwnsPid<'a> = &'a dyn Fn(&str, &User) -> bool;

impl Admission {
    /// A session whose handshake carried a valid credential.
    pub fn with_user(version: Version, user: User) -> Self {
        // Protocol 3 joins "/" without being asked (protocol notes, section 6).
        let root = if version == Version::V3 { State::JOINED } else { State::default() };
        Self {
            version,
            user: Some(user),
            fallback: Reason::CredentialMissing,
            refusals: 0,
            refused: None,
            root,
            others: Vec::new(),
        }
    }

    /// A session that has to show a credential in its CONNECT; without one it is refused with `fallback`.
    pub fn without_user(version: Version, fallback: Reason) -> Self {
        Self { version, user: None, fallback, refusals: 0, refused: None, root: State::default(), others: Vec::new() }
    }

    /// The session's user, once known.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Why a CONNECT was refused last.
    pub fn refused(&self) -> Option<Reason> {
        self.refused
    }

    /// Judges what the client wrote after the Engine.IO type `4`.
    pub fn from_client(&mut self, text: &str, rules: &Rules, owns: OwnsPid<'_>) -> Verdict {
        match socketio::head(text.as_bytes()).map(|head| head.kind) {
            Some(SioKind::Connect) => self.connect(text, rules, owns),
            // What clients do not write may be a CONNECT to some server.
            None => Verdict::Close(Reason::ProtocolError),
            Some(_) if self.user.is_none() => Verdict::Close(Reason::ProtocolError),
            Some(SioKind::Disconnect) => match socketio::parse_disconnect(text) {
                Some(namespace) => {
                    self.change(namespace, State::leave);
                    Verdict::Forward
                }
                None => Verdict::Close(Reason::ProtocolError),
            },
            Some(_) => Verdict::Forward,
        }
    }

    fn connect(&mut self, text: &str, rules: &Rules, owns: OwnsPid<'_>) -> Verdict {
        let Ok(connect) = socketio::parse_connect(self.version, text) else {
            return Verdict::Close(Reason::ProtocolError);
        };
        if connect.namespace.len() > MAX_NAME {
            return Verdict::Close(Reason::ProtocolError);
        }
        // A second CONNECT would give the backend a second socket with another payload.
        let state = self.state(&connect.namespace);
        if state.is_some_and(|state| state.wanted) {
            return Verdict::Close(Reason::ProtocolError);
        }
        if state.is_none() && self.others.len() >= MAX_NAMESPACES {
            return self.refuse(&connect.namespace, Reason::NamespaceForbidden);
        }
        let found = match (&connect.query, rules.forward) {
            // Protocol 3 has no payload. One that does not go on need not be looked at.
            (Some(query), true) => rules.sources.in_query(|name| values(query, name)),
            _ => rules.sources.in_connect(connect.data.as_ref()),
        };
        match found {
            Found::Token { token, source, .. } => Verdict::Judge(Box::new(Judgement { connect, token, source })),
            Found::Malformed { .. } => self.refuse(&connect.namespace, Reason::CredentialMalformed),
            Found::None if self.user.is_some() => self.admit(connect, None, rules, owns),
            Found::None => self.refuse(&connect.namespace, self.fallback),
        }
    }

    /// The verifier's answer to a [`Verdict::Judge`].
    pub fn judged(
        &mut self,
        judgement: Judgement,
        answer: Result<&Identity, Reason>,
        rules: &Rules,
        owns: OwnsPid<'_>,
    ) -> Verdict {
        let Judgement { connect, source, .. } = judgement;
        let user = match answer {
            Ok(identity) => User::of(identity),
            // Nobody's fault but ours: end the transport, so that stock clients try again.
            Err(Reason::KeysUnavailable) => return Verdict::Close(Reason::KeysUnavailable),
            Err(reason) => return self.refuse(&connect.namespace, reason),
        };
        match &self.user {
            Some(known) if *known != user => return self.refuse(&connect.namespace, Reason::SubjectMismatch),
            Some(_) => {}
            None => self.user = Some(user),
        }
        self.admit(connect, Some(source), rules, owns)
    }

    fn admit(&mut self, mut connect: Connect, verified: Option<usize>, rules: &Rules, owns: OwnsPid<'_>) -> Verdict {
        let passed = rules.passed(verified);
        if let Some(data) = &mut connect.data {
            rules.sources.strip_connect(data, passed);
            // Recovery does not look at identity at the backend: a foreign pid would hand over
            // somebody else's rooms and data.
            let pid = data.get("pid").and_then(|pid| pid.as_str());
            let own = pid.zip(self.user.as_ref()).is_some_and(|(pid, user)| owns(pid, user));
            if !own {
                data.remove("pid");
                data.remove("offset");
            }
        }
        let withheld: Vec<_> = rules.sources.query_names_withheld(passed).collect();
        connect.query = connect.query.take().and_then(|query| without(&query, &withheld));
        if connect.namespace != socketio::ROOT && self.state(&connect.namespace).is_none() {
            self.others.push((connect.namespace.as_str().into(), State::default()));
        }
        match self.change(&connect.namespace, State::ask) {
            Some(Some(())) => Verdict::Replace(connect.serialise(self.version)),
            _ => Verdict::Close(Reason::ProtocolError),
        }
    }

    fn refuse(&mut self, namespace: &str, reason: Reason) -> Verdict {
        self.refusals = self.refusals.saturating_add(1);
        self.refused = Some(reason);
        if self.refusals > MAX_REFUSALS {
            return Verdict::Close(reason);
        }
        Verdict::Answer(socketio::connect_error(self.version, namespace, reason.message(), reason.word()))
    }

    /// Looks at what the backend wrote after the `4`; returns a recovery id that it gave out.
    pub fn from_server(&mut self, text: &str) -> Option<String> {
        match text.as_bytes().first()? {
            b'0' => {
                let (namespace, _, pid) = socketio::parse_connected(text)?;
                // The backend cannot connect what the client did not ask for.
                self.change(&namespace, State::accepted);
                pid
            }
            b'1' => {
                self.change(socketio::namespace_of(text), State::ended);
                None
            }
            b'4' => {
                let version = self.version;
                self.change(socketio::namespace_of(text), |state| state.refused(version));
                None
            }
            _ => None,
        }
    }

    /// DISCONNECT packets for every namespace that the client believes it is in.
    pub fn disconnects(&self) -> Vec<String> {
        let root = self.root.wanted.then(|| socketio::disconnect(socketio::ROOT));
        let others = self.others.iter().filter(|(_, state)| state.wanted);
        others.map(|(namespace, _)| socketio::disconnect(namespace)).chain(root).collect()
    }

    /// The namespaces that the client is in.
    pub fn joined(&self) -> impl Iterator<Item = &str> {
        let root = self.root.joined.then_some(socketio::ROOT);
        let others = self.others.iter().filter(|(_, state)| state.joined);
        root.into_iter().chain(others.map(|(namespace, _)| &**namespace))
    }

    /// `None`: of no interest yet, or no more.
    fn state(&self, namespace: &str) -> Option<State> {
        match namespace {
            socketio::ROOT => Some(self.root),
            _ => self.others.iter().find(|(n, _)| **n == *namespace).map(|(_, s)| *s),
        }
    }

    /// Changes a namespace's state, where it has one.
    fn change<T>(&mut self, namespace: &str, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        if namespace == socketio::ROOT {
            return Some(change(&mut self.root));
        }
        let at = self.others.iter().position(|(n, _)| **n == *namespace)?;
        let state = self.others.get_mut(at).map(|(_, state)| state)?;
        let outcome = change(state);
        if state.is_over() {
            self.others.swap_remove(at);
        }
        Some(outcome)
    }
}

/// The decoded values of one parameter of a query.
fn values(query: &str, name: &str) -> Vec<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(this, _)| decode(this) == name).map(|(_, value)| decode(value)).collect()
}

/// Removes the named parameters from a query; `None` where nothing is left.
fn without(query: &str, names: &[&str]) -> Option<String> {
    let stays = |pair: &&str| {
        let name = decode(pair.split_once('=').map_or(*pair, |(name, _)| name));
        !names.contains(&name.as_str())
    };
    let kept: Vec<&str> = query.split('&').filter(stays).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests;
