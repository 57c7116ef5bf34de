//! Which pages may connect: the `Origin` header against the configured list.
//!
//! CORS does not apply to WebSocket, so a page of another site could connect with its visitor's
//! cookies. Origins are compared whole (scheme, host and port), never by suffix or pattern.

use crate::protocol::target;
use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue};

const FETCH_SITE: &str = "sec-fetch-site";

/// The compiled `allowed_origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    allow: Allow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allow {
    /// `[]`: pages of the host that is asked.
    Own,
    /// `"*"`
    Any,
    Listed(Vec<Origin>),
}

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No page is behind it, or one of the same origin: go on, without CORS headers.
    Absent,
    /// Go on, with this `Access-Control-Allow-Origin` (`*` only where any is allowed, then never with credentials).
    Allowed {
        /// The value of the header.
        acao: HeaderValue,
    },
    /// Refuse.
    Refused,
}

/// An origin in its one spelling: lower case, no default port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    authority: String,
}

impl Origins {
    /// Compiles the list; the errors name every entry that is none.
    pub fn parse(entries: &[String]) -> Result<Origins, Vec<String>> {
        if entries.is_empty() {
            return Ok(Origins { allow: Allow::Own });
        }
        if matches!(entries, [any] if any == "*") {
            return Ok(Origins { allow: Allow::Any });
        }
        let (mut listed, mut problems) = (Vec::new(), Vec::new());
        for entry in entries {
            match Origin::parse(entry) {
                _ if entry == "*" => problems.push("\"*\" allows every origin and must stand alone".to_owned()),
                Some(origin) => listed.push(origin),
                None => problems.push(format!(
                    "{entry:?} is not an origin: scheme://host or scheme://host:port, without path, wildcard or null"
                )),
            }
        }
        if problems.is_empty() { Ok(Origins { allow: Allow::Listed(listed) }) } else { Err(problems) }
    }

    /// Whether any origin is allowed, which must not be combined with cookies.
    pub fn allows_any(&self) -> bool {
        self.allow == Allow::Any
    }

    /// Judges a request; `own_authority` is the host (and port) that the client asked for.
    pub fn judge(&self, headers: &HeaderMap, own_authority: &str, require_origin: bool) -> Decision {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(value) = origins.next() else {
            // Browsers leave Origin out on same-origin GETs only, and then say so where they can.
            let fine = !require_origin && fetch_sites(headers).all(|site| matches!(site, b"same-origin" | b"none"));
            return if fine { Decision::Absent } else { Decision::Refused };
        };
        // Browsers send the one spelling that the list is kept in.
        if let (Allow::Listed(listed), Ok(text)) = (&self.allow, value.to_str())
            && listed.iter().any(|origin| origin.is_spelt(text))
        {
            let alone = origins.next().is_none();
            return if alone { Decision::Allowed { acao: value.clone() } } else { Decision::Refused };
        }
        let parsed = value.to_str().ok().and_then(Origin::parse);
        let Some(origin) = parsed.filter(|_| origins.next().is_none()) else { return Decision::Refused };
        let allowed = match &self.allow {
            Allow::Any => return Decision::Allowed { acao: HeaderValue::from_static("*") },
            Allow::Listed(listed) => listed.contains(&origin),
            Allow::Own => origin.is_own(own_authority) && !origin.is_downgraded(headers),
        };
        if allowed { Decision::Allowed { acao: value.clone() } } else { Decision::Refused }
    }
}

impl Origin {
    /// `None` for `null`, paths, wildcards and whatever else is no `scheme://host[:port]`.
    fn parse(text: &str) -> Option<Origin> {
        let (scheme, authority) = text.split_once("://")?;
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(letters) {
            return None;
        }
        if !target::is_authority(authority) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let authority = without_default_port(&scheme, authority).to_ascii_lowercase();
        Some(Origin { scheme, authority })
    }

    fn is_spelt(&self, text: &str) -> bool {
        let authority = text.strip_prefix(&self.scheme).and_then(|rest| rest.strip_prefix("://"));
        authority == Some(&self.authority)
    }

    /// The port of a `Host` without one follows from the scheme, and the scheme is the page's.
    fn is_own(&self, own_authority: &str) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
            && without_default_port(&self.scheme, own_authority).eq_ignore_ascii_case(&self.authority)
    }

    /// A page of the same host, but by plain HTTP, while the request itself came by TLS: only then
    /// do browsers call it anything but same-origin. Whoever sits on the network can write such pages.
    fn is_downgraded(&self, headers: &HeaderMap) -> bool {
        self.scheme == "http" && !self.is_loopback() && fetch_sites(headers).any(|site| site != b"same-origin")
    }

    fn is_loopback(&self) -> bool {
        let host = match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => &self.authority,
        };
        matches!(host, "localhost" | "127.0.0.1" | "[::1]")
    }
}

fn fetch_sites(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(FETCH_SITE).iter().map(|value| value.as_bytes())
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: &str = "app.example";

    fn origins(entries: &[&str]) -> Origins {
        Origins::parse(&entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn allowed(acao: &str) -> Decision {
        Decision::Allowed { acao: HeaderValue::from_str(acao).unwrap() }
    }

    fn judge(list: &[&str], origin: &str) -> Decision {
        origins(list).judge(&headers(&[("origin", origin)]), OWN, false)
    }

    #[test]
    fn p19_a_listed_origin_is_echoed_and_every_look_alike_refused() {
        let list = ["https://good.example", "http://localhost:3000", "capacitor://localhost"];
        for good in list {
            assert_eq!(judge(&list, good), allowed(good), "{good}");
        }
        assert_eq!(judge(&list, "https://good.example:443"), allowed("https://good.example:443"));
        for bad in [
            "https://evil.example",
            "https://good.example.evil.example",
            "https://good.evil",
            "https://evilgood.example",
            "https://sub.good.example",
            "http://good.example",
            "https://good.example:8443",
            "https://good.example/",
            "https://good.example, https://evil.example",
            "https://evil@good.example",
            "https://good.example.",
            "http://localhost",
            "https://app.example",
            "null",
            "",
            "*",
            "good.example",
            "//good.example",
            "https://",
            "https://good.example\u{e9}",
        ] {
            assert_eq!(judge(&list, bad), Decision::Refused, "{bad}");
        }
    }

    #[test]
    fn p19_two_origins_are_refused() {
        let twice = headers(&[("origin", "https://good.example"), ("origin", "https://good.example")]);
        for list in [&[][..], &["*"], &["https://good.example"]] {
            assert_eq!(origins(list).judge(&twice, "good.example", false), Decision::Refused);
        }
    }

    #[test]
    fn p19_null_is_refused_even_where_any_origin_is_allowed() {
        assert_eq!(judge(&["*"], "null"), Decision::Refused);
        assert_eq!(judge(&["*"], "https://any.example"), allowed("*"));
        assert!(origins(&["*"]).allows_any());
    }

    #[test]
    fn p19_an_empty_list_means_the_same_host_and_port() {
        for (origin, own, same) in [
            ("https://app.example", "app.example", true),
            ("https://app.example", "App.Example:443", true),
            ("http://app.example", "app.example:80", true),
            ("https://app.example", "app.example:80", false),
            ("http://app.example", "app.example:443", false),
            ("https://app.example:8443", "app.example:8443", true),
            ("https://app.example:8443", "app.example", false),
            ("https://app.example", "app.example:8443", false),
            ("https://sub.app.example", "app.example", false),
            ("http://[::1]:3000", "[::1]:3000", true),
            ("capacitor://app.example", "app.example", false),
            ("https://evil.example", "app.example", false),
        ] {
            let decision = origins(&[]).judge(&headers(&[("origin", origin)]), own, false);
            assert_eq!(decision, if same { allowed(origin) } else { Decision::Refused }, "{origin} {own}");
        }
    }

    #[test]
    fn p19_a_page_of_the_same_host_by_plain_http_is_another_origin() {
        let own = |origin: &str, host: &str, site: &str| {
            origins(&[]).judge(&headers(&[("origin", origin), (FETCH_SITE, site)]), host, false)
        };
        assert_eq!(own("http://app.example", OWN, "cross-site"), Decision::Refused);
        assert_eq!(own("http://app.example", OWN, "same-site"), Decision::Refused);
        assert_eq!(own("http://app.example", OWN, "same-origin"), allowed("http://app.example"));
        assert_eq!(own("https://app.example", OWN, "same-origin"), allowed("https://app.example"));
        for host in ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "[::1]", "localhost"] {
            let origin = format!("http://{host}");
            assert_eq!(own(&origin, host, "cross-site"), allowed(&origin));
        }
    }

    #[test]
    fn p19_without_origin_only_requests_that_no_other_site_can_make_pass() {
        let sites: &[(&[&str], bool)] = &[
            (&[], true),
            (&["same-origin"], true),
            (&["none"], true),
            (&["same-site"], false),
            (&["cross-site"], false),
            (&["Same-Origin"], false),
            (&[""], false),
            (&["same-origin", "cross-site"], false),
        ];
        for (sites, fine) in sites {
            let map = headers(&sites.iter().map(|site| (FETCH_SITE, *site)).collect::<Vec<_>>());
            for list in [&[][..], &["*"], &["https://good.example"]] {
                let expected = if *fine { Decision::Absent } else { Decision::Refused };
                assert_eq!(origins(list).judge(&map, OWN, false), expected, "{sites:?}");
                assert_eq!(origins(list).judge(&map, OWN, true), Decision::Refused, "{sites:?}");
            }
        }
    }

    #[test]
    fn p20_a_listed_origin_may_be_cross_site_and_is_echoed_as_it_came() {
        let map = headers(&[("origin", "https://good.example"), (FETCH_SITE, "cross-site")]);
        assert_eq!(origins(&["https://GOOD.example:443"]).judge(&map, OWN, true), allowed("https://good.example"));
    }

    #[test]
    fn every_bad_entry_of_the_list_is_named() {
        let entries: Vec<String> =
            ["https://good.example", "null", "https://*.example", "https://a/b", "a.example", "*", ""]
                .map(str::to_owned)
                .to_vec();
        let problems = Origins::parse(&entries).unwrap_err();
        assert_eq!(problems.len(), 6);
        for (problem, entry) in problems.iter().zip(&entries[1..]) {
            assert!(problem.contains(entry.as_str()), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn judging_never_panics_and_never_echoes_what_is_not_an_origin(
            value in proptest::collection::vec(0x20_u8..=0xff, 0..40),
            near in "(https?|null|://|good|[.]example|:|443|/|[*@,]){0,6}",
        ) {
            for value in [value, near.into_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                let mut map = HeaderMap::new();
                map.insert(ORIGIN, value.clone());
                for list in [&[][..], &["*"], &["https://good.example"]] {
                    if let Decision::Allowed { acao } = origins(list).judge(&map, "good.example", false) {
                        prop_assert!(acao == "*" || acao.as_bytes() == value.as_bytes());
                        prop_assert!(!value.as_bytes().contains(&b'/') || value.to_str().unwrap().matches('/').count() == 2);
                    }
                }
            }
        }
    }
}
