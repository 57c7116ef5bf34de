//! The keeping of keys against a server made of answers, on a clock that only waiting moves.

mod configured;
mod discovered;
mod refreshing;
mod wanted;

use super::*;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use std::collections::VecDeque;
use tokio::time::advance;

const URL: &str = "https://login.example/keys";

/// A key server made of answers; the last one is repeated.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<Result<Fetched, FetchError>>,
    asked: Vec<(FetchRequest, Instant)>,
    delay: Duration,
}

impl Fake {
    fn saying(answers: impl IntoIterator<Item = Result<Fetched, FetchError>>) -> Self {
        let fake = Self::default();
        fake.0.lock().unwrap().answers = answers.into_iter().collect();
        fake
    }

    fn slow(self, delay: Duration) -> Self {
        self.0.lock().unwrap().delay = delay;
        self
    }

    fn then(&self, answer: Result<Fetched, FetchError>) {
        self.0.lock().unwrap().answers = [answer].into();
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().asked.len()
    }

    fn asked(&self, n: usize) -> FetchRequest {
        self.0.lock().unwrap().asked[n].0.clone()
    }

    /// Seconds between the fetches.
    fn pauses(&self) -> Vec<f64> {
        let script = self.0.lock().unwrap();
        script.asked.windows(2).map(|w| (w[1].1 - w[0].1).as_secs_f64()).collect()
    }
}

impl Fetch for Fake {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        let (answer, delay) = {
            let mut script = self.0.lock().unwrap();
            script.asked.push((request.clone(), Instant::now()));
            let answer = match script.answers.len() {
                0 | 1 => script.answers.front().cloned(),
                _ => script.answers.pop_front(),
            };
            (answer.unwrap_or(Err(FetchError::Status(500))), script.delay)
        };
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer
        })
    }
}

fn body(text: &str) -> Result<Fetched, FetchError> {
    aged(text, None)
}

fn aged(text: &str, max_age: Option<u64>) -> Result<Fetched, FetchError> {
    let validators =
        Validators { etag: HeaderValue::from_str(&format!("\"{}\"", text.len())).ok(), last_modified: None };
    Ok(Fetched::Body {
        body: Bytes::copy_from_slice(text.as_bytes()),
        validators,
        max_age: max_age.map(Duration::from_secs),
    })
}

fn unmodified() -> Result<Fetched, FetchError> {
    Ok(Fetched::NotModified { max_age: None })
}

fn down() -> Result<Fetched, FetchError> {
    Err(FetchError::Status(500))
}

/// Everything that was published. Bodies are `a b c`: three keys; anything with `<` is unusable, as is nothing.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<String>>>);

impl Store {
    fn publish(&self) -> Publish {
        let store = self.clone();
        Arc::new(move |body| {
            let text = String::from_utf8(body.to_vec()).map_err(|e| e.to_string())?;
            let keys = text.split_whitespace().count();
            if keys == 0 || text.contains('<') {
                return Err("no usable key".into());
            }
            store.0.lock().unwrap().push(text);
            Ok(keys)
        })
    }

    fn current(&self) -> Option<String> {
        self.0.lock().unwrap().last().cloned()
    }
}

fn source(fake: &Fake, store: &Store) -> KeySource {
    KeySource {
        index: 3,
        name: "login".into(),
        place: Place::Known(Location::parse(URL, false).unwrap()),
        max_stale: Duration::from_secs(3600),
        fetch: Arc::new(fake.clone()),
        publish: store.publish(),
    }
}

fn start(fake: &Fake) -> (KeyFetcher, Store) {
    let store = Store::default();
    (KeyFetcher::start(vec![source(fake, &store)]), store)
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
