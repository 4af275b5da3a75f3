//! Memory the bench measures with: private to the rank, or registered with the communicator.
//!
//! Invariant: the first byte handed out lies `unalign` bytes after a cache line (private: after a page, and after a huge page if there is
//! enough for one).

use sohu_coll::{Buffer, Communicator, Error};

const PAGE: usize = 4096;
const LINE: usize = 64;

/// A huge page. The library moves memory there that is lent often; how much of a buffer can be would be luck, and each run's own, if
/// it began anywhere.
const HUGE_PAGE: usize = 2 << 20;

/// One buffer.
pub(crate) struct Memory {
    bytes: Bytes,
    start: usize,
}

enum Bytes {
    Private(Vec<u8>),
    Registered(Buffer<u8>),
}

impl Memory {
    /// A buffer of `len` bytes, each page touched, so that no page fault is timed.
    ///
    /// # Errors
    /// When registered memory ran out.
    pub(crate) fn new(
        comm: &mut Communicator,
        len: usize,
        unalign: usize,
        registered: bool,
    ) -> Result<Self, Error> {
        let align = match registered {
            true => LINE,
            false if len < HUGE_PAGE => PAGE,
            false => HUGE_PAGE,
        };
        let room = len + unalign + align;
        let mut bytes = match registered {
            true => Bytes::Registered(comm.alloc::<u8>(room)?),
            false => Bytes::Private(vec![0; room]),
        };
        let all = bytes.all();
        let start = all.as_ptr().align_offset(align) + unalign;
        // Ones, because zeros can be had from the kernel without touching a page.
        all.fill(1);
        Ok(Self { bytes, start })
    }

    /// The first `len` bytes.
    pub(crate) fn first(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes.all()[self.start..][..len]
    }
}

impl Bytes {
    fn all(&mut self) -> &mut [u8] {
        match self {
            Self::Private(bytes) => bytes,
            Self::Registered(bytes) => bytes,
        }
    }
}
