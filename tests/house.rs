//! The law of the house: which room may import which, what the pure rooms may not name, and how large a
//! file may grow. `src/lib.rs` draws the floors; `docs/architecture.md` says why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Row may import column; everything else is forbidden.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("reason", &[]),
    ("stream", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    ("protocol", &[]),
    ("auth", &["config", "protocol", "reason"]),
    ("upstream", &["config", "stream"]),
    ("gate", &["auth", "protocol", "reason"]),
    ("session", &["gate", "protocol", "reason", "stream"]),
    ("proxy", &["auth", "config", "gate", "protocol", "reason", "session", "stream", "telemetry", "upstream"]),
    ("admin", &["session", "telemetry", "upstream"]),
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
            "telemetry",
            "upstream",
        ],
    ),
    ("dev", &["config"]),
    ("cli", &["app", "auth", "config", "dev", "proxy", "upstream"]),
];

/// Rooms and files that do no IO and read no clock: `now` is an argument.
const PURE: &[&str] = &["protocol", "auth", "gate", "session/deadlines.rs", "session/recovery.rs"];

const IMPURE_WORDS: &[&str] =
    &["tokio", "hyper", "rustls", "Instant::now", "SystemTime::now", "std::fs", "std::net::Tcp"];

/// Lines of a file before its tests.
const LONGEST: usize = 450;

/// One flat list of keys, read from top to bottom: splitting it would only hide where a key is.
const LISTS: &[&str] = &["config/model.rs"];

struct Room {
    name: String,
    path: PathBuf,
    text: String,
}

fn rooms() -> Vec<Room> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let room = |path: PathBuf| {
        let relative = path.strip_prefix(&src).unwrap().to_path_buf();
        let name = relative.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        let text = fs::read_to_string(&path).unwrap();
        Room { name, path: relative, text }
    };
    files.into_iter().map(room).filter(|room| !is_for_tests(&room.path)).collect()
}

/// Files that only tests compile may import what they like.
fn is_for_tests(path: &Path) -> bool {
    let text = path.to_string_lossy();
    ["tests.rs", "testing.rs", "support.rs"].iter().any(|end| text.ends_with(end)) || text.contains("/tests/")
}

/// What is compiled into the product: everything before the inline tests, without comments.
fn product(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn rooms_import_only_what_stands_below_them() {
    let law: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let mut broken = Vec::new();
    for room in rooms().iter().filter(|room| room.name != "lib" && room.name != "main") {
        let allowed = law.get(room.name.as_str()).unwrap_or_else(|| panic!("{} has no row in the table", room.name));
        for import in product(&room.text).split("crate::").skip(1) {
            let target: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if target != room.name && !allowed.contains(&target.as_str()) {
                broken.push(format!("{} imports {target}", room.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_table_itself_has_no_circle() {
    // Rows stand in the order of the floors, so an import may only point to an earlier row.
    for (i, (room, allowed)) in MAY_IMPORT.iter().enumerate() {
        for target in *allowed {
            let at = MAY_IMPORT.iter().position(|(name, _)| name == target);
            assert!(at.is_some_and(|at| at < i), "{room} -> {target} points up");
        }
    }
}

#[test]
fn pure_rooms_do_no_io_and_read_no_clock() {
    let mut broken = Vec::new();
    for room in rooms() {
        let path = room.path.to_string_lossy().into_owned();
        if PURE.iter().any(|pure| *pure == room.name || path == *pure) {
            let code = product(&room.text);
            broken.extend(IMPURE_WORDS.iter().filter(|w| code.contains(*w)).map(|w| format!("{path} names {w}")));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_says_what_it_is_for_and_stays_readable() {
    let mut broken = Vec::new();
    for room in rooms() {
        let path = room.path.display();
        if !room.text.starts_with("//!") {
            broken.push(format!("{path} has no caption"));
        }
        if room.text.contains("pub use ") {
            broken.push(format!("{path} re-exports: import by full address"));
        }
        let lines = room.text.split("\n#[cfg(test)]").next().unwrap_or_default().lines().count();
        if lines > LONGEST && !LISTS.contains(&room.path.to_string_lossy().as_ref()) {
            broken.push(format!("{path} has {lines} lines: split it by idea"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
