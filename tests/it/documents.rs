//! `docs/refusals.md` says what the code says, and every row of it is proved by a test that exists.

use siogate::proxy::refusal;
use siogate::reason::Reason;
use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rows of the tables of one section, as cells.
fn rows(document: &str, section: &str) -> Vec<Vec<String>> {
    let (_, rest) = document.split_once(&format!("\n## {section}\n")).unwrap();
    let text = rest.split("\n## ").next().unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_table_of_words_is_the_codes_own() {
    let rows = rows(&read("docs/refusals.md"), "The words");
    let documented: Vec<(String, String, String, String)> =
        rows.into_iter().map(|r| (r[0].clone(), r[1].clone(), r[2].clone(), r[3].clone())).collect();
    let coded: Vec<_> = Reason::ALL
        .iter()
        .map(|r| {
            let (status, close) = (refusal::status(*r).as_u16(), refusal::close_code(*r));
            (format!("`{}`", r.word()), r.message().to_owned(), status.to_string(), close.to_string())
        })
        .collect();
    assert_eq!(documented, coded);
}

#[test]
fn every_row_of_the_inputs_is_proved_by_a_test() {
    let mut tests = BTreeSet::new();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let mut lines = text.lines().peekable();
            while let Some(line) = lines.next() {
                let name = lines.peek().and_then(|next| next.split("fn ").nth(1)?.split('(').next());
                if let (true, Some(name)) = (line.starts_with("#[test]") || line.starts_with("#[tokio::test"), name) {
                    tests.insert(name.to_owned());
                }
            }
        }
    }
    let document = read("docs/refusals.md");
    let rows = rows(&document, "The inputs");
    assert!(rows.len() > 80, "{}", rows.len());
    for row in rows.iter().filter(|row| !row[0].starts_with("**")) {
        assert_eq!(row.len(), 3, "{row:?}");
        for name in row[2].split(", ") {
            let name = name.trim_matches('`');
            assert!(tests.contains(name), "no test {name:?} for {:?}", row[0]);
        }
    }
    // And whatever the threat model numbers and a socket can show of bad input stands in the table.
    let unlisted = [
        "p22",
        "p24",
        "p25",
        "p43",
        "p01",
        "p20",
        "p37",
        "p53",
        "p44_metrics_count",
        "p41_a_trusted",
        "p41_the_host",
        "p13_the_sid",
        "p39_nothing",
        "p50_who",
    ];
    for name in tests.iter().filter(|name| name.starts_with('p') && name[1..3].bytes().all(|b| b.is_ascii_digit())) {
        let listed = document.contains(name.as_str());
        assert!(listed || unlisted.iter().any(|prefix| name.starts_with(prefix)), "{name} is in no row");
    }
}
