//! One buffer for each thread, to read into: whoever waits for bytes owns none.

use crate::stream::Stream;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// One read takes at most so much; large messages are decided by it.
pub const SIZE: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
}

/// Lends the buffer. What is called must not ask for it again.
pub fn with<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|buffer| use_it(buffer))
}

/// Reads once, and gives what came to `take`; 0 bytes are the end.
///
/// # Errors
/// When the socket fails.
pub fn poll_read(cx: &mut Task<'_>, stream: &mut Stream, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
    with(|buffer| {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        take(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}
