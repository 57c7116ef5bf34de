//! What is done with each input, by the fuzzer and by `tests/corpus.rs`, which replays a small corpus on stable Rust.
//!
//! A target panics where a promise of the parser is broken; the promise stands above it.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;
use siogate::auth::callout::CalloutRules;
use siogate::auth::claims::HeaderMapping;
use siogate::auth::credential::{Found, Passed, Sources as Credentials};
use siogate::auth::events::{Transmitter, keys_of};
use siogate::auth::introspection::IntrospectionRules;
use siogate::auth::jose::{self, Algorithm, Compact};
use siogate::auth::keys::{KeySet, KeyStore};
use siogate::auth::revocation::{Kind, message};
use siogate::auth::rules::{IssuerRules, Material};
use siogate::auth::session_cookie::CookieSecrets;
use siogate::auth::stored::{MAX_SESSION, StoredRules};
use siogate::auth::verifier::Verifier;
use siogate::auth::vouch::Word;
use siogate::config::load::{self, Override, Sources};
use siogate::config::model::issuers::Issuer;
use siogate::config::model::revocation::{Logout, Transmitter as Signals};
use siogate::config::model::vouchers::{Callout, Introspection, SessionStore};
use siogate::listen::head::{self, Head, Whole};
use siogate::protocol::engineio::{Open, Packet, Version};
use siogate::protocol::forwarded;
use siogate::protocol::frame::{FrameError, Writer};
use siogate::protocol::handshake::Query;
use siogate::protocol::origin::{Decision, Origins};
use siogate::protocol::scanner::{Scanner, Stop, Watch};
use siogate::protocol::target::{self, Place};
use siogate::protocol::{payload, socketio};
use siogate::upstream::answer::{self, Answer};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

/// A target: a name, which is its folder in the corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("packet", packet),
    ("payload", payload),
    ("query", query),
    ("connect", connect),
    ("path", path),
    ("edge", edge),
    ("jwt", jwt),
    ("statement", statement),
    ("jwks", jwks),
    ("credential", credential),
    ("backend", backend),
    ("config", config),
    ("session", session),
    ("answer", answer),
    ("head", head),
];

const VERSIONS: [Version; 2] = [Version::V3, Version::V4];

/// The first bytes choose among variants; what follows is the input.
fn choices<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    let (first, rest) = data.split_first_chunk::<N>()?;
    Some((*first, rest))
}

/// What a scanner made of a stream.
#[derive(Default, PartialEq)]
struct Seen {
    passed: Vec<u8>,
    taken: Vec<Vec<u8>>,
    broken: Option<FrameError>,
    messages: u64,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?} {:02x?} {:?} {}", self.passed, self.taken, self.broken, self.messages)
    }
}

fn scan(mut scanner: Scanner, chunks: &mut dyn Iterator<Item = &[u8]>) -> Seen {
    let (mut seen, mut held) = (Seen::default(), Vec::new());
    for chunk in chunks {
        held.extend_from_slice(chunk);
        loop {
            let found = scanner.scan(&held);
            assert!(found.pass <= found.used && found.used <= held.len());
            seen.passed.extend_from_slice(&held[..found.pass]);
            held.drain(..found.used);
            match found.stop {
                Stop::End => assert!(held.is_empty(), "everything was looked at"),
                Stop::Partial => {}
                Stop::More => continue,
                Stop::Message(message) => {
                    seen.taken.push(message.data);
                    continue;
                }
                Stop::Broken(error) => {
                    seen.broken = Some(error);
                    return seen;
                }
            }
            break;
        }
    }
    seen.messages = scanner.messages();
    seen
}

/// A stream means the same however it is cut into reads.
pub fn frame(data: &[u8]) {
    let Some(([options, size], data)) = choices(data) else { return };
    let writer = if options & 1 == 0 { Writer::Client } else { Writer::Server };
    let watch = if options & 2 == 0 { Watch::SocketIo } else { Watch::Frames };
    let scanner = || Scanner::new(writer, watch, if options & 4 == 0 { 1_000_000 } else { 64 }, 0);
    let whole = scan(scanner(), &mut std::iter::once(data));
    let cut = scan(scanner(), &mut data.chunks(usize::from(size % 32) + 1));
    assert_eq!(whole, cut);
    assert!(whole.passed.len() <= data.len());
}

/// A packet that was read is written and read again as the same.
pub fn packet(data: &[u8]) {
    let Some(([options], data)) = choices(data) else { return };
    for version in VERSIONS {
        let Ok(packet) = Packet::from_ws(version, options & 1 == 0, Bytes::copy_from_slice(data)) else { continue };
        let (text, written) = packet.to_ws(version);
        assert_eq!(Packet::from_ws(version, text, written), Ok(packet.clone()));
        let _ = (packet.kind(), packet.body(), format!("{packet:?}"));
    }
    if let Ok(open) = Open::parse(data) {
        assert_eq!(Open::parse(&open.text().as_bytes()[1..]), Ok(open));
    }
}

/// A polling body that was read is written and read again as the same packets, and no longer than announced.
pub fn payload(data: &[u8]) {
    let Some(([options], data)) = choices(data) else { return };
    let binary = options & 1 != 0;
    for version in VERSIONS {
        let Ok(packets) = payload::decode(version, binary, Bytes::copy_from_slice(data), 1000) else { continue };
        assert!(!packets.is_empty() && packets.len() <= 1000);
        for b64 in [false, true] {
            let written = payload::encode(version, b64, &packets);
            let bound: usize = packets.iter().map(|p| payload::encoded_len(version, b64, p)).sum();
            assert!(written.body.len() <= bound);
            let octets = written.content_type == payload::OCTETS;
            assert_eq!(payload::decode(version, octets, written.body, 1000).as_deref(), Ok(packets.as_slice()));
        }
    }
}

/// The query for the backend is one that it reads as we do: no sid, no credential, the user's pairs in order.
pub fn query(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let Ok(query) = Query::parse(raw) else { return };
    let _ = (query.redacted(&["token"]), format!("{query:?}"));
    let onward =
        Query::parse(query.upstream("", &["token"]).trim_start_matches('?')).expect("our own query can be read");
    assert_eq!((onward.eio, onward.sid.as_deref(), onward.jsonp), (query.eio, None, false));
    assert!(onward.get_all("token").is_empty());
    assert_eq!(onward.get_all("x"), query.get_all("x"));
}

/// What goes to the backend in place of a CONNECT is one certain spelling of the same.
pub fn connect(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for version in VERSIONS {
        let Ok(connect) = socketio::parse_connect(version, text) else { continue };
        let written = connect.serialise(version);
        let again = socketio::parse_connect(version, written.strip_prefix('4').expect("an Engine.IO message"));
        assert_eq!(again.as_ref(), Ok(&connect));
        assert_eq!(again.map(|c| c.serialise(version)), Ok(written));
    }
    let _ = (socketio::head(data), socketio::parse_connected(text));
    assert!(text.contains(socketio::namespace_of(text)) || socketio::namespace_of(text) == socketio::ROOT);
}

/// No path that some backend could take for the Socket.IO path is passed on as an ordinary one.
pub fn path(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let Ok(Place::Other) = target::classify(raw, "/socket.io/") else { return };
    let decoded = percent_encoding::percent_decode(raw.as_bytes()).collect::<Vec<u8>>().to_ascii_lowercase();
    let rest = decoded.strip_prefix(b"/socket.io");
    assert!(rest.is_none_or(|rest| !matches!(rest.first(), None | Some(b'/'))), "{raw}");
    let mut segments = raw.split('/').skip(1);
    assert!(segments.all(|segment| segment != "." && segment != ".."), "{raw}");
}

/// `name: value` lines as headers.
fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

/// Nobody but a trusted proxy says where a client is, and no origin but a listed one is let in.
pub fn edge(data: &[u8]) {
    let headers = headers(data);
    let (peer, proxy) = (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let stranger = forwarded::resolve(peer, &trusted, &headers);
    assert_eq!((stranger.client, stranger.proto_https, stranger.host), (peer, None, None));
    let _ = forwarded::resolve(proxy, &trusted, &headers);
    let listed = Origins::parse(&["https://app.example.com".to_owned()]).expect("an origin");
    if let Decision::Allowed { acao } = listed.judge(&headers, "gate.example.com", false) {
        let acao = String::from_utf8_lossy(acao.as_bytes()).to_ascii_lowercase();
        assert!(acao == "https://app.example.com" || acao == "https://app.example.com:443", "{acao}");
    }
    let own = Origins::parse(&[]).expect("the same origin");
    let _ = own.judge(&headers, "gate.example.com", true);
}

const SECRET: &str = "a secret of the fuzzer: 64 bytes, as long as HS512 wants it to be";
const NOW: u64 = 1_700_000_000;

fn verifier() -> &'static Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let issuer = Issuer {
            secret_env: Some("SECRET".into()),
            audience: vec!["chat".into()],
            algorithms: vec!["HS256".into()],
            ..Issuer::default()
        };
        let material = Material::Secrets(vec![SecretString::from(SECRET)]);
        let built = IssuerRules::build(&issuer, &material).expect("good rules");
        let keys = KeyStore::new(1);
        keys.replace(0, built.keys.expect("a key"), NOW);
        Verifier::new(vec![built.rules], keys)
    })
}

/// A token that nobody signed is refused whatever it says; one that is signed (header and claims, divided by the
/// first line feed) is accepted only in its time and for its audience.
pub fn jwt(data: &[u8]) {
    if let Ok(token) = std::str::from_utf8(data) {
        let _ = Compact::parse(token);
        assert!(verifier().verify(token, NOW).is_err());
    }
    let _ = jose::object(data);
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(header), Some(claims)) = (parts.next(), parts.next()) else { return };
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), input.as_bytes());
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
    if let Ok(identity) = verifier().verify(&token, NOW) {
        assert!(identity.ends_at > NOW && !identity.subject.is_empty());
        let text = String::from_utf8_lossy(claims);
        assert!(text.contains("exp") || text.contains('\\'), "{text}");
    }
}

/// One issuer that may log out, by the shared secret, and a transmitter that speaks for it.
fn hearer() -> &'static Verifier {
    static HEARER: OnceLock<Verifier> = OnceLock::new();
    HEARER.get_or_init(|| {
        let logout = Logout { audience: vec!["client".into()], ..Logout::default() };
        let issuer = Issuer {
            issuer: Some("i".into()),
            secret_env: Some("SECRET".into()),
            algorithms: vec!["HS256".into()],
            logout: Some(logout),
            ..Issuer::default()
        };
        let signals = Signals {
            issuer: "t".into(),
            audience: vec!["gate".into()],
            algorithms: vec!["HS256".into()],
            speaks_for: vec!["i".into()],
            ..Signals::default()
        };
        let (keys, mut rules) = (KeyStore::new(2), Vec::new());
        let material = Material::Secrets(vec![SecretString::from(SECRET)]);
        for (index, section) in [issuer, keys_of(&signals)].iter().enumerate() {
            let built = IssuerRules::build(section, &material).expect("good rules");
            keys.replace(index, built.keys.expect("a key"), NOW);
            rules.push(built.rules);
        }
        let transmitter = Transmitter::new(&signals, rules.pop().expect("two"), None);
        Verifier::new(rules, keys).hearing(vec![transmitter])
    })
}

/// Claims that are signed as a logout token and as a security event withdraw no more than the issuer's own, and
/// nothing that is issued later; neither is ever a credential. What replicas tell each other is read back as it was.
pub fn statement(data: &[u8]) {
    for typ in ["logout+jwt", "secevent+jwt"] {
        let header = format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#);
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(data));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), input.as_bytes());
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
        let logout = hearer().logout(&token, 60, NOW).map(|logout| logout.revocations());
        let event = hearer().event(&token, None, 60, NOW).map(|news| news.revocations);
        assert!(hearer().verify(&token, NOW).is_err());
        for revocation in logout.into_iter().chain(event).flatten() {
            assert!(*revocation.issuer == *"i" && !revocation.value.is_empty());
            let forever = matches!(revocation.kind, Kind::Sid | Kind::Token);
            assert!(forever || revocation.not_before <= NOW + 300);
            let text = message::write(&revocation);
            assert_eq!(message::read(text.as_bytes(), NOW), Ok(revocation));
        }
    }
    if let Ok(revocation) = message::read(data, NOW) {
        let text = message::write(&revocation);
        assert_eq!(message::read(text.as_bytes(), NOW), Ok(revocation));
    }
}

/// A key set holds what is allowed or does not exist.
pub fn jwks(data: &[u8]) {
    let allowed = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
    if let Ok((set, _)) = KeySet::from_jwks(data, &allowed) {
        assert!(!set.is_empty());
    }
    let _ = KeySet::from_pem(data, &allowed);
}

fn credentials() -> &'static Credentials {
    static CREDENTIALS: OnceLock<Credentials> = OnceLock::new();
    CREDENTIALS.get_or_init(|| {
        let places = [
            "auth:token",
            "auth:user.token",
            "header:authorization",
            "header:x-token",
            "cookie:token",
            "subprotocol:jwt",
        ];
        Credentials::parse(&places).expect("good places")
    })
}

/// Behind the gate no credential is left where one was looked for.
pub fn credential(data: &[u8]) {
    let headers = headers(data);
    let _ = credentials().in_request(&headers, |_| Vec::new());
    let mut rest = HeaderMap::new();
    credentials().without_credentials(&headers, Passed::None, |name, value| {
        rest.append(name, value.clone());
    });
    let left = credentials().in_request(&rest, |_| Vec::new());
    assert!(!matches!(left, Found::Token { .. }), "{left:?}");
    if let Ok(mut payload) = jose::object(data) {
        let _ = credentials().in_connect(Some(&payload));
        credentials().strip_connect(&mut payload, Passed::None);
        assert!(matches!(credentials().in_connect(Some(&payload)), Found::None));
    }
}

/// No tunnel without the one right accept key.
pub fn backend(data: &[u8]) {
    const KEY: &[u8; 24] = b"dGhlIHNhbXBsZSBub25jZQ==";
    let accept = answer::accept_for(KEY);
    match answer::read(data, &accept, &["chat".to_owned()]) {
        Ok(Answer::Switched { len, protocol, .. }) => {
            assert!(len <= data.len() && data.windows(accept.len()).any(|window| window == accept));
            assert!(protocol.is_none_or(|protocol| protocol == "chat"));
        }
        Ok(Answer::Interim { len } | Answer::Refused { len, .. }) => assert!(len <= data.len()),
        Ok(Answer::Incomplete) | Err(_) => {}
    }
}

/// A configuration is good, or every problem is named: never neither, and no secret is repeated.
pub fn config(data: &[u8]) {
    const VALUE: &str = "the-secret-value-that-nobody-may-see";
    let Ok(text) = std::str::from_utf8(data) else { return };
    let pairs = || text.lines().filter_map(|line| line.split_once('='));
    // Files of the fuzzer's choice are not opened.
    let safe = |line: &(&str, &str)| {
        let names_a_file = |text: &str| ["file", "tls", "cert", "\\"].iter().any(|word| text.contains(word));
        !names_a_file(&line.0.to_ascii_lowercase()) && !names_a_file(&line.1.to_ascii_lowercase())
    };
    let mut env: BTreeMap<String, std::ffi::OsString> = BTreeMap::new();
    env.insert("SECRET".into(), VALUE.into());
    let overrides = pairs()
        .filter(safe)
        .map(|(key, value)| Override { flag: "--set".into(), key: key.into(), value: value.into() })
        .chain([Override { flag: "--set".into(), key: "issuer[0].secret_env".into(), value: "SECRET".into() }])
        .collect();
    for (key, value) in pairs().filter(safe) {
        env.insert(format!("SIOGATE_{key}"), value.into());
    }
    match load::load(&Sources { file: None, env, overrides }) {
        Ok(loaded) => assert!(!loaded.config.upstream.urls.is_empty()),
        Err(problems) => {
            assert!(!problems.errors.is_empty());
            assert!(!problems.to_string().contains(VALUE));
        }
    }
}

fn all_claims() -> HeaderMapping {
    HeaderMapping::compile([("x-auth-email", "email")], &["role"]).expect("a good mapping")
}

/// A cookie opens by its one signature only, and to an id that is fit for a key; a stored session is a user with a
/// name, or nobody.
pub fn session(data: &[u8]) {
    const SECRET: &str = "keyboard cat of at least 32 bytes!!";
    if let Ok(cookie) = std::str::from_utf8(data)
        && let Ok(opened) = CookieSecrets::new(&["another".into(), SECRET.into()]).open(cookie)
    {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = STANDARD_NO_PAD.encode(hmac::sign(&key, opened.id.as_bytes()));
        let plain = percent_encoding::percent_decode_str(cookie).decode_utf8_lossy();
        assert_eq!(plain, format!("s:{}.{signature}", opened.id));
        assert!(opened.secret == 1 && opened.id.len() <= 256 && opened.id.bytes().all(|b| b.is_ascii_graphic()));
    }
    let rules = StoredRules::new(&SessionStore::default(), &all_claims());
    if let Ok(Some(identity)) = rules.judge(data, None, 1_700_000_000) {
        assert!(data.len() <= MAX_SESSION && data.first() == Some(&b'{'));
        assert!((1..=1024).contains(&identity.subject.len()));
    }
}

/// Nobody comes in by an answer that does not say so, and nobody without a name or behind his end.
pub fn answer(data: &[u8]) {
    const NOW: u64 = 1_700_000_000;
    let Some(([low, high], body)) = choices::<2>(data) else { return };
    let status = 100 + u16::from_le_bytes([low, high]) % 500;
    let introspection = IntrospectionRules::new(&Introspection::default(), &all_claims());
    if let Word::Yes(identity) = introspection.judge(status, body, NOW) {
        assert!(status == 200 && identity.ends_at > NOW && (1..=1024).contains(&identity.subject.len()));
        assert!(body.windows(4).any(|window| window == b"true"));
    }
    let callout = CalloutRules::new(&Callout::default(), &all_claims());
    match callout.judge(status, &HeaderMap::new(), body, None, NOW) {
        Word::Yes(identity) => {
            assert!((200..300).contains(&status) && identity.expires_at > NOW);
            assert!((1..=1024).contains(&identity.subject.len()));
        }
        Word::No(_) => assert!(matches!(status, 200..=299 | 401 | 403)),
        Word::Unclear(_) => {}
    }
}

/// A request is read whole or not at all, and as the same one whatever stands behind it.
pub fn head(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Head::Whole(first) = head::parse(&bytes) else { return };
    assert!(first.len <= data.len());
    let Head::Whole(alone) = head::parse(&bytes.slice(..first.len)) else { panic!("it needs what is not its own") };
    let shown = |read: &Whole| format!("{:?} {} {} {}", read.request, read.len, read.upgrade, read.close);
    assert_eq!(shown(&first), shown(&alone));
    let less = bytes.slice(..first.len.saturating_sub(1));
    assert!(!matches!(head::parse(&less), Head::Whole(_)), "a part of it is a request too");
    let headers = first.request.headers();
    assert!(!headers.contains_key("transfer-encoding") && headers.get_all("content-length").iter().count() <= 1);
    assert!(first.request.uri().path().starts_with('/'));
}
