//! The operator's log: one event a line on standard error, as text for people or JSON for machines.
//!
//! P43: clients choose subjects, paths, key ids and user agents. Whatever they put there, a record stays one line,
//! and no terminal obeys it: control characters are escaped and long values cut.

use crate::cli::json_log::JsonLayer;
use crate::cli::log_writer::{self, Flush};
use crate::config::model::{Log, LogFormat};
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::field::{MakeVisitor, VisitFmt, VisitOutput};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::SubscriberExt;

/// No field of a text record is longer.
const LONGEST_FIELD: usize = 2048;

/// Starts logging for the whole process; what is returned has to be held until its end.
///
/// # Errors
/// A sentence, where the filter cannot be read or logging has been started already.
pub fn init(log: &Log) -> Result<Flush, String> {
    let (writer, flush) = log_writer::start().map_err(|error| error.to_string())?;
    let subscriber = subscriber(log, writer, io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|error| error.to_string())?;
    Ok(flush)
}

/// The subscriber that `log` asks for.
///
/// # Errors
/// A sentence, where the filter cannot be read.
pub fn subscriber<W>(log: &Log, writer: W, terminal: bool) -> Result<Box<dyn Subscriber + Send + Sync>, String>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let text = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = if text {
        let ansi = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // Without this, a closed standard error would end the process by a panic in `eprintln!`.
        let layer = tracing_subscriber::fmt::layer().log_internal_errors(false);
        layer.fmt_fields(EscapedFields).with_ansi(ansi).with_writer(writer).boxed()
    } else {
        JsonLayer(writer).boxed()
    };
    Ok(Box::new(tracing_subscriber::registry().with(layer.with_filter(filter(&log.level)?))))
}

/// A single level is for the gate itself: libraries say no more than their warnings. A filter is taken as it is.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let level = level.trim();
    let single = !level.contains(['=', ',']);
    let quiet = ["off", "error", "warn"].iter().any(|word| word.eq_ignore_ascii_case(level));
    let directives = if single && !quiet { format!("warn,siogate={level}") } else { level.to_string() };
    EnvFilter::try_new(directives).map_err(|error| format!("log.level: {error}"))
}

/// Whether a terminal or a reader of lines would take `c` for something else than a letter: control characters, line
/// separators, and the marks that turn the direction of writing.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes `value` on one line, cut at [`LONGEST_FIELD`] bytes.
struct Escaping<'a, 'w> {
    out: &'a mut Writer<'w>,
    left: usize,
    cut: bool,
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.cut {
                return Ok(());
            }
            if self.left < c.len_utf8() {
                self.cut = true;
                return self.out.write_str("...");
            }
            self.left -= c.len_utf8();
            if is_unsafe(c) {
                write!(self.out, "{}", c.escape_default())?;
            } else {
                self.out.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Fields as `name=value`, every value escaped.
struct EscapedFields;

impl<'w> MakeVisitor<Writer<'w>> for EscapedFields {
    type Visitor = EscapedVisitor<'w>;

    fn make_visitor(&self, writer: Writer<'w>) -> Self::Visitor {
        EscapedVisitor { writer, first: true, result: Ok(()) }
    }
}

struct EscapedVisitor<'w> {
    writer: Writer<'w>,
    first: bool,
    result: fmt::Result,
}

impl EscapedVisitor<'_> {
    fn write(&mut self, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.writer.write_char(' ')?;
        }
        if field.name() != "message" {
            write!(self.writer, "{}=", field.name())?;
        }
        write!(Escaping { out: &mut self.writer, left: LONGEST_FIELD, cut: false }, "{value:?}")
    }
}

impl Visit for EscapedVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_ok() {
            self.result = self.write(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl VisitOutput<fmt::Result> for EscapedVisitor<'_> {
    fn finish(self) -> fmt::Result {
        self.result
    }
}

impl VisitFmt for EscapedVisitor<'_> {
    fn writer(&mut self) -> &mut dyn fmt::Write {
        &mut self.writer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, terminal: bool, work: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let log = Log { level: level.into(), format };
        let subscriber = subscriber(&log, move || writer.clone(), terminal).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    const NASTY: &str = "a\r\nb\u{1b}[31m\u{9b}2J\u{7f}\u{202e}\u{2028}\t\u{0}\"";

    fn nasty_event() {
        let error = io::Error::other(NASTY);
        tracing::info!(target: "siogate::access", subject = NASTY, path = %NASTY, kid = ?NASTY, error = &error as &dyn std::error::Error, "said {NASTY}");
    }

    #[test]
    fn p43_a_text_record_stays_one_line_without_control_characters() {
        let text = logged("info", LogFormat::Text, false, || {
            let span = tracing::info_span!("session", user = %NASTY);
            let _entered = span.enter();
            nasty_event();
        });
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(!text.trim_end().chars().any(is_unsafe), "{text:?}");
        assert!(text.contains("said a\\r\\nb\\u{1b}[31m\\u{9b}2J"), "{text:?}");
    }

    #[test]
    fn p43_a_json_record_stays_one_line_without_control_characters() {
        let text = logged("info", LogFormat::Json, false, nasty_event);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(!text.trim_end().chars().any(is_unsafe), "{text:?}");
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["subject"], NASTY, "fields are at the top level and nothing is lost");
        assert_eq!(record["message"], format!("said {NASTY}"));
        assert_eq!(record["level"], "INFO");
        assert_eq!(record["target"], "siogate::access");
    }

    #[test]
    fn p43_a_long_field_is_cut() {
        let text = logged("info", LogFormat::Text, false, || {
            tracing::info!(target: "siogate", agent = "x".repeat(100_000), "done");
        });
        assert!(text.len() < LONGEST_FIELD + 200, "{}", text.len());
        assert!(text.contains("xxx..."));
    }

    #[test]
    fn a_terminal_gets_text_and_a_pipe_gets_json() {
        let event = || tracing::warn!(target: "siogate", answer = 42, "hello");
        let piped = logged("info", LogFormat::Auto, false, event);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&piped).unwrap()["answer"], 42);
        let shown = logged("info", LogFormat::Auto, true, event);
        assert!(shown.contains("hello answer=42"), "{shown:?}");
    }

    #[test]
    fn a_single_level_is_for_the_gate_and_a_filter_for_what_it_names() {
        let events = || {
            tracing::debug!(target: "siogate::proxy", "ours");
            tracing::debug!(target: "hyper", "theirs");
            tracing::error!(target: "hyper", "loud");
        };
        let said = |level: &str| {
            let text = logged(level, LogFormat::Text, false, events);
            ["ours", "theirs", "loud"].map(|word| text.contains(word))
        };
        assert_eq!(said("debug"), [true, false, true]);
        assert_eq!(said("info"), [false, false, true]);
        assert_eq!(said("OFF"), [false, false, false]);
        assert_eq!(said("error"), [false, false, true]);
        assert_eq!(said("info,hyper=debug"), [false, true, true]);
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        for bad in ["siogate=loud", "info,=,=debug=x"] {
            let log = Log { level: bad.into(), format: LogFormat::Text };
            assert!(subscriber(&log, io::sink, false).is_err(), "{bad}");
        }
    }
}
