//! Replays the corpus of the fuzz targets on stable Rust: each input, each of its beginnings, and each with one byte changed.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Longer inputs are replayed as they are.
const MUTATED: usize = 1024;

fn names(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

fn replay(name: &str, run: fn(&[u8]), from: &Path, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(input)));
    assert!(outcome.is_ok(), "{name}: an input made from {} breaks it: {input:02x?}", from.display());
}

#[test]
fn every_target_keeps_its_promise_on_the_corpus() {
    for (name, run) in fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            inputs += 1;
            replay(name, *run, &path, &input);
            if input.len() > MUTATED {
                continue;
            }
            for end in 0..input.len() {
                replay(name, *run, &path, &input[..end]);
            }
            let mut changed = input.clone();
            for at in 0..input.len() {
                for mask in [0x01, 0x20, 0x80, 0xff] {
                    changed[at] = input[at] ^ mask;
                    replay(name, *run, &path, &changed);
                }
                changed[at] = input[at];
            }
        }
        assert!(inputs > 0, "{name} has no corpus");
    }
}

#[test]
fn every_target_is_fuzzed_and_has_a_corpus() {
    let known: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(known, names("fuzz/fuzz_targets"));
    assert_eq!(known, names("tests/corpus"));
}
