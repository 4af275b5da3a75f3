//! A rank's segment: created, sealed, handed to peers, mapped by them.

use crate::heap::Heap;
use crate::layout::Layout;
use crate::map::Map;
use core::ops::Range;
use rustix::fs::{MemfdFlags, SealFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Why a segment could not be made or mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShmError {
    /// The operating system refused.
    System {
        /// The system call.
        call: &'static str,
        /// Bytes of the segment.
        bytes: usize,
        /// Its error number.
        errno: i32,
    },
    /// What a peer handed over is no segment of the agreed kind.
    Hostile(String),
}

impl core::fmt::Display for ShmError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::System { call, bytes, errno } => {
                let why = std::io::Error::from_raw_os_error(*errno);
                write!(f, "{call} for a segment of {bytes} bytes failed: {why}")
            }
            Self::Hostile(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ShmError {}

/// What keeps a segment's size: nobody, its owner included, can cut it under a peer that has it mapped.
fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

/// This rank's own segment.
#[derive(Debug)]
pub struct Segment {
    fd: OwnedFd,
    layout: Layout,
    pub(crate) map: Arc<Map>,
    pub(crate) heap: Arc<Heap>,
}

impl Segment {
    /// Creates, seals and maps a segment. Its pages are zero. Those of the heap take no memory until they are allocated, and
    /// those of a pipe's ring until it is used; that of all others is taken here.
    ///
    /// # Errors
    /// When the operating system refuses the memory.
    pub fn create(layout: Layout) -> Result<Self, ShmError> {
        let bytes = layout.len();
        let failed =
            |call| move |e: rustix::io::Errno| ShmError::System { call, bytes, errno: e.raw_os_error() };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("sohu-coll", flags).map_err(failed("memfd_create"))?;
        rustix::fs::ftruncate(&fd, bytes as u64).map_err(failed("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, seals()).map_err(failed("fcntl(F_ADD_SEALS)"))?;
        let map = Map::new(fd.as_fd(), bytes).map_err(failed("mmap"))?;
        // All but rings and heap will be used: take the memory now, when lack of it can be an error and not a signal.
        let ahead = layout.pipe_ring(0).start as u64;
        let kept = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&fd, kept, 0, ahead).map_err(failed("fallocate"))?;
        map.populate(ahead as usize, true);
        let heap =
            Heap::new(fd.try_clone().map_err(|_| failed("dup")(rustix::io::Errno::MFILE))?, layout, &map);
        Ok(Self { fd, layout, map, heap })
    }

    /// What to hand to peers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes the memory of these bytes of it, when lack of it can still be an error and not a signal.
    pub(crate) fn take(&self, bytes: &Range<usize>) -> rustix::io::Result<()> {
        let (start, len) = (bytes.start as u64, bytes.len() as u64);
        rustix::fs::fallocate(&self.fd, rustix::fs::FallocateFlags::empty(), start, len)
    }

    /// Where things lie in it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Maps what a peer handed over, after making sure that it has the size of `layout` and can not lose it.
    ///
    /// # Errors
    /// When it is no sealed segment of that size, or the operating system refuses.
    pub(crate) fn map_peer(fd: BorrowedFd<'_>, layout: &Layout) -> Result<Arc<Map>, ShmError> {
        let bytes = layout.len();
        let failed =
            |call| move |e: rustix::io::Errno| ShmError::System { call, bytes, errno: e.raw_os_error() };
        let found = rustix::fs::fstat(fd).map_err(failed("fstat"))?.st_size;
        if usize::try_from(found) != Ok(bytes) {
            return Err(ShmError::Hostile(format!("its segment has {found} bytes, not {bytes}")));
        }
        let sealed = rustix::fs::fcntl_get_seals(fd).map_err(failed("fcntl(F_GET_SEALS)"))?;
        if !sealed.contains(seals()) {
            return Err(ShmError::Hostile("its segment is not sealed against changes of size".into()));
        }
        let map = Map::new(fd, bytes).map_err(failed("mmap"))?;
        map.populate(layout.pipe_ring(0).start, false);
        Ok(map)
    }
}
