//! The backends: whose turn it is, and who has been failing lately.

use crate::config::model;
use crate::upstream::connect::Endpoint;
use crate::upstream::target::{Target, TargetError};
use crate::upstream::tls::{self, TlsError};
use http::HeaderValue;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A backend that failed is left alone for so long at first, doubling up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One backend.
pub struct Backend {
    /// Its place in `upstream.urls`.
    pub id: usize,
    /// As the operator wrote it.
    pub url: String,
    /// The `Host` header where the caller gives none.
    pub host: HeaderValue,
    /// How to connect.
    pub endpoint: Endpoint,
    /// Failures in a row. Read before the lock is taken, so that a healthy backend costs none.
    failures: AtomicU32,
    pause: Mutex<Option<Instant>>,
}

/// All backends; a cheap handle.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    backends: Vec<Arc<Backend>>,
    turn: AtomicUsize,
    down: Notify,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Not one backend.
    #[error("upstream.urls: at least one backend is needed")]
    Empty,
    /// A bad address.
    #[error("upstream.urls: {0}")]
    Target(#[from] TargetError),
    /// TLS cannot be set up.
    #[error("upstream: {0}")]
    Tls(#[from] TlsError),
    /// The address cannot be used with TLS.
    #[error("upstream.urls: {url}: {detail}")]
    Endpoint {
        /// Which one.
        url: String,
        /// Why.
        detail: String,
    },
}

impl Pool {
    /// Builds the backends of the configuration; nothing is dialled yet.
    ///
    /// # Errors
    /// Where an address or the CA file is bad.
    pub fn new(config: &model::Upstream) -> Result<Self, PoolError> {
        let targets = config.urls.iter().map(|url| Target::parse(url)).collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            return Err(PoolError::Empty);
        }
        // Reading all authorities takes milliseconds: only where they are needed.
        let tls = match targets.iter().any(|t| t.tls) {
            true => Some(tls::client_config(config.ca_file.as_deref())?),
            false => None,
        };
        let mut backends = Vec::with_capacity(targets.len());
        for (id, (url, target)) in config.urls.iter().zip(&targets).enumerate() {
            let endpoint = Endpoint::new(target, tls.as_ref())
                .map_err(|e| PoolError::Endpoint { url: url.clone(), detail: e.to_string() })?;
            backends.push(Arc::new(Backend {
                id,
                url: url.clone(),
                host: target.authority.clone(),
                endpoint,
                failures: AtomicU32::new(0),
                pause: Mutex::new(None),
            }));
        }
        Ok(Self(Arc::new(Inner { backends, turn: AtomicUsize::new(0), down: Notify::new() })))
    }

    /// Every backend, in the order of the configuration.
    #[must_use]
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.0.backends
    }

    /// Whom to try, in this order: those in turn that are not being left alone; all, where that is nobody.
    #[must_use]
    pub fn candidates(&self, now: Instant) -> Vec<Arc<Backend>> {
        let all = &self.0.backends;
        let start = self.0.turn.fetch_add(1, Ordering::Relaxed).checked_rem(all.len()).unwrap_or(0);
        let in_turn = || all.iter().cycle().skip(start).take(all.len());
        let well: Vec<_> = in_turn().filter(|b| !b.is_paused(now)).cloned().collect();
        if well.is_empty() { in_turn().cloned().collect() } else { well }
    }

    /// The backend whose turn it is.
    #[must_use]
    pub fn pick(&self, now: Instant) -> Option<Arc<Backend>> {
        self.candidates(now).into_iter().next()
    }

    /// A connection to `backend` was answered.
    pub fn succeeded(&self, backend: &Backend) {
        backend.succeeded();
    }

    /// A connection to `backend` could not be made, or was not answered.
    pub fn failed(&self, backend: &Backend, now: Instant) {
        if backend.failed(now) {
            tracing::warn!(backend = %backend.url, "backend does not answer");
            self.0.down.notify_one();
        }
    }

    /// How many backends are not being left alone.
    #[must_use]
    pub fn healthy_count(&self, now: Instant) -> usize {
        self.0.backends.iter().filter(|b| !b.is_paused(now)).count()
    }

    /// Waits until a backend that was well has failed. For one waiter.
    pub async fn wait_for_failure(&self) {
        self.0.down.notified().await;
    }
}

impl Backend {
    /// Has the last connection failed?
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 0
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.is_failing() && self.pause(|pause| pause.is_some_and(|until| until > now))
    }

    fn succeeded(&self) {
        if self.is_failing()
            && self.pause(|pause| pause.take().is_some() | (self.failures.swap(0, Ordering::Relaxed) > 0))
        {
            tracing::info!(backend = %self.url, "backend answers again");
        }
    }

    /// Returns true where it was well before. Failures of dials that were under way together count once.
    fn failed(&self, now: Instant) -> bool {
        self.pause(|pause| {
            if pause.is_some_and(|until| until > now) {
                return false;
            }
            let before = self.failures.load(Ordering::Relaxed);
            self.failures.store(before.saturating_add(1), Ordering::Relaxed);
            let length = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(before)).min(LONGEST_PAUSE);
            *pause = now.checked_add(length);
            before == 0
        })
    }

    fn pause<T>(&self, f: impl FnOnce(&mut Option<Instant>) -> T) -> T {
        f(&mut self.pause.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(n: u16) -> Pool {
        let urls = (1..=n).map(|port| format!("http://127.0.0.1:{port}")).collect();
        Pool::new(&model::Upstream { urls, ..model::Upstream::default() }).unwrap()
    }

    fn order(pool: &Pool, now: Instant) -> Vec<usize> {
        pool.candidates(now).iter().map(|b| b.id).collect()
    }

    #[test]
    fn backends_take_turns_and_each_list_holds_all() {
        let (pool, now) = (pool(3), Instant::now());
        assert_eq!(order(&pool, now), [0, 1, 2]);
        assert_eq!(order(&pool, now), [1, 2, 0]);
        assert_eq!(order(&pool, now), [2, 0, 1]);
        assert_eq!(pool.pick(now).unwrap().id, 0);
    }

    #[test]
    fn a_failing_backend_is_left_alone_for_a_growing_time() {
        let (pool, mut now) = (pool(2), Instant::now());
        let bad = Arc::clone(&pool.backends()[0]);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            pool.failed(&bad, now);
            assert_eq!(order(&pool, now), [1]);
            assert_eq!(pool.healthy_count(now), 1);
            now += Duration::from_millis(seconds * 1000 - 1);
            assert_eq!(order(&pool, now), [1], "{seconds}");
            now += Duration::from_millis(1);
            assert_eq!(order(&pool, now).len(), 2, "{seconds}");
        }
        pool.succeeded(&bad);
        assert!(!bad.is_failing());
        pool.failed(&bad, now);
        now += Duration::from_secs(1);
        assert_eq!(pool.healthy_count(now), 2);
    }

    #[test]
    fn a_hundred_dials_that_fail_together_are_one_failure() {
        let (pool, now) = (pool(2), Instant::now());
        for _ in 0..100 {
            pool.failed(&pool.backends()[0], now);
        }
        assert_eq!(pool.healthy_count(now + Duration::from_secs(1)), 2);
    }

    #[test]
    fn where_all_are_left_alone_all_are_tried() {
        let (pool, now) = (pool(2), Instant::now());
        for backend in pool.backends() {
            pool.failed(backend, now);
        }
        assert_eq!(pool.healthy_count(now), 0);
        assert_eq!(order(&pool, now).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_wakes_the_waiter() {
        let pool = pool(1);
        pool.failed(&pool.backends()[0], Instant::now());
        pool.wait_for_failure().await;
    }

    #[test]
    fn a_pool_needs_a_backend_and_good_addresses() {
        let with = |urls: &[&str]| {
            let urls = urls.iter().map(ToString::to_string).collect();
            Pool::new(&model::Upstream { urls, ..model::Upstream::default() })
        };
        assert!(matches!(with(&[]), Err(PoolError::Empty)));
        assert!(matches!(with(&["http://a/b"]), Err(PoolError::Target(_))));
        assert!(with(&["https://127.0.0.1", "unix:/x"]).is_ok());
    }
}
