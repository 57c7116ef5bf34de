//! `docs/configuration.md` lists every key of the model with its default and its meaning, and no other.
//!
//! The tables between the two marks are made from `src/config/model.rs`, what is below it, and `Config::default()`:
//! `UPDATE_DOCS=1 cargo test --test config_reference` writes them anew.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use serde_json::{Map, Value};
use siogate::config::load::{Sources, load};
use siogate::config::model::identity::Assertion;
use siogate::config::model::issuers::Issuer;
use siogate::config::model::revocation::{Logout, Transmitter};
use siogate::config::model::vouchers::{Callout, Introspection, SessionStore};
use siogate::config::model::{Config, Route};
use siogate::config::problem::Problem;
use siogate::config::secret::Environment;
use siogate::config::shape::Shape;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const MODEL: &str = concat!(
    include_str!("../src/config/model.rs"),
    include_str!("../src/config/model/identity.rs"),
    include_str!("../src/config/model/issuers.rs"),
    include_str!("../src/config/model/revocation.rs"),
    include_str!("../src/config/model/session.rs"),
    include_str!("../src/config/model/vouchers.rs")
);
const BEGIN: &str = "<!-- made by tests/config_reference.rs from here -->";
const END: &str = "<!-- to here -->";

/// A struct or an enum of the model, with its doc comments.
struct Item {
    name: String,
    doc: String,
    /// Name, type (empty for a variant), doc comment.
    members: Vec<(String, String, String)>,
}

/// Reads what rustfmt leaves: one member a line, its doc comment above it.
fn items() -> Vec<Item> {
    let (mut items, mut doc): (Vec<Item>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut inside = false;
    for line in MODEL.lines().map(str::trim_end) {
        let text = line.trim_start();
        let header = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
        if let Some(text) = text.strip_prefix("///") {
            doc.push(text.trim());
            continue;
        } else if let Some(rest) = header {
            let name = rest.split([' ', '{']).next().unwrap().to_owned();
            items.push(Item { name, doc: doc.join(" "), members: Vec::new() });
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if text.starts_with("#[") {
            continue;
        } else if inside && !text.is_empty() {
            let member = text.trim_end_matches(',').trim_start_matches("pub ");
            let (name, kind) = member.split_once(": ").unwrap_or((member, ""));
            items.last_mut().unwrap().members.push((name.to_owned(), kind.to_owned(), doc.join(" ")));
        }
        doc.clear();
    }
    items
}

fn item<'a>(items: &'a [Item], name: &str) -> &'a Item {
    items.iter().find(|item| item.name == name).unwrap_or_else(|| panic!("{name} is not in model.rs"))
}

/// The type within `Vec<..>` and `Option<..>`.
fn inner(kind: &str) -> &str {
    let within = kind.strip_prefix("Option<").or_else(|| kind.strip_prefix("Vec<"));
    within.and_then(|rest| rest.strip_suffix('>')).unwrap_or(kind)
}

/// One section, and behind it those within it.
fn section(out: &mut String, items: &[Item], name: &str, path: &str, list: bool, shape: &Shape, defaults: &Value) {
    let item = item(items, name);
    let Shape::Table(keys) = shape else { panic!("{path} is no table") };
    let documented: Vec<&str> = item.members.iter().map(|(key, ..)| key.as_str()).collect();
    let existing: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    assert_eq!(documented, existing, "the keys of {path}, as written and as serde reads them");
    let (mut rows, mut nested) = (String::new(), String::new());
    for ((key, kind, doc), (_, shape)) in item.members.iter().zip(keys) {
        let (at, below) = (format!("{path}.{key}"), inner(kind));
        let full = if path.is_empty() { key.clone() } else { at };
        match shape {
            Shape::Table(_) => {
                section(&mut nested, items, below, &full, false, shape, &default_of(below, &defaults[key]))
            }
            Shape::List(one) if matches!(**one, Shape::Table(_)) => {
                section(&mut nested, items, below, &full, true, one, &default_of(below, &Value::Null));
            }
            Shape::Map(_) => map(&mut nested, &full, doc, &defaults[key]),
            _ => {
                let mut doc = doc.replace('|', "\\|");
                if let Shape::Word(words) = shape {
                    for (word, (_, _, meaning)) in words.iter().zip(&self::item(items, below).members) {
                        let _ = write!(doc, " `\"{word}\"`: {}", within_a_sentence(meaning));
                    }
                }
                let _ = writeln!(rows, "| `{key}` | {} | {doc} |", default(&defaults[key], kind));
            }
        }
    }
    if !rows.is_empty() {
        let title = if list { format!("[[{path}]]") } else { format!("[{path}]") };
        assert!(item.doc.starts_with(&format!("`{title}`")), "{name} is documented as {}, not {title}", item.doc);
        let _ = writeln!(out, "### `{title}`\n\n| Key | Default | Meaning |\n|---|---|---|\n{rows}");
    }
    out.push_str(&nested);
}

/// Without the capital letter at the beginning, unless it is a name's.
fn within_a_sentence(text: &str) -> String {
    let word = text.split(' ').next().unwrap();
    let name = word.contains('.') || word.chars().skip(1).any(char::is_uppercase);
    if name { text.to_owned() } else { text[..1].to_lowercase() + &text[1..] }
}

fn map(out: &mut String, path: &str, doc: &str, defaults: &Value) {
    if defaults.as_object().is_none_or(Map::is_empty) {
        let _ = writeln!(out, "### `[{path}]`\n\n{doc} Default: none.\n");
        return;
    }
    let _ = writeln!(out, "### `[{path}]`\n\n{doc} Default:\n\n```toml\n[{path}]");
    for (key, value) in defaults.as_object().unwrap() {
        let _ = writeln!(out, "{key} = {value}");
    }
    let _ = writeln!(out, "```\n");
}

/// The defaults of a section that is absent by default.
fn default_of(name: &str, given: &Value) -> Value {
    match name {
        _ if !given.is_null() => given.clone(),
        "Issuer" => serde_json::to_value(Issuer::default()).unwrap(),
        "Logout" => serde_json::to_value(Logout::default()).unwrap(),
        "Transmitter" => serde_json::to_value(Transmitter::default()).unwrap(),
        "SessionStore" => serde_json::to_value(SessionStore::default()).unwrap(),
        "Introspection" => serde_json::to_value(Introspection::default()).unwrap(),
        "Callout" => serde_json::to_value(Callout::default()).unwrap(),
        "Assertion" => serde_json::to_value(Assertion::default()).unwrap(),
        "Route" => serde_json::to_value(Route::default()).unwrap(),
        _ => Value::Object(Map::new()),
    }
}

fn default(value: &Value, kind: &str) -> String {
    match value {
        Value::Null if kind.starts_with("Option<") => "absent".into(),
        Value::Null => "required".into(),
        Value::String(text) if text.is_empty() && kind == "String" => "`\"\"`".into(),
        Value::Array(items) => format!("`[{}]`", items.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
        other => format!("`{other}`"),
    }
}

fn reference() -> String {
    let (items, shape) = (items(), Shape::of::<Config>());
    let mut out = String::new();
    section(&mut out, &items, "Config", "", false, &shape, &serde_json::to_value(Config::default()).unwrap());
    out.trim_end().to_owned()
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")
}

/// Everything written for users.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md"), root.join("deploy/README.md")];
    paths.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.into_iter().map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn the_reference_is_that_of_the_code() {
    let page = page();
    let text = fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the tables begin");
    let (tables, after) = rest.split_once(END).expect("the mark where they end");
    let made = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, format!("{before}{BEGIN}\n\n{made}\n\n{END}{after}")).unwrap();
        return;
    }
    let differs = tables.trim().lines().zip(made.lines()).find(|(written, now)| written != now);
    assert!(
        tables.trim() == made,
        "docs/configuration.md is not up to date; run: UPDATE_DOCS=1 cargo test --test config_reference\n{differs:#?}"
    );
}

#[test]
fn every_key_named_in_the_prose_exists() {
    let shape = Shape::of::<Config>();
    for (name, text) in pages() {
        for word in text.split('`').skip(1).step_by(2) {
            let Some((head, rest)) = word.split_once('.') else { continue };
            let Some(Shape::Table(keys)) = shape.child(head) else { continue };
            let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
            if !rest.is_empty() && rest != "mjs" && rest.chars().all(plain) {
                let known = |key: &str| keys.iter().any(|(known, _)| *known == key);
                assert!(known(rest.split('.').next().unwrap()), "{name} names `{word}`, which does not exist");
            }
        }
    }
}

#[test]
fn every_example_of_a_configuration_can_be_read() {
    let names =
        ["JWT_SECRET", "JWT_SECRET_OLD", "ADMIN_TOKEN", "SESSION_SECRET", "INTROSPECTION_SECRET", "SIGNALS_TOKEN"];
    let env: Environment = names.map(|name| (name.to_owned(), OsString::from(name.repeat(8)))).into();
    let mut examples = 0;
    for (name, text) in pages() {
        for example in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), example).unwrap();
            let sources = Sources { file: Some(file.path().into()), env: env.clone(), overrides: Vec::new() };
            let problems = load(&sources).err().map(|problems| problems.errors).unwrap_or_default();
            // Examples show a part, and name files that are not here.
            let wrong = |problem: &&Problem| problem.path != "issuer" && !problem.message.starts_with("cannot read");
            let wrong: Vec<_> = problems.iter().filter(wrong).collect();
            assert!(wrong.is_empty(), "{name}: {wrong:?} in\n{example}");
            examples += 1;
        }
    }
    assert!(examples > 5);
}

#[test]
fn every_link_to_a_file_leads_there() {
    for (name, text) in pages() {
        let folder = Path::new(&name).parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !file.is_empty() && !target.contains("://") {
                assert!(folder.join(file).exists(), "{name} links to {target}");
            }
        }
    }
}
