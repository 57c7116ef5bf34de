//! Log records as JSON, one a line, written field by field into a buffer of the thread: a session's end is one
//! record, and sessions end by the thousand.
//!
//! P43: what JSON lets through but a terminal obeys (DEL, the C1 controls, marks that turn the direction of writing)
//! is escaped as well.

use crate::cli::logging::is_unsafe;
use std::cell::RefCell;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;

/// Larger buffers are given back after use.
const KEPT: usize = 16 * 1024;

/// Numbers below are written in two halves, which is cheaper.
const MAX_SPLIT: f64 = 1e9;

const MICROS: u64 = 1_000_000;

thread_local! {
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Writes every event as one JSON object: `timestamp`, `level`, the event's fields, `target`.
pub struct JsonLayer<W>(pub W);

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // An event inside of a field's own formatting would find the buffer taken: it has one of its own.
        let mut line =
            LINE.with(|line| line.try_borrow_mut().map(|mut line| std::mem::take(&mut *line))).unwrap_or_default();
        line.push_str("{\"timestamp\":\"");
        timestamp(&mut line);
        let metadata = event.metadata();
        line.push_str("\",\"level\":\"");
        line.push_str(metadata.level().as_str());
        line.push('"');
        event.record(&mut Fields(&mut line));
        line.push_str(",\"target\":");
        string(&mut line, metadata.target());
        line.push_str("}\n");
        // Nobody is there to be told of a log that cannot be written.
        let _ = self.0.make_writer().write_all(line.as_bytes());
        line.clear();
        if line.capacity() <= KEPT {
            LINE.with(|kept| kept.try_borrow_mut().map(|mut kept| *kept = line)).unwrap_or_default();
        }
    }
}

struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        // Names stand in our sources, and none of them needs escaping.
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
    }

    fn plain(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        let _ = self.0.write_fmt(value);
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        self.0.push('"');
        let _ = Escaping(self.0).write_fmt(value);
        self.0.push('"');
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        string(self.0, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        number(self.0, value, 1);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if (0.0..MAX_SPLIT).contains(&value) {
            // Seconds: to the microsecond.
            let micros = (value * 1e6).round() as u64;
            self.name(field);
            number(self.0, micros / MICROS, 1);
            self.0.push('.');
            number(self.0, micros % MICROS, 6);
        } else if value.is_finite() {
            self.plain(field, format_args!("{value}"));
        } else {
            self.plain(field, format_args!("null"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

/// Escapes what is written through it.
struct Escaping<'a>(&'a mut String);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

/// The time in UTC. Its text up to the second is kept: a second sees thousands of records.
fn timestamp(out: &mut String) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            text.clear();
            // Its text needs no escaping.
            let _ = SystemTime.format_time(&mut Writer::new(text));
            text.truncate(text.find('.').unwrap_or_default());
            // The library has read the clock once more: perhaps in the next second.
            let after = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            *second = if after.as_secs() == since.as_secs() { since.as_secs() } else { 0 };
        }
        out.push_str(text);
    });
    out.push('.');
    number(out, u64::from(since.subsec_micros()), 6);
    out.push('Z');
}

/// A number in decimal, of at least so many digits.
fn number(out: &mut String, mut value: u64, least: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while value > 0 || digits.len() - first < least {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.push_str(std::str::from_utf8(&digits[first..]).unwrap_or_default());
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    escape(out, text);
    out.push('"');
}

fn escape(out: &mut String, text: &str) {
    let harmless = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    // Several bytes at once: leaving early would cost more.
    if text.bytes().fold(true, |all, byte| all & harmless(byte)) {
        return out.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of these are in the basic plane: four digits are enough.
            c if is_unsafe(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for value in [0, 1, 9, 10, 99, 1_000_000, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(written(|out| number(out, value, 1)), value.to_string());
            assert_eq!(written(|out| number(out, value, 6)), format!("{value:06}"));
        }
    }

    #[test]
    fn the_time_is_that_of_the_clock_to_the_microsecond() {
        for _ in 0..3 {
            let own = written(timestamp);
            let library = written(|out| SystemTime.format_time(&mut Writer::new(out)).unwrap());
            assert_eq!((own.len(), own.len()), (27, library.len()), "{own} {library}");
            assert!(own.ends_with('Z') && own <= library, "{own} {library}");
        }
    }
}
