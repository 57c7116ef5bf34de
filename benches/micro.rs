//! The hot functions on their own.
//!
//! ```text
//! cargo bench --bench micro                                          all of them
//! cargo bench --bench micro -- verify                                those with that in their name
//! cargo test --bench micro                                           each once, as every `cargo test` does
//! ```

#![allow(clippy::unwrap_used)]

mod inputs;

use crate::inputs::{Minted, NOW, event, mapping, packets, traffic};
use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use jsonwebtoken::Algorithm;
use siogate::auth::identity::Identity;
use siogate::auth::revocation::{Kind, Revocation};
use siogate::gate::admission::User;
use siogate::gate::engine::{Engine, Start};
use siogate::protocol::engineio::{Packet, Version};
use siogate::protocol::frame::{self, Opcode, Writer};
use siogate::protocol::handshake::Query;
use siogate::protocol::scanner::{Scanner, Watch};
use siogate::protocol::{payload, socketio};
use siogate::reason::Reason;
use siogate::session::deadlines::End;
use siogate::session::registry::revoke::{Card, SLICES};
use siogate::session::registry::{Capacity, Newcomer, Registry, Stay};
use std::time::{Duration, Instant};

fn main() {
    divan::main();
}

fn scan(bencher: Bencher, size: usize, writer: Writer) {
    let wire = traffic(size, writer);
    let mut scanner = Scanner::new(writer, Watch::SocketIo, 1_000_000, 0);
    bencher
        .counter(BytesCount::new(wire.len()))
        .counter(ItemsCount::new((65_536 / size).max(1)))
        .bench_local(|| assert_eq!(scanner.scan(black_box(&wire)).pass, wire.len()));
}

#[divan::bench(args = [64, 1024, 65_536])]
fn scan_client_frames(bencher: Bencher, size: usize) {
    scan(bencher, size, Writer::Client);
}

#[divan::bench(args = [64, 1024, 65_536])]
fn scan_server_frames(bencher: Bencher, size: usize) {
    scan(bencher, size, Writer::Server);
}

#[divan::bench(args = [64, 65_536])]
fn encode_masked_frame(bencher: Bencher, size: usize) {
    let (message, mut out) = (event(size), Vec::new());
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        out.clear();
        frame::encode(&mut out, Opcode::Text, black_box(message.as_bytes()), Some([1, 2, 3, 4]));
    });
}

#[divan::bench(args = [Version::V4, Version::V3])]
fn payload_encode(bencher: Bencher, version: &Version) {
    let packets = packets();
    bencher.counter(ItemsCount::new(10_usize)).bench(|| payload::encode(*version, false, black_box(&packets)));
}

#[divan::bench(args = [Version::V4, Version::V3])]
fn payload_decode(bencher: Bencher, version: &Version) {
    let body = payload::encode(*version, false, &packets()).body;
    bencher
        .counter(ItemsCount::new(10_usize))
        .bench(|| payload::decode(*version, false, black_box(body.clone()), 100).unwrap());
}

#[divan::bench]
fn query_parse() -> Query {
    Query::parse(black_box("EIO=4&transport=polling&t=PdQ2x1a&sid=lv_VI97HAXpY6yYWAAAC")).unwrap()
}

#[divan::bench]
fn query_parse_with_token(bencher: Bencher) {
    let raw = format!("EIO=4&transport=websocket&token={}", Minted::rsa().token);
    bencher.bench(|| Query::parse(black_box(&raw)).unwrap());
}

#[divan::bench]
fn parse_connect(bencher: Bencher) {
    let text = format!("0{{\"token\":\"{}\"}}", Minted::rsa().token);
    bencher.bench(|| socketio::parse_connect(Version::V4, black_box(&text)).unwrap());
}

#[divan::bench]
fn parse_connect_without_data() -> socketio::Connect {
    socketio::parse_connect(Version::V4, black_box("0/admin,")).unwrap()
}

fn verify(bencher: Bencher, minted: &Minted) {
    bencher.bench(|| minted.verifier.verify(black_box(&minted.token), NOW).unwrap());
}

#[divan::bench]
fn verify_rs256(bencher: Bencher) {
    verify(bencher, &Minted::rsa());
}

#[divan::bench]
fn verify_es256(bencher: Bencher) {
    verify(bencher, &Minted::asymmetric(&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256));
}

#[divan::bench]
fn verify_eddsa(bencher: Bencher) {
    verify(bencher, &Minted::asymmetric(&rcgen::PKCS_ED25519, Algorithm::EdDSA));
}

#[divan::bench]
fn verify_hs256(bencher: Bencher) {
    verify(bencher, &Minted::secret());
}

/// A flood of tokens whose signature is wrong must not cost more than good ones.
#[divan::bench]
fn verify_rs256_tampered(bencher: Bencher) {
    let minted = Minted::rsa();
    let (message, signature) = minted.token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let token = format!("{message}.{first}{}", &signature[1..]);
    bencher.bench(|| minted.verifier.verify(black_box(&token), NOW).unwrap_err());
}

#[divan::bench]
fn identity_headers(bencher: Bencher) {
    let minted = Minted::secret();
    let identity = minted.verifier.verify(&minted.token, NOW).unwrap();
    let mapping = mapping();
    bencher.bench(|| mapping.headers(black_box(&identity), "lv_VI97HAXpY6yYWAAAC"));
}

/// A message for a client that polls: GET held, packet sent, GET answered.
#[divan::bench]
fn engine_get(bencher: Bencher) {
    let mut engine = Engine::new(Version::V4, false, Start::Polling, 1_000_000);
    let (now, packet) = (Instant::now(), Packet::text(event(64)));
    bencher.bench_local(|| {
        engine.get(now, 1);
        engine.send(black_box(packet.clone()));
        engine.effect().unwrap()
    });
}

/// A POST with ten events, decoded before.
#[divan::bench]
fn engine_post(bencher: Bencher) {
    let mut engine = Engine::new(Version::V4, false, Start::Polling, 1_000_000);
    let packets = packets();
    bencher.counter(ItemsCount::new(10_usize)).bench_local(|| {
        engine.post(Some(black_box(packets.clone())));
        while let Some(effect) = engine.effect() {
            black_box(effect);
        }
    });
}

/// The same for a client on its WebSocket, as before the relay takes over.
#[divan::bench]
fn engine_websocket(bencher: Bencher) {
    let mut engine = Engine::new(Version::V4, false, Start::Websocket, 1_000_000);
    let data = Bytes::from(event(64));
    bencher.bench_local(|| {
        engine.websocket(Packet::from_ws(Version::V4, true, black_box(data.clone())).ok());
        engine.effect().unwrap()
    });
}

/// Everybody inside: each a user of its own, with a token that has a name.
fn inside(sessions: usize) -> (Registry, Vec<Stay>) {
    let registry = Registry::new(Capacity { sessions, unauthenticated: sessions, unauthenticated_per_ip: sessions });
    let minted = Minted::secret();
    let known = minted.verifier.verify(&minted.token, NOW).unwrap();
    let end = End::of(Instant::now(), NOW * 1000, known.ends_at, Duration::from_secs(3600));
    let enter = |n: usize| {
        let sid = format!("{n:020}");
        let newcomer = Newcomer {
            sid: &sid,
            version: Version::V4,
            b64: false,
            credential: None,
            mailbox: None,
            card: Card::new(sid.as_str().into(), [192, 0, 2, 1].into(), NOW),
            waits: None,
        };
        let mut stay = registry.enter(newcomer).unwrap();
        let identity = Identity {
            subject: format!("user-{n}").into(),
            issuer: known.issuer.to_string().into(),
            jti: Some(format!("token-{n}").into()),
            ..known.clone()
        };
        stay.admit(User::of(&identity), end);
        registry.trace(stay.entry(), &identity, end.wall_ms / 1000);
        stay
    };
    let stays = (0..sessions).map(enter).collect();
    (registry, stays)
}

/// Every session is looked at, once for all revocations that have come.
#[divan::bench(args = [1, 1000], sample_count = 20)]
fn revoke_among_100000(bencher: Bencher, revocations: usize) {
    let (registry, _stays) = inside(100_000);
    let issuer = registry.page(0, 1, |_| true)[0].user.as_ref().unwrap().issuer.clone();
    let subjects = (100_000..).map(|n| format!("user-{n}").into());
    let (kind, reason) = (Kind::Subject, Reason::Revoked);
    let revocation =
        |value| Revocation { kind, issuer: issuer.clone(), value, not_before: NOW, until: NOW + 3600, reason };
    let all: Vec<_> = subjects.take(revocations).map(revocation).collect();
    bencher.bench(|| {
        let mut sought = registry.seek(black_box(all.clone()));
        (0..SLICES).for_each(|slice| registry.revoke(&mut sought, slice));
    });
}
