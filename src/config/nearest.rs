//! The known word a mistyped one was probably meant to be.

/// The candidate nearest to `word`, if any is near enough to be worth naming.
///
/// Near means a few edits (one in three letters, at least two in all but the shortest words), or that one begins
/// with the other: `secret` for `secret_env`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = fold(word);
    let letters = word.chars().count();
    // Any two words of three letters are near each other by two edits.
    let far = if letters <= 3 { 1 } else { (letters / 3).max(2) };
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let other = fold(candidate);
        let edits = distance(&word, &other);
        let begins = word.len() >= 3 && other.len() >= 3 && (other.starts_with(&word) || word.starts_with(&other));
        let rank = if edits <= far && edits < letters {
            edits
        } else if begins {
            far + edits
        } else {
            continue;
        };
        if best.is_none_or(|(r, _)| rank < r) {
            best = Some((rank, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Case and the choice of separator are no edits.
fn fold(word: &str) -> String {
    word.chars().take(64).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Optimal string alignment: insert, delete, replace, or swap two neighbours.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn typos_find_the_word_that_was_meant() {
        let keys = ["listen", "trusted_proxies", "drain_timeout", "tls", "secret_env", "secret_file", "jwks_url"];
        for (typo, meant) in [
            ("listne", "listen"),
            ("Listen", "listen"),
            ("drain-timeout", "drain_timeout"),
            ("trusted_proxy", "trusted_proxies"),
            ("secret", "secret_env"),
            ("jwks_uri", "jwks_url"),
            ("tsl", "tls"),
        ] {
            assert_eq!(nearest(typo, keys), Some(meant), "{typo}");
        }
        for unlike in ["zz", "", "colour", "x"] {
            assert_eq!(nearest(unlike, keys), None, "{unlike}");
        }
    }

    proptest! {
        #[test]
        fn distance_is_a_symmetric_measure(a in "\\PC{0,12}", b in "\\PC{0,12}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &b) <= a.chars().count().max(b.chars().count()));
        }
    }
}
