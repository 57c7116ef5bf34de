//! HTTP/1.1 as most requests are written: a head, the body with it, and the next request on the same connection.
//!
//! Read at once, answered in one write. Whatever is written otherwise (chunked bodies, bodies still on their way,
//! HTTP/1.0, absolute targets, `Expect`, anything malformed) is hyper's to read and to judge, from its first byte on.

use crate::listen::head::{self, Head, Whole};
use crate::listen::respond::{self, Wire};
use crate::proxy::context::Context;
use crate::proxy::gateway::{self, Connection};
use crate::proxy::reply::Inbound;
use crate::stream::Stream;
use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use std::future::{Future, poll_fn};
use std::mem::{MaybeUninit, take};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// So much is read at once.
const READ: usize = 8 * 1024;

/// How a connection leaves this loop.
pub enum Left {
    /// It is over.
    Closed,
    /// The next request, at the beginning of these bytes, is hyper's.
    Other(Stream, Bytes),
    /// The next request asks for an upgrade; the bytes stand behind it.
    Upgrade(Stream, Box<Request<Inbound>>, Bytes),
}

/// Serves a connection, of which `read` was read already, until `stop`.
pub async fn serve(
    context: &Arc<Context>,
    stream: Stream,
    read: Bytes,
    peer: IpAddr,
    stop: &CancellationToken,
) -> Left {
    let stopping = AtomicBool::new(false);
    let patience = Patience::new(context.config.limits.header_timeout);
    let requests = Requests { context, stream, read, peer, stopping: &stopping, patience };
    let mut requests = pin!(requests.run());
    tokio::select! {
        biased;
        left = requests.as_mut() => left,
        () = stop.cancelled() => {
            stopping.store(true, Ordering::Relaxed);
            // The request that is under way is answered, but it must not outlive the drain.
            timeout(context.config.server.drain_timeout, requests).await.unwrap_or(Left::Closed)
        }
    }
}

struct Requests<'a> {
    context: &'a Arc<Context>,
    stream: Stream,
    /// Read, and not yet taken for a request.
    read: Bytes,
    peer: IpAddr,
    stopping: &'a AtomicBool,
    patience: Patience,
}

impl Requests<'_> {
    async fn run(mut self) -> Left {
        loop {
            let whole = match head::parse(&self.read) {
                Head::Whole(whole) => whole,
                Head::Partial if self.read.len() < self.context.config.limits.max_header_size => {
                    if self.more().await {
                        continue;
                    }
                    return Left::Closed;
                }
                Head::Partial | Head::Other => return Left::Other(self.stream, self.read),
            };
            let Whole { request, len, upgrade, close } = whole;
            self.read = self.read.slice(len..);
            if upgrade {
                return Left::Upgrade(self.stream, request, self.read);
            }
            let mut ahead = BytesMut::new();
            if !self.answer(request, close, &mut ahead).await {
                return Left::Closed;
            }
            if !ahead.is_empty() {
                self.read = ahead.freeze();
            }
        }
    }

    /// Answers a request; `false`: it was the last one.
    async fn answer(&mut self, request: Box<Request<Inbound>>, close: bool, ahead: &mut BytesMut) -> bool {
        let head_only = request.method() == Method::HEAD;
        let mut ahead = self.read.is_empty().then_some(ahead);
        let handling = gateway::handle(self.context.clone(), Connection { peer: self.peer }, request);
        let Some(answer) = attended(pin!(handling), &mut self.stream, &mut ahead).await else { return false };
        let wire = Wire {
            stream: &mut self.stream,
            ahead,
            patience: self.context.config.limits.write_timeout,
            unix: self.context.clock.unix(),
            close: close || self.stopping.load(Ordering::Relaxed),
        };
        matches!(respond::write(wire, answer, head_only).await, Ok(true))
    }

    /// Reads on; `false` where nothing more comes, or nothing in time, or nothing more shall come.
    async fn more(&mut self) -> bool {
        let mut buffer = take(&mut self.read).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
        let seen = buffer.len();
        if seen == 0 {
            self.patience.begin();
        }
        let max = self.context.config.limits.max_header_size;
        let Self { stream, stopping, patience, .. } = self;
        let went_on = poll_fn(|cx| {
            // Most bytes that come one by one cannot end a head.
            while let Poll::Ready(more) = poll_more(stream, &mut buffer, cx) {
                let new = buffer.get(seen..).unwrap_or_default();
                if !more || new.contains(&b'\n') || buffer.len() >= max {
                    return Poll::Ready(more);
                }
            }
            let over = stopping.load(Ordering::Relaxed) || patience.poll(cx).is_ready();
            if over { Poll::Ready(false) } else { Poll::Pending }
        })
        .await;
        self.read = buffer.freeze();
        went_on
    }
}

/// Waits for an answer with an eye on the client: `None` where it goes away meanwhile. One that has sent its next
/// request already is not looked at.
async fn attended<F: Future>(
    mut handling: Pin<&mut F>,
    stream: &mut Stream,
    ahead: &mut Option<&mut BytesMut>,
) -> Option<F::Output> {
    poll_fn(|cx| {
        if let Poll::Ready(answer) = handling.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        match ahead {
            Some(ahead) if ahead.is_empty() => match poll_more(stream, ahead, cx) {
                Poll::Ready(false) => Poll::Ready(None),
                _ => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    })
    .await
}

/// Reads what is there; `false` where nothing ever will be. No buffer stands by for a connection that is silent.
pub fn poll_more(stream: &mut Stream, buffer: &mut BytesMut, cx: &mut Task<'_>) -> Poll<bool> {
    let mut space = [const { MaybeUninit::uninit() }; READ];
    let mut read = ReadBuf::uninit(&mut space);
    let outcome = ready!(Pin::new(stream).poll_read(cx, &mut read));
    buffer.extend_from_slice(read.filled());
    Poll::Ready(outcome.is_ok() && !read.filled().is_empty())
}

/// One timer for all heads of a connection. It is set anew when it goes off too early, not with every request.
struct Patience {
    length: Duration,
    until: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(length: Duration) -> Self {
        let mut patience = Self { length, until: Instant::now(), sleep: None };
        patience.begin();
        patience
    }

    fn begin(&mut self) {
        let now = Instant::now();
        self.until = now.checked_add(self.length).unwrap_or(now);
    }

    fn poll(&mut self, cx: &mut Task<'_>) -> Poll<()> {
        let until = self.until;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }
}
