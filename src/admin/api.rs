//! `/api/...`: what an operator may ask and order. JSON in, JSON out.

use crate::admin::query::Wrong;
use crate::admin::routes::Admin;
use crate::admin::{revocations, sessions};
use crate::protocol::json as strict;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of a request's body.
const MAX_BODY: usize = 16 * 1024;

/// A request's body must arrive within this time.
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// Answers a request below `/api/`; its sender is the operator.
pub async fn answer<B>(admin: &Admin, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && let Some(refusal) = from_a_page(request.headers()) {
        return refusal;
    }
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default());
    let registry = &admin.readiness.registry;
    let name = path.strip_prefix("/api/sessions/").filter(|name| !name.is_empty());
    match (request.method(), path.as_str(), name) {
        (&Method::GET | &Method::HEAD, "/api/sessions", _) => page(sessions::list(admin, query)),
        (&Method::GET | &Method::HEAD, "/api/revocations", _) => page(revocations::list(&admin.revoker, query)),
        (&Method::POST, "/api/revocations", _) => match object(request).await {
            Ok(body) => page(revocations::take(&admin.revoker, &admin.scope, &body).await),
            Err(refusal) => *refusal,
        },
        (&Method::GET | &Method::HEAD, _, Some(name)) => match sessions::one(registry, name) {
            Some(session) => json(StatusCode::OK, &session),
            None => no_session(),
        },
        (&Method::DELETE, _, Some(name)) if sessions::kick(registry, name) => {
            let mut response = json(StatusCode::NO_CONTENT, &Value::Null);
            *response.body_mut() = Full::default();
            response
        }
        (&Method::DELETE, _, Some(_)) => no_session(),
        (_, "/api/sessions", _) => not_so("GET"),
        (_, "/api/revocations", _) => not_so("GET, POST"),
        (_, _, Some(_)) => not_so("GET, DELETE"),
        _ => json(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
    }
}

/// A page in a browser on this machine may send what it likes to a loopback address, but not unsaid (P44).
fn from_a_page(headers: &HeaderMap) -> Option<Answer> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let elsewhere = site.is_some_and(|site| site != b"none" && site != b"same-origin");
    let refused = elsewhere || headers.contains_key(header::ORIGIN);
    refused.then(|| json(StatusCode::FORBIDDEN, &json!({"error": "not for pages: the request has an Origin"})))
}

async fn object<B>(request: Request<B>) -> Result<Map<String, Value>, Box<Answer>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let wrong = Wrong::new("content-type", kind, "application/json");
        return Err(Box::new(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, &wrong)));
    }
    let body = match timeout(PATIENCE, Limited::new(request.into_body(), MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let wrong = Wrong::new("body", "longer", format!("at most {MAX_BODY} bytes"));
            return Err(Box::new(refuse(StatusCode::PAYLOAD_TOO_LARGE, &wrong)));
        }
        _ => return Err(Box::new(json(StatusCode::REQUEST_TIMEOUT, &json!({"error": "the body did not arrive"})))),
    };
    let text = std::str::from_utf8(&body).unwrap_or_default().trim();
    strict::object(text).map_err(|error| {
        Box::new(refuse(StatusCode::BAD_REQUEST, &Wrong::new("body", error, "a JSON object, each member once")))
    })
}

fn page(result: Result<Value, Wrong>) -> Answer {
    match result {
        Ok(value) => json(StatusCode::OK, &value),
        Err(wrong) => refuse(StatusCode::BAD_REQUEST, &wrong),
    }
}

fn refuse(status: StatusCode, wrong: &Wrong) -> Answer {
    let Wrong { key, value, allowed } = wrong;
    json(status, &json!({"error": format!("{key} is not acceptable"), "key": key, "value": value, "allowed": allowed}))
}

fn no_session() -> Answer {
    json(StatusCode::NOT_FOUND, &json!({"error": "no such session"}))
}

fn not_so(allowed: &'static str) -> Answer {
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": format!("allowed: {allowed}")}));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn json(status: StatusCode, value: &Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
