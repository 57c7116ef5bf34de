//! The gate's own log, kept: every record that this thread's tasks write, as the operator would see it.

use siogate::cli::logging;
use siogate::config::model::{Log, LogFormat};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Sink {
    type Writer = Sink;

    fn make_writer(&'w self) -> Sink {
        self.clone()
    }
}

/// Captures while it lives. Tests run on one thread each, so it sees the whole gate and nobody else's.
pub struct Logs {
    sink: Sink,
    _guard: DefaultGuard,
}

impl Logs {
    pub fn capture(format: LogFormat) -> Self {
        let sink = Sink::default();
        let log = Log { level: "debug,siogate=trace".into(), format };
        let subscriber = logging::subscriber(&log, sink.clone(), true).unwrap();
        Self { sink, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.sink.0.lock().unwrap().clone()).unwrap()
    }
}
