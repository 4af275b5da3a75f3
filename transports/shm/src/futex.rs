//! The futex system calls, on words that other processes map too, and the barrier that goes with them.

use rustix::thread::{MembarrierCommand, futex, membarrier, membarrier_query};
use sohu_coll_mem::doorbell::Futex;
use sohu_coll_mem::words::{AtomicU32, AtomicU64};
use std::sync::LazyLock;

/// Futexes of the kernel, shared between processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedFutex;

impl SharedFutex {
    /// Whether this process can make the others pass a fence and is one of those that are made to. Asked of the kernel once:
    /// it may be too old (before 4.16), or a sandbox may forbid it.
    pub(crate) fn has_barrier() -> bool {
        static HAS: LazyLock<bool> = LazyLock::new(|| {
            membarrier_query().contains_command(MembarrierCommand::GlobalExpedited)
                && membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
                && membarrier(MembarrierCommand::GlobalExpedited).is_ok()
        });
        *HAS
    }
}

impl Futex<AtomicU64> for SharedFutex {
    fn wait(&self, word: &AtomicU64, expected: u32, nanos: u64) {
        let timeout = futex::Timespec {
            tv_sec: (nanos / 1_000_000_000).cast_signed(),
            tv_nsec: (nanos % 1_000_000_000).cast_signed(),
        };
        // However it ends (woken, timed out, interrupted, the word changed), the caller polls and looks again.
        let _ = futex::wait(low_half(word), futex::Flags::empty(), expected, Some(&timeout));
    }

    fn wake(&self, word: &AtomicU64) {
        // One waiter at most: a rank has one thread in a call. Failure would mean a bad address.
        let _ = futex::wake(low_half(word), futex::Flags::empty(), 1);
    }

    fn barrier(&self) {
        // It worked when `has_barrier` tried it, and has no other ways to fail.
        let _ = membarrier(MembarrierCommand::GlobalExpedited);
    }
}

/// A futex is 32 bits; the doorbell keeps its state in the low half of its word.
fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let half = (&raw const *word).cast::<AtomicU32>();
    // The low half comes first on a little-endian machine, second on the others.
    let half = half.wrapping_add(usize::from(cfg!(target_endian = "big")));
    // SAFETY: both halves of a live, aligned 64-bit atomic are live, aligned 32-bit atomics.
    unsafe { &*half }
}
