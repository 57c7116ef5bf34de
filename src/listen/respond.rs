//! Writes an answer: its head and as much of its body as is there in one write.

use crate::listen::requests::poll_more;
use crate::proxy::reply::{Answer, Body, BodyError};
use crate::stream::Stream;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, response};
use hyper::body::{Body as _, Frame};
use std::cell::Cell;
use std::fmt::Write;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{Sleep, sleep};

/// A piece of this size is worth a write of its own rather than a copy.
const LARGE: usize = 16 * 1024;

/// Where an answer goes.
pub struct Wire<'a> {
    /// The client.
    pub stream: &'a mut Stream,
    /// What it sends meanwhile; `None` where it has sent its next request already.
    pub ahead: Option<&'a mut BytesMut>,
    /// A write may wait so long.
    pub patience: Duration,
    /// The time, in seconds.
    pub unix: u64,
    /// The connection is closed afterwards.
    pub close: bool,
}

/// How the body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// Writes an answer to a request; `Ok(false)`: nothing more may follow it.
///
/// # Errors
/// Where the client does not take it, or a body breaks off: its end cannot be told to the client but by closing.
pub async fn write(mut wire: Wire<'_>, answer: Answer, head_only: bool) -> io::Result<bool> {
    let (parts, mut body) = answer.into_parts();
    wire.close |= parts.headers.get_all(header::CONNECTION).iter().any(|value| value == "close");
    let framing = framing(&parts, &body, head_only);
    let mut out = BytesMut::with_capacity(512);
    head(&mut out, &parts, framing, &wire);
    let mut left = match framing {
        Framing::None => 0,
        Framing::Length(length) => length,
        Framing::Chunked => u64::MAX,
    };
    while left > 0 {
        let Some(piece) = wire.next(&mut body, &mut out).await? else { break };
        let n = piece.len() as u64;
        left = left.checked_sub(n).ok_or(io::ErrorKind::InvalidData)?;
        if framing == Framing::Chunked {
            left = u64::MAX;
            let _ = write!(out, "{n:x}\r\n");
        }
        wire.piece(&mut out, &piece).await?;
        if framing == Framing::Chunked {
            out.extend_from_slice(b"\r\n");
        }
    }
    match framing {
        Framing::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
        _ if left > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        _ => {}
    }
    wire.flush(&mut out).await?;
    if let (true, Stream::Tls(_)) = (wire.close, &wire.stream) {
        // TLS has an end of its own to write; a socket is just closed.
        poll_fn(|cx| Pin::new(&mut *wire.stream).poll_shutdown(cx)).await?;
    }
    Ok(!wire.close)
}

impl Wire<'_> {
    /// The next piece of a body; before it is waited for, everything that goes before it is written.
    async fn next(&mut self, body: &mut Body, out: &mut BytesMut) -> io::Result<Option<Bytes>> {
        loop {
            let there = poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;
            let frame = match there {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.flush(out).await?;
                    self.frame(body).await?
                }
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(io::Error::other(error)),
                // Trailers could carry what headers may not.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }

    /// Waits for a frame, as long as the client is there.
    async fn frame(&mut self, body: &mut Body) -> io::Result<Option<Result<Frame<Bytes>, BodyError>>> {
        poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                return Poll::Ready(Ok(frame));
            }
            match &mut self.ahead {
                Some(ahead) if ahead.is_empty() => match poll_more(self.stream, ahead, cx) {
                    Poll::Ready(false) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                    _ => Poll::Pending,
                },
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Adds a piece of a body.
    async fn piece(&mut self, out: &mut BytesMut, piece: &[u8]) -> io::Result<()> {
        if piece.len() < LARGE && out.len() < LARGE {
            out.extend_from_slice(piece);
            return Ok(());
        }
        self.flush(out).await?;
        self.write(piece).await
    }

    async fn flush(&mut self, out: &mut BytesMut) -> io::Result<()> {
        self.write(out).await?;
        out.clear();
        Ok(())
    }

    /// Writes all of it. The client has to keep reading.
    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut waiting: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            loop {
                let outcome = match bytes {
                    [] => Pin::new(&mut *self.stream).poll_flush(cx).map_ok(|()| 0),
                    _ => Pin::new(&mut *self.stream).poll_write(cx, bytes),
                };
                match outcome {
                    Poll::Ready(Ok(0)) if bytes.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => {
                        bytes = bytes.get(n..).unwrap_or_default();
                        waiting = None;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        let patience = self.patience;
                        let waiting = waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
                        return waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
        })
        .await
    }
}

fn framing(parts: &response::Parts, body: &Body, head_only: bool) -> Framing {
    if head_only || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Framing::None;
    }
    body.size_hint().exact().map_or(Framing::Chunked, Framing::Length)
}

fn head(out: &mut BytesMut, parts: &response::Parts, framing: Framing, wire: &Wire<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    // Without a body a length is the backend's word about one that it would have sent.
    let told = framing == Framing::None && parts.status != StatusCode::NO_CONTENT;
    let mut dated = false;
    for (name, value) in &parts.headers {
        match *name {
            header::CONNECTION | header::TRANSFER_ENCODING => continue,
            header::CONTENT_LENGTH if !told => continue,
            header::DATE => dated = true,
            _ => {}
        }
        line(out, name, value);
    }
    match framing {
        Framing::None => {}
        Framing::Length(length) => {
            let _ = write!(out, "content-length: {length}\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    if wire.close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    if !dated {
        date_line(out, wire.unix);
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
type Date = [u8; 29];

thread_local! {
    /// Written once a second.
    static DATE: Cell<(u64, Date)> = const { Cell::new((u64::MAX, [b' '; 29])) };
}

fn date_line(out: &mut BytesMut, unix: u64) {
    let (written, mut date) = DATE.get();
    if written != unix {
        date = imf_fixdate(unix);
        DATE.set((unix, date));
    }
    out.extend_from_slice(b"date: ");
    out.extend_from_slice(&date);
    out.extend_from_slice(b"\r\n");
}

fn imf_fixdate(unix: u64) -> Date {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Days in eras of 400 years that begin on the 1st of March, when the odd day of a leap year is the last one.
    let from_march = days.saturating_add(719_468);
    let (era, of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 2 } else { shifted - 10 };
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let name = |names: &[&'static str], at: u64| usize::try_from(at).ok().and_then(|at| names.get(at).copied());
    let weekday = name(&DAYS, days % 7).unwrap_or_default();
    let month = name(&MONTHS, month).unwrap_or_default();
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let text = format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
    let mut date = [b' '; 29];
    for (to, from) in date.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |unix| String::from_utf8(imf_fixdate(unix).to_vec()).unwrap();
        for (unix, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(date(unix), text);
        }
    }
}
