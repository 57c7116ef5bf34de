//! How many instructions the hot functions take, as callgrind counts them: a figure that does not depend on what else
//! the machine does.
//!
//! ```text
//! cargo bench --bench instructions
//! ```
//!
//! valgrind counts each function in a process of its own: once with 20 calls and once with 40, and the difference is
//! what 20 calls take. Where it is not installed there is nothing to see.

#![allow(clippy::unwrap_used)]

mod inputs;

use crate::inputs::{Minted, NOW, event, mapping, packets, traffic};
use aws_lc_rs::digest::{SHA256, digest};
use siogate::auth::cache::Fingerprint;
use siogate::auth::credential::Sources;
use siogate::cli::logging;
use siogate::config::model::Config;
use siogate::gate::admission::{Admission, Rules};
use siogate::protocol::engineio::Version;
use siogate::protocol::frame::{self, Opcode, Writer};
use siogate::protocol::handshake::Query;
use siogate::protocol::scanner::{Scanner, Watch};
use siogate::protocol::{payload, socketio};
use siogate::reason::Reason;
use siogate::telemetry::access::Record;
use siogate::telemetry::metrics::Metrics;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

/// As in the gate itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CALLS: u64 = 20;

/// A function, with what it is given made before it is counted.
type Case = (&'static str, fn() -> Box<dyn FnMut()>);

const CASES: [Case; 15] = [
    ("scanner, 64 client frames of 64 B", || scan(64, 64, Writer::Client)),
    ("scanner, 64 backend frames of 64 B", || scan(64, 64, Writer::Server)),
    ("scanner, one client frame of 64 KiB", || scan(1, 65_536, Writer::Client)),
    ("encode and mask a frame of 64 B", || {
        let (message, mut out) = (event(64), Vec::new());
        Box::new(move || {
            out.clear();
            frame::encode(&mut out, Opcode::Text, black_box(message.as_bytes()), Some([1, 2, 3, 4]));
        })
    }),
    ("payload of 10 events, decode", || {
        let body = payload::encode(Version::V4, false, &packets()).body;
        Box::new(move || drop(black_box(payload::decode(Version::V4, false, body.clone(), 100))))
    }),
    ("payload of 10 events, encode", || {
        let packets = packets();
        Box::new(move || drop(black_box(payload::encode(Version::V4, false, black_box(&packets)))))
    }),
    ("Engine.IO query of a poll", || {
        Box::new(|| drop(Query::parse(black_box("EIO=4&transport=polling&t=PdQ2x1a&sid=lv_VI97HAXpY6yYWAAAC"))))
    }),
    ("Engine.IO query with a token", || {
        let raw = format!("EIO=4&transport=websocket&token={}", Minted::secret().token);
        Box::new(move || drop(Query::parse(black_box(&raw))))
    }),
    ("CONNECT with a token, parse", || {
        let text = format!("0{{\"token\":\"{}\"}}", Minted::secret().token);
        Box::new(move || drop(socketio::parse_connect(Version::V4, black_box(&text))))
    }),
    ("CONNECT with a token, judge", || {
        let text = format!("0{{\"token\":\"{}\"}}", Minted::secret().token);
        let sources = Config::default().credentials.sources;
        let sources = Sources::parse(&sources).unwrap();
        let rules = Rules { sources, forward: false };
        Box::new(move || {
            let mut admission = Admission::without_user(Version::V4, Reason::CredentialMissing);
            drop(black_box(admission.from_client(black_box(&text), &rules, &|_, _| false)));
        })
    }),
    ("verify RS256", || {
        let minted = Minted::rsa();
        Box::new(move || drop(minted.verifier.verify(black_box(&minted.token), NOW).unwrap()))
    }),
    ("verify RS256, the same token again", || {
        let minted = Minted::rsa();
        Box::new(move || {
            let print = Fingerprint::try_from(digest(&SHA256, minted.token.as_bytes()).as_ref()).unwrap();
            drop(minted.verifier.verify_again(black_box(&minted.token), &print, NOW).unwrap());
        })
    }),
    ("verify HS256", || {
        let minted = Minted::secret();
        Box::new(move || drop(minted.verifier.verify(black_box(&minted.token), NOW).unwrap()))
    }),
    ("identity headers, seven of them", || {
        let minted = Minted::secret();
        let identity = minted.verifier.verify(&minted.token, NOW).unwrap();
        let mapping = mapping();
        Box::new(move || drop(mapping.headers(black_box(&identity), "lv_VI97HAXpY6yYWAAAC")))
    }),
    ("the record of a session, as JSON", || {
        let log = logging::subscriber(&Config::default().log, std::io::sink, false).unwrap();
        tracing::subscriber::set_global_default(log).unwrap();
        let metrics = Arc::new(Metrics::default());
        Box::new(move || {
            let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let mut record = Record::begin(metrics.clone(), "5b1946ac92492d23".into(), client, "websocket");
            record.subject = Some("user-000123".into());
        })
    }),
];

fn scan(frames: usize, size: usize, writer: Writer) -> Box<dyn FnMut()> {
    let wire = traffic(size, writer);
    let end = wire.len() / (65_536 / size).max(1) * frames;
    let mut scanner = Scanner::new(writer, Watch::SocketIo, 1_000_000, 0);
    Box::new(move || assert_eq!(scanner.scan(black_box(&wire[..end])).pass, end))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, case, calls] = arguments.as_slice()
        && word == "count"
    {
        let (case, calls): (usize, u64) = (case.parse().unwrap(), calls.parse().unwrap());
        counted(&mut *CASES[case].1(), calls);
        return ExitCode::SUCCESS;
    }
    // `cargo test --all-targets` starts benches without a word.
    if !arguments.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("instructions: valgrind is not installed, so there is nothing to count with");
        return ExitCode::SUCCESS;
    }
    println!("| function | instructions a call |\n|---|---|");
    for (n, (name, _)) in CASES.iter().enumerate() {
        match count(n, CALLS).and_then(|once| Ok(count(n, 2 * CALLS)?.saturating_sub(once))) {
            Ok(more) => println!("| {name} | {} |", more / CALLS),
            Err(e) => {
                eprintln!("instructions: {name}: {e}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Only what happens in here is counted. The first calls fill caches and are not.
fn counted(call: &mut dyn FnMut(), calls: u64) {
    for _ in 0..3 {
        call();
    }
    instructions_counted_here(call, calls);
}

#[inline(never)]
fn instructions_counted_here(call: &mut dyn FnMut(), calls: u64) {
    for _ in 0..calls {
        call();
    }
}

/// Instructions of so many calls.
fn count(case: usize, calls: u64) -> Result<u64, Box<dyn Error>> {
    let file = tempfile::NamedTempFile::new()?;
    let out = format!("--callgrind-out-file={}", file.path().display());
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["-q", "--tool=callgrind", "--toggle-collect=*instructions_counted_here*", &out]);
    let case = case.to_string();
    let run = valgrind.arg(std::env::current_exe()?).args(["count", &case, &calls.to_string()]).output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    let profile = fs::read_to_string(file.path())?;
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals: ")).ok_or("no totals")?;
    Ok(totals.trim().parse()?)
}
