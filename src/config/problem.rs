//! What is wrong with a configuration: all of it at once, each problem with its path.

use std::fmt;

/// One thing that is wrong, or worth saying aloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `issuer[0].leeway`; empty where it is about the file as a whole.
    pub path: String,
    /// What is wrong and what is allowed, in one line, without any secret.
    pub message: String,
    /// The variable or flag it came from; `None`: the file or the defaults.
    pub origin: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " (from {origin})"),
            None => Ok(()),
        }
    }
}

/// All that was found: `errors` refuse the start, `warnings` are said aloud.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Each of these refuses the configuration.
    pub errors: Vec<Problem>,
    /// None of these does.
    pub warnings: Vec<Problem>,
}

impl Problems {
    /// Adds an error about `path`.
    pub fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push(Problem { path: path.into(), message: message.into(), origin: None });
    }

    /// Adds a warning about `path`.
    pub fn warn(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Problem { path: path.into(), message: message.into(), origin: None });
    }

    /// Takes over everything that `other` found.
    pub fn append(&mut self, mut other: Problems) {
        self.errors.append(&mut other.errors);
        self.warnings.append(&mut other.warnings);
    }
}

/// One line per error. Warnings are the caller's to print: they are no reason to refuse.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `parent.child`.
pub fn join(parent: &str, child: &str) -> String {
    if parent.is_empty() { child.to_string() } else { format!("{parent}.{child}") }
}

/// Whether `path` is `ancestor` or lies under it.
pub fn is_under(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A value as it may be shown: quoted, escaped, cut, and without the password of a URL.
pub fn shown(value: &str) -> String {
    const LONGEST: usize = 80;
    let masked = mask_userinfo(value);
    if masked.chars().count() > LONGEST {
        let head: String = masked.chars().take(LONGEST).collect();
        format!("{head:?}...")
    } else {
        format!("{masked:?}")
    }
}

/// Everything before the last `@` of an authority goes: even a URL too broken to parse may hold a password.
fn mask_userinfo(value: &str) -> String {
    let start = value.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = value.split_at(start);
    match rest.rsplit_once('@') {
        Some((_, host)) if start > 0 => format!("{scheme}***@{host}"),
        _ => value.to_string(),
    }
}

/// `"a", "b" or "c"`.
pub fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => format!("{only:?}"),
        [head @ .., last] => {
            let head: Vec<_> = head.iter().map(|w| format!("{w:?}")).collect();
            format!("{} or {last:?}", head.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_value_is_one_short_line_without_a_password() {
        assert_eq!(shown("http://u:p@ss@host:1"), r#""http://***@host:1""#);
        assert_eq!(shown("a\r\n\u{1b}[31m"), r#""a\r\n\u{1b}[31m""#);
        assert!(shown(&"x".repeat(5000)).len() < 100);
        assert_eq!(shown("me@example.com"), r#""me@example.com""#);
    }

    #[test]
    fn a_path_is_under_its_ancestors_only() {
        assert!(is_under("issuer[0].leeway", "issuer[0]"));
        assert!(is_under("issuer[0].leeway", "issuer"));
        assert!(is_under("log", "log"));
        assert!(!is_under("issuer[10]", "issuer[1]"));
        assert!(!is_under("log.level", "lo"));
    }
}
