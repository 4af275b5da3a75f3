//! A peer that writes what it likes into its own segment.

use rustix::mm::{MapFlags, ProtFlags};
use sohu_coll_core::pipe::Strand;
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::line::{Line, LineTx};
use sohu_coll_mem::words::{Mapped, Ordering, Words};
use sohu_coll_shm::{Layout, Segment, ShmLinks};
use std::os::fd::AsFd;
use std::sync::Arc;

/// The parts of a line's kind, as links write them.
pub(crate) const FIRST: u8 = 0x80;
pub(crate) const HEADER: u8 = 1;
pub(crate) const DATA: u8 = 2;
pub(crate) const CHUNK: u8 = 3;
pub(crate) const SINK: u8 = 4;
pub(crate) const LANDED: u8 = 5;
pub(crate) const BOARD: u8 = 6;
pub(crate) const SWAP: u8 = 7;

/// Lines of a pipe, and of the answers to one.
pub(crate) const PIPE_LINES: usize = 64;
pub(crate) const ANSWER_LINES: usize = 16;

/// Bytes of staging and heap.
pub(crate) const STAGING: usize = 1 << 16;
pub(crate) const HEAP: usize = 1 << 20;

pub(crate) fn call(sequence: u32) -> Signature {
    Signature {
        collective: Collective::AllReduce,
        dtype: DType::U8,
        op: ReduceOp::Sum,
        algorithm: 0,
        root: Rank(0),
        count: 1000,
        sequence,
    }
}

struct Unmap(usize, usize);

impl Drop for Unmap {
    fn drop(&mut self) {
        // SAFETY: mapped by `Villain::new` with this length; `Mapped` keeps this alive while it is used.
        let _ = unsafe { rustix::mm::munmap(core::ptr::without_provenance_mut(self.0), self.1) };
    }
}

/// Rank 1, which does not keep the protocol.
pub(crate) struct Villain {
    words: Mapped,
    tx: LineTx<Mapped>,
    /// Its pipe to the victim, and its answers to what comes through the victim's pipe.
    pipes: [LineTx<Mapped>; 2],
    pub(crate) layout: Layout,
}

impl Villain {
    /// The villain and the links of its victim, rank 0, in the first call.
    pub(crate) fn new() -> (Self, ShmLinks) {
        let (villain, mut victim) = Self::idle();
        sohu_coll_core::link::Links::begin(&mut victim, &call(0)).expect("a fresh link can begin");
        (villain, victim)
    }

    /// The villain and the links of its victim, rank 0, which has not begun a call.
    pub(crate) fn idle() -> (Self, ShmLinks) {
        let layout = Layout::new(2, STAGING, HEAP);
        let ours = Segment::create(layout).expect("a memfd can be made");
        let segment = Segment::create(layout).expect("a memfd can be made");
        let (len, prot) = (layout.len(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: the kernel chooses the address, so nothing that is mapped already changes.
        let base =
            unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, prot, MapFlags::SHARED, segment.fd(), 0) };
        let base = base.expect("a sealed memfd can be mapped");
        let keep = Arc::new(Unmap(base.addr(), len));
        // SAFETY: `keep` unmaps the words, and links use the parts that are used here as atomic words only.
        let words = unsafe { Mapped::new(base.cast(), len / 8, keep) };
        let lines = words.part(layout.lines(0) / 8, Layout::LINES * Layout::LINE_PITCH / 8);
        let pipe = |at: usize, lines| LineTx::new(words.part(at / 8, lines * Layout::LINE_PITCH / 8), lines);
        let pipes = [pipe(layout.pipe_lines(0), PIPE_LINES), pipe(layout.pipe_answers(0), ANSWER_LINES)];
        let links = ShmLinks::join(Rank(0), ours, &[None, Some(segment.fd().as_fd())]);
        let victim = links.expect("the segment itself is as agreed");
        (Self { words, tx: LineTx::new(lines, Layout::LINES), pipes, layout }, victim)
    }

    /// Puts a line into one strand of a pipe as it is.
    pub(crate) fn pipe(&mut self, strand: Strand, line: Line) -> &mut Self {
        assert!(self.pipes[strand as usize].put(&line), "the victim was sent more lines than there are");
        self
    }

    /// Puts a line as it is.
    pub(crate) fn line(&mut self, line: Line) -> &mut Self {
        assert!(self.tx.put(&line), "the victim was sent more lines than there are");
        self
    }

    /// Puts a line of that kind and those words.
    pub(crate) fn put(&mut self, kind: u8, len: u8, words: &[u64]) -> &mut Self {
        let mut line = Line { kind, len, ..Line::default() };
        let start = if kind & FIRST == 0 { 0 } else { 2 };
        if start == 2 {
            [line.words[0], line.words[1]] = call(0).to_words();
        }
        line.words[start..start + words.len()].copy_from_slice(words);
        self.line(line)
    }

    /// Says that the victim's call is its own.
    pub(crate) fn open(&mut self) -> &mut Self {
        self.put(FIRST | HEADER, 0, &[])
    }

    /// Claims to have consumed that many lines and chunks.
    pub(crate) fn credit(&mut self, lines: u64, chunks: u64) {
        self.poke(self.layout.credit(0), lines | chunks << 32);
    }

    /// Overwrites one word of the segment, at that byte.
    pub(crate) fn poke(&mut self, at: usize, value: u64) {
        self.words.word(at / 8).store(value, Ordering::Release);
    }
}
