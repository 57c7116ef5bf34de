//! Signals: SIGTERM or SIGINT asks for a drain, SIGINT after that for an end at once.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, caught from the moment this is made until the process ends.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over. Needs a running tokio runtime.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first signal and returns its name: drain now.
    pub async fn drain(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for SIGINT: after [`Signals::drain`], somebody at a terminal who will not wait for the drain to end.
    /// A second SIGTERM is no reason: supervisors send it in good faith.
    pub async fn force(&mut self) {
        self.interrupt.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, id};

    fn send(name: &str) {
        assert!(Command::new("kill").args([name, &id().to_string()]).status().unwrap().success());
    }

    // One test: signals go to the whole process, and tests share it.
    #[tokio::test]
    async fn the_first_signal_drains_and_a_following_interrupt_forces() {
        let mut signals = Signals::catch().unwrap();
        send("-TERM");
        assert_eq!(signals.drain().await, "SIGTERM");
        send("-INT");
        signals.force().await;
        send("-INT");
        assert_eq!(signals.drain().await, "SIGINT");
    }
}
