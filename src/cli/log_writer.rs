//! Log lines on their way to standard error: collected in memory, written by a thread of their own.
//!
//! So a session's end costs no system call on the thread that relays, and a reader of the log that
//! stands still stops nobody: what does not fit is dropped, and counted.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Lines are collected for so long at most.
const DELAY: Duration = Duration::from_millis(20);

/// More than this is not kept for a reader that stands still.
const CAPACITY: usize = 1024 * 1024;

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where log lines are put.
#[derive(Clone)]
pub struct LogWriter(Arc<Shared>);

/// Writes what is left when it is dropped.
pub struct Flush {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the writing thread.
///
/// # Errors
/// Where no thread can be started.
pub fn start() -> io::Result<(LogWriter, Flush)> {
    let shared = Arc::new(Shared::default());
    let writing = shared.clone();
    let thread = thread::Builder::new().name("log".into()).spawn(move || write(&writing))?;
    Ok((LogWriter(shared.clone()), Flush { shared, thread: Some(thread) }))
}

fn write(shared: &Shared) {
    loop {
        let mut state = shared.lock();
        while state.lines.is_empty() && !state.closed {
            state = shared.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (lines, dropped, closed) =
            (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped), state.closed);
        drop(state);
        // Nobody is there to be told of a standard error that cannot be written.
        let _ = io::stderr().write_all(&lines);
        if dropped > 0 {
            let _ =
                writeln!(io::stderr(), "{{\"level\":\"WARN\",\"message\":\"log lines dropped\",\"lines\":{dropped}}}");
        }
        if closed {
            return;
        }
        thread::sleep(DELAY);
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.more.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One event's line.
pub struct Line<'a>(&'a Shared);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.lines.len().saturating_add(line.len()) > CAPACITY {
            state.dropped += 1;
            return Ok(line.len());
        }
        let wake = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        drop(state);
        if wake {
            self.0.more.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_capacity_are_dropped_and_counted() {
        let shared = Shared::default();
        let line = vec![b'x'; CAPACITY / 2];
        for _ in 0..3 {
            assert_eq!(Line(&shared).write(&line).unwrap(), line.len());
        }
        let state = shared.lock();
        assert_eq!((state.lines.len(), state.dropped), (CAPACITY, 1));
    }
}
