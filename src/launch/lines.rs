//! Output of many ranks, whole lines at a time.
//!
//! Invariant: what goes out in one write is a number of whole lines, each opened by its rank, so lines of different
//! ranks never mix.

use rustix::event::{PollFd, PollFlags};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// The longest line that is kept together; a longer one comes out in pieces. Bounds the memory of a rank that never
/// ends its line.
const LINE_MAX: usize = 64 << 10;

/// What a pipe holds at most: what may still be in one when its rank has ended.
const PIPE_MAX: usize = 1 << 20;

/// Cuts bytes into lines and opens each with a prefix.
pub(super) struct Prefixer {
    prefix: String,
    open: Vec<u8>,
}

impl Prefixer {
    /// Opens the lines of `rank`.
    pub(super) fn new(rank: u32) -> Self {
        Self { prefix: format!("[{rank}] "), open: Vec::new() }
    }

    /// Takes the next bytes; returns the lines they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            let mut piece = piece;
            while self.open.len() + piece.len() > LINE_MAX {
                let (head, tail) = piece.split_at(LINE_MAX - self.open.len());
                self.open.extend_from_slice(head);
                self.close(&mut lines);
                piece = tail;
            }
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.close(&mut lines);
            }
        }
        lines
    }

    /// The last line, if it was not ended.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut lines = Vec::new();
        if !self.open.is_empty() {
            self.close(&mut lines);
        }
        lines
    }

    fn close(&mut self, lines: &mut Vec<u8>) {
        lines.extend_from_slice(self.prefix.as_bytes());
        lines.append(&mut self.open);
        if !lines.ends_with(b"\n") {
            lines.push(b'\n');
        }
    }
}

/// Moves lines from a rank's `pipe` into `sink`, until the pipe ends. A process that left the rank's group may
/// hold the pipe open for ever: once `over` is closed, what the pipe still holds is moved and no more is waited for.
///
/// # Errors
/// When the sink takes no more, or a pipe can not be read.
pub(super) fn relay(
    pipe: &mut (impl Read + AsFd),
    over: BorrowedFd<'_>,
    mut lines: Prefixer,
    sink: &mut dyn Write,
) -> io::Result<()> {
    let mut bytes = vec![0; LINE_MAX];
    let mut left = usize::MAX;
    loop {
        let (readable, ended) = wait(pipe, over)?;
        if ended {
            left = left.min(PIPE_MAX);
        }
        if !readable || left == 0 {
            break;
        }
        let count = match pipe.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        left = left.saturating_sub(count);
        let whole = lines.feed(&bytes[..count]);
        sink.write_all(&whole)?;
        sink.flush()?;
    }
    sink.write_all(&lines.finish())?;
    sink.flush()
}

/// Waits for bytes (or the end) of `pipe`, or for the end of `over`; says which there were.
fn wait(pipe: &impl AsFd, over: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    let mut both = [PollFd::new(pipe, PollFlags::IN), PollFd::from_borrowed_fd(over, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut both, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok((!both[0].revents().is_empty(), !both[1].revents().is_empty())),
        }
    }
}
