//! A thread that stands in for its process where others read from that.
//!
//! Who reads another process's memory names one of its threads, and the kernel counts a user of that thread for as long as it takes: in the cache
//! line that the thread itself reads whenever it enters the kernel. Two ranks that fetch from each other at once, each by the
//! other's only thread, hand both lines to and fro: 4 KiB take 0.9 us so, and 0.46 where each names a thread that sleeps.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

/// What its stack takes: it does nothing.
const STACK_BYTES: usize = 64 << 10;

/// The one of this process, while somebody has it.
static SHARED: Mutex<Weak<StandIn>> = Mutex::new(Weak::new());

/// A thread that sleeps until this is dropped.
#[derive(Debug)]
pub struct StandIn {
    process: u32,
    number: u32,
    /// Nothing is sent; that it is gone wakes the thread.
    keep: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// That of this process, which there is as long as anybody has it; none where the system has no thread to give.
    pub fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        // A process that was forked has none of the threads of the one before.
        if let Some(own) = shared.upgrade().filter(|own| own.is_here()) {
            return Some(own);
        }
        let own = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&own);
        Some(own)
    }

    fn start() -> Option<Self> {
        let (keep, kept) = channel();
        let (tell, told) = channel();
        let sleep = move || sleep(&tell, &kept);
        let thread =
            Builder::new().name("sohu-coll idle".into()).stack_size(STACK_BYTES).spawn(sleep).ok()?;
        let number = told.recv().ok()?;
        Some(Self { process: std::process::id(), number, keep: Some(keep), thread: Some(thread) })
    }

    /// The number of the thread, as this process counts them.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.keep.take());
        if let Some(thread) = self.thread.take().filter(|_| self.is_here()) {
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}

/// What the thread does: says its number, and waits for the end.
fn sleep(tell: &Sender<u32>, kept: &Receiver<()>) {
    let mut all = core::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // What is sent to the process is for the threads of the program.
    // SAFETY: the set is filled, whatever was there.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was filled; the one before is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), core::ptr::null_mut()) };
    // SAFETY: it has no arguments.
    let number = unsafe { libc::gettid() };
    let told = u32::try_from(number).is_ok_and(|number| tell.send(number).is_ok());
    if told {
        // Nothing comes: it ends when the other side is gone.
        let _ = kept.recv();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn is_there(number: u32) -> bool {
        Path::new(&format!("/proc/self/task/{number}")).exists()
    }

    #[test]
    fn a_process_has_one_as_long_as_anybody_needs_it() {
        let (one, other) = (StandIn::shared().expect("a thread"), StandIn::shared().expect("a thread"));
        assert!(Arc::ptr_eq(&one, &other));
        let number = one.number();
        assert_ne!(number, std::process::id());
        drop(one);
        assert!(is_there(number), "another one has it still");
        let status =
            std::fs::read_to_string(format!("/proc/self/task/{number}/status")).expect("it is there");
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).expect("a line of it");
        // Signal 2 is the second bit.
        let blocked = u64::from_str_radix(blocked, 16).expect("a number");
        assert_eq!(blocked >> 1 & 1, 1, "it takes no Ctrl-C");
        drop(other);
        assert!(!is_there(number), "nobody has it");
    }
}
