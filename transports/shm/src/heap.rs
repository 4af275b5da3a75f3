//! Registered memory: pieces of the segment's heap, which every local peer has mapped already.

use crate::layout::Layout;
use crate::map::Map;
use core::ops::{Deref, DerefMut};
use rustix::fs::FallocateFlags;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Pieces start on pages, so that the memory of a freed one can go back to the system.
const PAGE: usize = 4096;

/// Where registered memory comes from. First fit over a sparse file: the address space is there from the start, the memory
/// comes with a piece and goes with it. Any thread may ask, also while the links are in use.
#[derive(Debug)]
pub struct Heap {
    fd: OwnedFd,
    map: Arc<Map>,
    /// Bytes of the whole heap.
    bytes: usize,
    /// Free runs of the heap: start in the segment -> length. Never adjacent to one another.
    free: Mutex<BTreeMap<usize, usize>>,
}

impl Heap {
    pub(crate) fn new(fd: OwnedFd, layout: Layout, map: &Arc<Map>) -> Arc<Self> {
        let heap = layout.heap();
        let free = if heap.is_empty() { BTreeMap::new() } else { BTreeMap::from([(heap.start, heap.len())]) };
        Arc::new(Self { fd, map: map.clone(), bytes: heap.len(), free: Mutex::new(free) })
    }

    /// Takes `len` zeroed bytes, backed by memory.
    ///
    /// # Errors
    /// Says what there is, when there is not enough.
    pub fn alloc(self: &Arc<Self>, len: usize) -> Result<HeapBytes, String> {
        let room = len.max(1).checked_next_multiple_of(PAGE).ok_or("more than there are addresses")?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((start, run)) = free.iter().find(|(_, run)| **run >= room).map(|(s, r)| (*s, *r)) else {
            let most = free.values().max().copied().unwrap_or(0);
            return Err(format!(
                "the registered heap has at most {most} bytes in a row; raise SOHU_COLL_HEAP"
            ));
        };
        // Take the memory now: later, lack of it would be a signal and not an error.
        rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), start as u64, room as u64)
            .map_err(|e| format!("the system has no memory for it: {e}"))?;
        free.remove(&start);
        if run > room {
            free.insert(start + room, run - room);
        }
        Ok(HeapBytes { heap: self.clone(), start, len, room })
    }

    /// Bytes that are taken now.
    pub fn taken(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.bytes - free.values().sum::<usize>()
    }

    fn give_back(&self, start: usize, room: usize) {
        // A hole reads as zeroes and takes no memory. Should it fail, the piece must not be used again.
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.fd, hole, start as u64, room as u64).is_err() {
            return;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut start, mut room) = (start, room);
        if let Some(next) = free.remove(&(start + room)) {
            room += next;
        }
        if let Some((before, run)) = free.range(..start).next_back().map(|(s, r)| (*s, *r))
            && before + run == start
        {
            start = before;
            room += run;
        }
        free.insert(start, room);
    }
}

/// A piece of registered memory, given back when dropped.
#[derive(Debug)]
pub struct HeapBytes {
    heap: Arc<Heap>,
    start: usize,
    len: usize,
    room: usize,
}

impl Deref for HeapBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let view = self.heap.map.view(self.start, self.len);
        // SAFETY: the piece is ours alone and mapped while `self` lives; peers write it only where it is posted,
        // during a call that borrows it mutably.
        unsafe { core::slice::from_raw_parts(view.as_ptr(), self.len) }
    }
}

impl DerefMut for HeapBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        let view = self.heap.map.view_mut(self.start, self.len);
        // SAFETY: as in `deref`, and `&mut self` makes it the only slice.
        unsafe { core::slice::from_raw_parts_mut(view.as_mut_ptr(), self.len) }
    }
}

impl Drop for HeapBytes {
    fn drop(&mut self) {
        self.heap.give_back(self.start, self.room);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Layout, Segment};

    #[test]
    fn freed_pieces_join_and_read_as_zero() {
        let segment = Segment::create(Layout::new(1, 4096, 4 * 4096)).expect("memfd works");
        let heap = &segment.heap;
        let mut a = heap.alloc(4096).expect("room");
        let b = heap.alloc(1).expect("room");
        let c = heap.alloc(8192).expect("room");
        assert!(heap.alloc(1).is_err_and(|e| e.contains("at most 0 bytes")));
        a.fill(7);
        assert_eq!(heap.taken(), 4 * 4096);
        drop(a);
        drop(c);
        assert_eq!(heap.taken(), 4096);
        drop(b);
        assert_eq!(heap.taken(), 0);
        let all = heap.alloc(4 * 4096).expect("the pieces joined");
        assert!(all.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn absurd_lengths_are_refused() {
        let segment = Segment::create(Layout::new(1, 4096, 4096)).expect("memfd works");
        assert!(segment.heap.alloc(usize::MAX).is_err());
        assert!(segment.heap.alloc(8192).is_err());
        assert!(segment.heap.alloc(0).is_ok());
    }
}
