//! A mapped segment: raw memory with a length, and nothing said about who writes it.

use core::ptr::NonNull;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use sohu_coll_mem::words::Mapped;
use sohu_coll_mem::{View, ViewMut};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A mapping of one segment, unmapped when the last user of it is gone.
#[derive(Debug)]
pub(crate) struct Map {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is memory of the process, not of a thread; what may be done with it is up to its users.
unsafe impl Send for Map {}
// SAFETY: as above; all access goes through views and atomic words.
unsafe impl Sync for Map {}

impl Map {
    /// Maps all `len` bytes of `fd`.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize) -> rustix::io::Result<Arc<Self>> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing that is mapped already changes.
        let base = unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, prot, MapFlags::SHARED, fd, 0) }?;
        let base = NonNull::new(base.cast::<u8>()).expect("a mapping does not start at null");
        // SAFETY: the range was mapped just now. Failure does no harm: the core file is larger.
        let _ = unsafe { rustix::mm::madvise(base.as_ptr().cast(), len, Advice::LinuxDontDump) };
        Ok(Arc::new(Self { base, len }))
    }

    /// Enters the first `len` bytes into the page table, for stores too if they are this rank's `own`. Else whoever touches a page
    /// first would take a fault in the middle of a call: a few microseconds for each of the first calls, until staging has gone
    /// round.
    pub(crate) fn populate(&self, len: usize, own: bool) {
        let advice = if own { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        assert!(len <= self.len, "{len} bytes of {}", self.len);
        // SAFETY: the range is mapped, and stays as it is. Failure does no harm: older systems enter pages when they are touched.
        let _ = unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), len, advice) };
    }

    /// How many bytes are mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where `address` lies in the mapping, if `len` bytes from it on lie in it.
    #[inline]
    pub(crate) fn offset_of(&self, address: *const u8, len: usize) -> Option<usize> {
        let offset = address.addr().wrapping_sub(self.base.addr().get());
        (offset < self.len && len <= self.len - offset).then_some(offset)
    }

    /// The bytes at `offset`, to read.
    ///
    /// # Panics
    /// When they lie outside the mapping.
    #[inline]
    pub(crate) fn view(&self, offset: usize, len: usize) -> View<'_> {
        self.view_mut(offset, len).as_view()
    }

    /// The bytes at `offset`, to write.
    ///
    /// # Panics
    /// When they lie outside the mapping.
    #[inline]
    pub(crate) fn view_mut(&self, offset: usize, len: usize) -> ViewMut<'_> {
        assert!(offset <= self.len && len <= self.len - offset, "{len} bytes at {offset} of {}", self.len);
        let base = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: bounded above, and mapped as long as `self` lives.
        unsafe { ViewMut::from_raw(base, len) }
    }

    /// The words at `offset`, shared with other processes.
    ///
    /// # Panics
    /// When they lie outside the mapping or are not aligned.
    pub(crate) fn words(self: &Arc<Self>, offset: usize, count: usize) -> Mapped {
        let view = self.view_mut(offset, count * 8);
        let base = view.as_mut_ptr().cast::<u64>();
        assert!(base.is_aligned(), "words at {offset}");
        // SAFETY: bounded and aligned above; `self` goes along and keeps the memory mapped.
        unsafe { Mapped::new(base, count, self.clone()) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no user is left. It can only fail on bad arguments.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
