//! What a browser gets from the playground: the page, the stock client, settings, and tokens.

use crate::dev::door::{self, Answer};
use crate::dev::issuer::{AUDIENCE, Issuer, Order};
use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
};
use http::uri::Scheme;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The stock browser client: npm `socket.io-client` 4.8.4 `dist/socket.io.min.js`, byte for byte (MIT, see the
/// licence beside it).
pub const CLIENT: &[u8] = include_bytes!("assets/socket.io.min.js");

const HTML: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/style.css");
/// Parts of one script: they share a scope, in this order.
const SCRIPTS: [&str; 3] =
    [include_str!("assets/packets.js"), include_str!("assets/view.js"), include_str!("assets/app.js")];

/// An order is a handful of fields.
const BODY: usize = 8 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The playground's web side.
pub struct Page {
    issuer: Issuer,
    gate: ArcSwapOption<String>,
    lifetime: Duration,
    upstream: Option<String>,
    html: Bytes,
    /// The policy without its `connect-src`.
    policy: String,
}

impl Page {
    /// `upstream` is the user's own backend, where there is one.
    pub fn new(issuer: Issuer, lifetime: Duration, upstream: Option<String>) -> Self {
        let script = format!("\"use strict\";\n(() => {{\n{}\n}})();", SCRIPTS.join("\n"));
        let html = HTML.replacen("{{style}}", STYLE, 1).replacen("{{script}}", &script, 1);
        // Inline, but nothing else inline: the browser runs exactly these bytes.
        let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())));
        let policy = format!(
            "default-src 'none'; script-src 'self' {}; style-src {}; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash(&script),
            hash(STYLE),
        );
        Self { issuer, gate: ArcSwapOption::empty(), lifetime, upstream, html: html.into(), policy }
    }

    /// Tells the page where the gate is, such as `http://127.0.0.1:8080`. Anything but an origin is not believed.
    pub fn set_gate_url(&self, url: &str) {
        self.gate.store(origin(url).map(Arc::new));
    }

    /// One request.
    pub async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let path = request.uri().path();
        if path == "/token" {
            return match *request.method() {
                Method::POST => self.token(request).await,
                _ => not_allowed("POST"),
            };
        }
        let answer = match path {
            "/" => self.html(),
            "/socket.io.min.js" => door::answer(StatusCode::OK, "text/javascript; charset=utf-8", CLIENT),
            "/settings.json" => door::json(StatusCode::OK, &self.settings()),
            "/jwks.json" => door::json(StatusCode::OK, &self.issuer.jwks()),
            "/.well-known/openid-configuration" => door::json(StatusCode::OK, &self.issuer.discovery()),
            _ => return door::text(StatusCode::NOT_FOUND, "nothing here\n"),
        };
        if matches!(*request.method(), Method::GET | Method::HEAD) { answer } else { not_allowed("GET, HEAD") }
    }

    fn html(&self) -> Answer {
        let mut answer = door::answer(StatusCode::OK, "text/html; charset=utf-8", self.html.clone());
        let gate = self.gate.load();
        let connect = match gate.as_deref().and_then(|url| Some((url, url.strip_prefix("http")?))) {
            Some((url, rest)) => format!("'self' {url} ws{rest}"),
            None => "'self'".to_owned(),
        };
        let headers = answer.headers_mut();
        if let Ok(policy) = HeaderValue::from_str(&format!("{}; connect-src {connect}", self.policy)) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("same-origin"));
        }
        answer
    }

    fn settings(&self) -> serde_json::Value {
        json!({
            "gate": self.gate.load().as_deref(),
            "issuer": self.issuer.url(),
            "audience": AUDIENCE,
            "lifetime": self.lifetime.as_secs(),
            "upstream": self.upstream,
        })
    }

    async fn token<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let problem = |status, detail: &str| {
            door::json(status, &json!({ "error": "invalid_request", "error_description": detail }))
        };
        if foreign(request.headers()) {
            return problem(StatusCode::FORBIDDEN, "another site may not ask for tokens");
        }
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let body = Limited::new(request.into_body(), BODY).collect();
        let Ok(Ok(body)) = tokio::time::timeout(BODY_TIMEOUT, Box::pin(body)).await else {
            return problem(StatusCode::BAD_REQUEST, "the body did not come, or is too large");
        };
        let order = match Order::read(&content_type, &body.to_bytes()) {
            Ok(order) => order,
            Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match self.issuer.mint(&order, now) {
            Ok((token, left)) => door::json(
                StatusCode::OK,
                &json!({ "access_token": token, "token_type": "Bearer", "expires_in": left }),
            ),
            Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = door::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// True for a request that a page of another origin made. Programs that are no browser send neither header.
fn foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or_default());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let host = text(HOST).unwrap_or_default();
    text(ORIGIN).is_some_and(|origin| origin.strip_prefix("http://") != Some(host))
}

/// `scheme://host:port` and nothing more, as it may stand in a policy.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme().filter(|s| **s == Scheme::HTTP || **s == Scheme::HTTPS)?;
    let authority = uri.authority().map(http::uri::Authority::as_str)?;
    let plain = authority.chars().all(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(c));
    plain.then(|| format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    fn page() -> Page {
        let issuer = Issuer::new("http://127.0.0.1:8081".into(), Duration::from_secs(20)).unwrap();
        Page::new(issuer, Duration::from_secs(20), None)
    }

    fn ask(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
        let mut builder = Request::builder().method(method).uri(path).header(HOST, "127.0.0.1:8081");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
    }

    async fn body(answer: Answer) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_policy_admits_the_inline_script_and_the_gate_and_nothing_else() {
        let page = page();
        page.set_gate_url("http://127.0.0.1:9999/");
        let answer = page.answer(ask(Method::GET, "/", &[], "")).await;
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("connect-src 'self' http://127.0.0.1:9999 ws://127.0.0.1:9999"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let html = body(answer).await;
        for (tag, end) in [("<script>", "</script>"), ("<style>", "</style>")] {
            let start = html.find(tag).unwrap() + tag.len();
            let inline = &html[start..start + html[start..].find(end).unwrap()];
            assert!(policy.contains(&STANDARD.encode(digest(&SHA256, inline.as_bytes()))), "{tag}");
        }
        assert!(!html.contains("{{"), "a place was not filled");
        for attribute in [" style=", " onclick=", " onsubmit=", " onload="] {
            assert!(!HTML.contains(attribute), "{attribute} is what the policy forbids");
        }
    }

    #[tokio::test]
    async fn settings_learn_where_the_gate_is() {
        let page = page();
        let settings = |answer| async { serde_json::from_str::<serde_json::Value>(&body(answer).await).unwrap() };
        let before = settings(page.answer(ask(Method::GET, "/settings.json", &[], "")).await).await;
        assert!(before["gate"].is_null());
        page.set_gate_url("http://127.0.0.1:9999");
        let after = settings(page.answer(ask(Method::GET, "/settings.json", &[], "")).await).await;
        assert_eq!(after["gate"], "http://127.0.0.1:9999");
        page.set_gate_url("http://127.0.0.1:9999 'unsafe-inline'");
        assert!(page.gate.load().is_none());
        page.set_gate_url("javascript:alert(1)");
        assert!(page.gate.load().is_none());
    }

    #[tokio::test]
    async fn a_token_is_had_for_the_asking_but_not_by_another_site() {
        let page = page();
        let json = ("content-type", "application/json");
        let answer = page.answer(ask(Method::POST, "/token", &[json], r#"{"sub":"bob","lifetime":5}"#)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(body(answer).await.contains(r#""expires_in":5"#));
        for (name, value) in [
            ("origin", "https://evil.test"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:8080"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let answer = page.answer(ask(Method::POST, "/token", &[json, (name, value)], "{}")).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}: {value}");
        }
        let own = [json, ("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "same-origin")];
        assert_eq!(page.answer(ask(Method::POST, "/token", &own, "{}")).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn bad_orders_and_methods_are_refused() {
        let page = page();
        let json = [("content-type", "application/json")];
        let large = format!(r#"{{"x":"{}"}}"#, "a".repeat(BODY));
        for bad in ["", "{", r#"{"lifetime":0}"#, large.as_str()] {
            assert_eq!(page.answer(ask(Method::POST, "/token", &json, bad)).await.status(), StatusCode::BAD_REQUEST);
        }
        assert_eq!(page.answer(ask(Method::GET, "/token", &[], "")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(page.answer(ask(Method::POST, "/", &[], "")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(page.answer(ask(Method::GET, "/../x", &[], "")).await.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn the_vendored_client_keeps_its_licence() {
        assert!(std::str::from_utf8(CLIENT).unwrap().starts_with("/*!\n * Socket.IO v4."));
    }
}
