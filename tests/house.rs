//! The rules of the house, as law: which room may import which, which rooms are pure, how large a file
//! may grow. The map at the top of `src/lib.rs` is checked with them; `docs/architecture.md` says why.

#![allow(clippy::unwrap_used)] // a test may fail

use siogate::reason::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Who imports whom, exactly. A new import is a decision: it is made here.
const IMPORTS: &[(&str, &[&str])] = &[
    ("random", &[]),
    ("protocol", &["random"]),
    ("config", &[]),
    ("telemetry", &[]),
    ("reason", &[]),
    ("stream", &[]),
    ("auth", &["config", "protocol", "reason"]),
    ("store", &["config"]),
    ("upstream", &["config", "random", "stream"]),
    ("vouch", &["auth", "config", "reason", "store", "telemetry", "upstream"]),
    ("gate", &["auth", "protocol", "reason"]),
    ("session", &["auth", "gate", "protocol", "reason", "store", "stream", "telemetry"]),
    (
        "proxy",
        &[
            "auth",
            "config",
            "gate",
            "protocol",
            "random",
            "reason",
            "session",
            "stream",
            "telemetry",
            "upstream",
            "vouch",
        ],
    ),
    ("admin", &["auth", "protocol", "reason", "session", "telemetry", "upstream"]),
    ("listen", &["admin", "config", "proxy", "stream"]),
    (
        "app",
        &[
            "admin",
            "auth",
            "config",
            "gate",
            "listen",
            "protocol",
            "proxy",
            "reason",
            "session",
            "store",
            "telemetry",
            "upstream",
            "vouch",
        ],
    ),
    ("dev", &["config"]),
    ("cli", &["app", "auth", "config", "dev", "proxy", "session", "upstream"]),
    ("main", &["cli"]),
];

/// Rooms without IO and without a clock: `now` is an argument, bytes come in and values go out.
const PURE: &[&str] =
    &["protocol", "config", "auth", "gate", "session/deadlines.rs", "session/recovery.rs", "reason.rs"];

/// Files of a pure room that read files or the environment.
const READERS: &[&str] = &["config/load.rs", "config/secret.rs"];

/// What a pure room does not name.
const RUNTIME: &[&str] =
    &["tokio", "tokio_util", "tokio_rustls", "hyper", "hyper_util", "hyper_rustls", "socket2", "Instant::now"];
const WORLD: &[&str] = &["std::fs", "std::env", "TcpStream", "TcpListener", "UdpSocket", "UnixStream"];

/// Reading PEM is parsing; the rest of rustls is not for pure rooms.
const PEM: &str = "rustls::pki_types";

/// The only places that read the wall clock; everybody else is given the time.
/// What decides asks one clock; a log line only says when it was written.
const WALL_CLOCK: &[&str] = &["session/clock.rs", "cli/json_log.rs", "dev/"];

const MAX_FILE: usize = 450;
const MAX_FUNCTION: usize = 60;

struct File {
    /// Below `src`, with `/`.
    path: String,
    /// Without its unit tests.
    text: String,
    /// The same without comments.
    code: String,
}

impl File {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }

    fn is_pure(&self) -> bool {
        PURE.iter().any(|pure| self.room() == *pure || self.path == *pure)
    }
}

/// Every file of the house but those that are only there for tests.
fn house() -> Vec<File> {
    fn walk(dir: &Path, found: &mut Vec<File>, root: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found, root);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            let for_tests = ["tests", "support", "testing"];
            let is_test = name.split(['/', '.']).any(|part| for_tests.contains(&part));
            if is_test || !name.ends_with(".rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
            let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            found.push(File { path: name, code: code.join("\n"), text });
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found, &root);
    assert!(found.len() > 60, "the house is not where it was");
    found
}

/// Occurrences of `name` as a whole path: not `tokio` in `my_tokio` or `tokio_util`.
fn names(code: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// The first names behind `crate::`, in single imports and in braces.
fn imports(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split_once('}').map_or(list, |(list, _)| list);
            found.extend(list.split(',').map(|item| item.trim().split("::").next().unwrap_or_default().to_owned()));
        } else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found.remove("");
    found
}

fn by_room() -> BTreeMap<String, BTreeSet<String>> {
    let mut rooms = BTreeMap::<String, BTreeSet<String>>::new();
    for file in house() {
        let prefix = if file.path == "main.rs" { "siogate::" } else { "crate::" };
        let mut named = imports(&file.code, prefix);
        named.remove(file.room());
        rooms.entry(file.room().to_owned()).or_default().extend(named);
    }
    rooms.remove("lib");
    rooms
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_room_imports_exactly_what_the_table_says() {
    let law: BTreeMap<_, BTreeSet<String>> = IMPORTS
        .iter()
        .map(|(room, allowed)| ((*room).to_owned(), allowed.iter().map(|r| (*r).to_owned()).collect()))
        .collect();
    assert_eq!(by_room(), law, "left: the house; right: the law");
}

/// The map of `lib.rs`: a room's floor.
fn floors() -> BTreeMap<String, usize> {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut floors = BTreeMap::new();
    let block = map.split("```").nth(1).unwrap();
    for line in block.lines().filter_map(|line| line.strip_prefix("//! ")) {
        let mut words = line.split_whitespace();
        let Some(floor) = words.next().and_then(|word| word.parse().ok()) else { continue };
        // The rooms stand close together; what they are for stands behind wide blanks.
        let rooms = line.trim_start().split_once("  ").map_or("", |(_, rest)| rest.trim_start());
        let known = |word: &str| IMPORTS.iter().any(|(room, _)| *room == word);
        for word in rooms.split_whitespace().map(|word| word.trim_end_matches('/')).take_while(|word| known(word)) {
            floors.insert(word.to_owned(), floor);
        }
    }
    floors
}

#[test]
fn the_map_names_every_room_and_every_import_goes_down() {
    let floors = floors();
    let rooms = by_room();
    assert_eq!(floors.keys().collect::<Vec<_>>(), rooms.keys().collect::<Vec<_>>(), "left: the map");
    let mut problems = Vec::new();
    for (room, imports) in &rooms {
        for import in imports.iter().filter(|import| floors[*import] >= floors[room]) {
            problems.push(format!("{room} (floor {}) imports {import} (floor {})", floors[room], floors[import]));
        }
    }
    report(problems);
}

#[test]
fn pure_rooms_name_neither_runtime_nor_clock_nor_world() {
    let mut problems = Vec::new();
    for file in house().iter().filter(|file| file.is_pure()) {
        let code = file.code.replace(PEM, "");
        let reads = READERS.contains(&file.path.as_str());
        let world = WORLD.iter().filter(|_| !reads);
        let banned = RUNTIME.iter().chain(world).chain(&["rustls", "SystemTime::now"]);
        problems.extend(banned.filter(|name| names(&code, name)).map(|name| format!("{}: {name}", file.path)));
    }
    report(problems);
}

#[test]
fn the_wall_clock_is_read_in_one_place() {
    let reads = |file: &&File| names(&file.code, "SystemTime::now");
    let allowed = |file: &&File| WALL_CLOCK.iter().any(|place| file.path.starts_with(place));
    report(house().iter().filter(reads).filter(|f| !allowed(f)).map(|f| f.path.clone()).collect());
}

#[test]
fn every_file_says_what_it_is_for_and_none_is_a_hub() {
    let mut problems = Vec::new();
    for file in house() {
        if !file.text.starts_with("//! ") {
            problems.push(format!("{}: does not open with //!", file.path));
        }
        let hub = |line: &str| {
            let line = line.trim_start();
            line.starts_with("pub") && line.contains(" use ") && line.ends_with([';', '{']) && !line.contains('=')
                || line.starts_with("use super::*")
        };
        problems.extend(file.code.lines().filter(|l| hub(l)).map(|l| format!("{}: {l}", file.path)));
    }
    report(problems);
}

/// Names of functions with their lines, by rustfmt's indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start();
        let words = ["pub(crate) ", "pub(super) ", "pub ", "const ", "async "]
            .iter()
            .fold(words, |words, prefix| words.strip_prefix(prefix).unwrap_or(words));
        let Some(name) = words.strip_prefix("fn ") else { continue };
        if line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let len = lines[at..].iter().position(|line| *line == end).map_or(0, |n| n + 1);
        found.push((name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect(), len));
    }
    found
}

#[test]
fn files_and_functions_stay_small() {
    let mut problems = Vec::new();
    for file in house() {
        let lines = file.text.lines().count();
        if lines > MAX_FILE {
            problems.push(format!("{}: {lines} lines, at most {MAX_FILE}", file.path));
        }
        for (name, lines) in functions(&file.text).into_iter().filter(|(_, lines)| *lines > MAX_FUNCTION) {
            problems.push(format!("{}: {name} has {lines} lines, at most {MAX_FUNCTION}", file.path));
        }
    }
    report(problems);
}

/// The words of the contract: the log line, the metric label, `connect_error.data.code` and the close reason
/// all carry one of these and nothing else.
const REASONS: &str = "\
credential_missing credential_malformed token_expired token_not_yet_valid signature_invalid key_unknown keys_unavailable
algorithm_not_allowed issuer_unknown audience_mismatch claim_rejected subject_mismatch revoked logged_out kicked max_session idle
connect_timeout origin_not_allowed namespace_forbidden event_forbidden rate_limited too_many_connections payload_too_large
protocol_error upstream_unavailable upstream_refused draining";

#[test]
fn the_reasons_are_the_words_of_the_contract_in_their_order() {
    let ours: Vec<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
    assert_eq!(ours, REASONS.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn a_reason_is_one_word_and_its_message_is_for_anybody() {
    for reason in Reason::ALL {
        let (word, message) = (reason.word(), reason.message());
        assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
        assert_eq!(reason.to_string(), word);
        // It goes into JSON and HTTP headers as it is.
        let plain = |c: char| c.is_ascii_alphanumeric() || " -".contains(c);
        assert!(!message.is_empty() && message.chars().all(plain), "{message}");
    }
}

#[test]
fn the_law_itself_finds_what_it_looks_for() {
    assert!(names("use tokio::net;", "tokio") && !names("use my_tokio::x;", "tokio"));
    assert!(!names("use tokio_util::x;", "tokio") && names("std::net::TcpStream", "TcpStream"));
    let code = "use crate::a::b;\nuse crate::{c::d, e};\nlet x = crate::f::g();";
    assert_eq!(imports(code, "crate::").into_iter().collect::<Vec<_>>(), ["a", "c", "e", "f"]);
    let text = "fn a() {\n    1\n}\nimpl X {\n    pub async fn b(\n        x: u8,\n    ) -> u8 {\n        x\n    }\n}\nfn c() {}\n";
    assert_eq!(functions(text), [("a".to_owned(), 3), ("b".to_owned(), 5)]);
}
