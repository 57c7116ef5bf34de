//! Gives memory back after most sessions have ended.
//!
//! The allocator keeps freed pages for a second, in case they are wanted again, and looks after them when somebody
//! allocates much or when a thread ends. After a mass close nobody allocates: a thread comes and goes instead.

use crate::session::registry::Registry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Fewer sessions leave too little behind to speak of an ebb.
const LEAST: usize = 1000;

/// No number of sessions.
const NEVER: usize = usize::MAX;

/// A little longer than the allocator keeps what was freed.
const PAUSE: Duration = Duration::from_millis(1100);

/// The last session may end a while after the first.
const ROUNDS: usize = 3;

/// How many sessions there were, and whether most of them have gone.
pub(super) struct Tide {
    /// It goes out when so many are left.
    half: AtomicUsize,
    ebbs: Notify,
}

impl Default for Tide {
    fn default() -> Self {
        Self { half: AtomicUsize::new(NEVER), ebbs: Notify::new() }
    }
}

impl Tide {
    /// One of `inside` sessions has gone.
    pub(super) fn fell_from(&self, inside: usize) {
        if inside == self.half.load(Ordering::Relaxed) {
            self.ebbs.notify_one();
        }
    }
}

impl Registry {
    /// Notes how many are inside.
    pub fn mark(&self) {
        let (half, tide) = (self.len() / 2, &self.0.tide.half);
        let noted = tide.load(Ordering::Relaxed);
        if half >= LEAST && (noted == NEVER || half > noted) {
            tide.store(half, Ordering::Relaxed);
        }
    }

    /// Resolves when half of the sessions have gone that were inside when most were, if they were many. For one
    /// waiter.
    async fn ebb(&self) {
        self.0.tide.ebbs.notified().await;
        self.0.tide.half.store(NEVER, Ordering::Relaxed);
    }
}

/// Runs for as long as it is polled; `give_back` is called when memory may be given back.
pub async fn run(registry: Registry, mut give_back: impl FnMut()) {
    loop {
        registry.ebb().await;
        for _ in 0..ROUNDS {
            sleep(PAUSE).await;
            give_back();
        }
    }
}

/// Threads that come and go.
#[derive(Default)]
pub struct Passer(Option<JoinHandle<()>>);

impl Passer {
    /// Lets one pass by. It has allocated something, so the allocator tidies up behind it.
    pub fn pass(&mut self) {
        // The one before has ended long ago.
        if let Some(before) = self.0.take_if(|before| before.is_finished()) {
            let _ = before.join();
        }
        if self.0.is_none() {
            self.0 = thread::Builder::new().name("ebb".into()).spawn(|| drop(vec![0_u8; 64])).ok();
        }
    }
}
