//! Reads what stands in one place of a request, and writes a header again without it.

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

/// What one place holds.
pub(super) type One = Result<Option<String>, String>;

/// One value, however often it is said; empty is nothing.
pub(super) fn single(values: Vec<String>, what: &str, name: &str) -> One {
    let mut values = values.into_iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|other| other != first) {
        return Err(format!("the {what} {name} stands more than once with different values"));
    }
    Ok(Some(first).filter(|value| !value.is_empty()).map(|value| unprefixed(&value).to_owned()))
}

/// Applications often send `Bearer <token>` in places that need no scheme.
pub(super) fn unprefixed(value: &str) -> &str {
    const SCHEME: &str = "bearer ";
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => token.trim_start_matches(' '),
        _ => value,
    }
}

fn texts(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<String>, String> {
    let text = |value: &HeaderValue| value.to_str().map(|text| text.trim().to_owned());
    headers.get_all(name).iter().map(text).collect::<Result<_, _>>().map_err(|_| format!("{name} is not plain ASCII"))
}

pub(super) fn header(headers: &HeaderMap, name: &HeaderName) -> One {
    single(texts(headers, name)?, "header", name.as_str())
}

/// RFC 6750 section 2.1: `Bearer`, any case, and one token. Another scheme is no credential for us.
pub(super) fn authorization(headers: &HeaderMap) -> One {
    let mut token = None;
    for value in headers.get_all(AUTHORIZATION) {
        if other_scheme(value) {
            continue;
        }
        let text = ascii(value).ok_or("authorization is not plain ASCII")?;
        let this = match text.trim().split_once(' ') {
            Some((_, token)) => token.trim_start_matches(' '),
            None => return Err("authorization has no scheme or no token".into()),
        };
        if any(this, |byte| matches!(byte, b' ' | b'\t' | b',')) {
            return Err("authorization holds more than one token".into());
        }
        if token.replace(this).is_some_and(|other| other != this) {
            return Err("the header authorization stands more than once with different values".into());
        }
    }
    Ok(token.filter(|token| !token.is_empty()).map(String::from))
}

/// A value of visible ASCII, blanks and tabs.
fn ascii(value: &HeaderValue) -> Option<&str> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    (!any(text, |byte| !(b' '..=b'~').contains(&byte) && byte != b'\t')).then_some(text)
}

/// Looks at every byte of a long text, several at once: leaving early would cost more.
fn any(text: &str, is: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(false, |found, byte| found | is(byte))
}

/// Whether an Authorization value is surely of a scheme other than Bearer.
pub(super) fn other_scheme(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes().trim_ascii();
    let scheme = bytes.split(|byte| *byte == b' ' || *byte == b'\t').next().unwrap_or_default();
    scheme.len() < bytes.len() && !scheme.eq_ignore_ascii_case(b"bearer")
}

pub(super) fn cookie(headers: &HeaderMap, name: &str) -> One {
    // Two of one name: a sibling domain can set a second one before or after ours (cookie tossing).
    single(cookies(headers, name)?, "cookie", name)
}

/// C05: also two that are equal: nobody who has not been tampered with sends them.
pub(super) fn session(headers: &HeaderMap, name: &str) -> One {
    let values = cookies(headers, name)?;
    if values.len() > 1 {
        return Err(format!("the session cookie {name} stands more than once"));
    }
    Ok(values.into_iter().next().filter(|value| !value.is_empty()))
}

fn cookies(headers: &HeaderMap, name: &str) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    for header in headers.get_all(COOKIE) {
        for pair in header.as_bytes().split(|byte| *byte == b';') {
            let Some(value) = cookie_value(pair, name) else { continue };
            let value = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_graphic()));
            let value = value.ok_or_else(|| format!("the cookie {name} is not plain ASCII"))?;
            values.push(value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value).to_owned());
        }
    }
    Ok(values)
}

fn cookie_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (pair.get(..at)?, pair.get(at + 1..)?);
    (key.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
}

fn offers<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> Result<Vec<String>, String> {
    let mut offers = Vec::new();
    for line in lines {
        let line = line.to_str().map_err(|_| format!("{SEC_WEBSOCKET_PROTOCOL} is not plain ASCII"))?;
        offers.extend(line.split(',').map(|offer| offer.trim().to_owned()));
    }
    Ok(offers)
}

/// Places of the credentials in a list of offers: the entry after each `name`.
fn after<'a>(offers: &'a [String], name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let mut taken = None;
    (1..offers.len()).filter(move |at| {
        let is = taken != Some(at - 1) && offers.get(at - 1).is_some_and(|offer| offer == name);
        taken = if is { Some(*at) } else { taken };
        is
    })
}

pub(super) fn subprotocol(headers: &HeaderMap, name: &str) -> One {
    let offers = offers(headers.get_all(SEC_WEBSOCKET_PROTOCOL))?;
    single(after(&offers, name).filter_map(|at| offers.get(at).cloned()).collect(), "subprotocol", name)
}

pub(super) fn strip_offers(lines: &mut Vec<HeaderValue>, name: &str) {
    let Ok(offers) = offers(lines.iter()) else {
        // Unreadable: whatever it holds does not go on.
        return lines.clear();
    };
    let secret: Vec<usize> = after(&offers, name).flat_map(|at| [at - 1, at]).collect();
    if secret.is_empty() {
        return;
    }
    let rest: Vec<_> =
        offers.iter().enumerate().filter(|(at, _)| !secret.contains(at)).map(|(_, offer)| offer.as_str()).collect();
    lines.clear();
    if let (false, Ok(value)) = (rest.is_empty(), HeaderValue::from_str(&rest.join(", "))) {
        lines.push(value);
    }
}

pub(super) enum Rewrite {
    Keep,
    Drop,
    Replace(HeaderValue),
}

pub(super) fn without_cookie(value: &HeaderValue, name: &str) -> Rewrite {
    let pairs: Vec<&[u8]> = value.as_bytes().split(|byte| *byte == b';').collect();
    let kept: Vec<&[u8]> = pairs.iter().filter(|pair| cookie_value(pair, name).is_none()).copied().collect();
    if kept.len() == pairs.len() {
        return Rewrite::Keep;
    }
    let rest = kept.join(&b';');
    match HeaderValue::from_bytes(rest.trim_ascii_start()) {
        Ok(rest) if !rest.is_empty() => Rewrite::Replace(rest),
        _ => Rewrite::Drop,
    }
}
