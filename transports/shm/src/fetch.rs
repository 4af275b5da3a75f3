//! Private memory of other processes, fetched by the kernel: `process_vm_readv`.
//!
//! Bytes that are staged are copied twice, and on some machines what one core has just written comes to another one at the pace
//! of main memory. There one copy by the kernel takes half as long, where the kernel copies fast; where it does not, twice as
//! long. So each rank measures its kernel, and all agree. Whether a rank may read a peer's memory is up to the system (user,
//! namespace, security modules), so each tries it.

use crate::stand_in::StandIn;
use sohu_coll_mem::ViewMut;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Whether private memory is fetched by the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fetch {
    /// Where every rank can read every other one's memory, and their kernels copy fast enough.
    #[default]
    Auto,
    /// Where every rank can read every other one's memory.
    Always,
    /// It is staged.
    Never,
}

/// A kernel that copies at least so fast, in bytes per microsecond, beats two copies through shared memory: those take as long as
/// one of 22 KB/us where lines travel fastest. Kernels were seen to copy 7 to 13 KB/us, and 25 to 30.
const RATE_MIN: u64 = 20_000;

/// What is copied to measure it, and how often: the best counts.
const TRIAL_BYTES: usize = 256 << 10;
const TRIALS: u32 = 6;

/// What peers must find where this process says that it is.
static TOKEN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));

/// How fast the kernel copies, in bytes per microsecond; 0 where it may not.
static RATE: LazyLock<u64> = LazyLock::new(|| {
    let own = Process::of(std::process::id());
    let (from, mut into) = (vec![1u8; TRIAL_BYTES], vec![0u8; TRIAL_BYTES]);
    let mut best = Duration::MAX;
    for _ in 0..TRIALS {
        let begun = Instant::now();
        if own.read(from.as_ptr().addr() as u64, ViewMut::from(&mut into[..])).is_err() {
            return 0;
        }
        best = best.min(begun.elapsed());
    }
    TRIAL_BYTES as u64 * 1000 / (best.as_nanos() as u64).max(1)
});

/// What a rank tells its peers, so that they can try to read its memory. Not of which process: that is for the system to say, or a
/// rank could be made to read from another process than its peer's, or from its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where the token lies, and what it is.
    address: u64,
    token: u64,
    /// How fast this rank's kernel copies; 0 if it is not to.
    rate: u64,
    /// The thread to name for it.
    thread: u64,
}

impl Offer {
    /// Bytes of an offer that travels.
    pub const BYTES: usize = 32;

    /// This process's own, and the thread that stands in for it, if there is anything to read: it holds as long as that is kept.
    pub fn new(fetch: Fetch) -> (Self, Option<Arc<StandIn>>) {
        let rate = match fetch {
            Fetch::Auto => *RATE,
            Fetch::Always => u64::MAX,
            Fetch::Never => 0,
        };
        let token: &u64 = &TOKEN;
        let address = core::ptr::from_ref(token).addr() as u64;
        let stand_in = if rate >= RATE_MIN { StandIn::shared() } else { None };
        let thread = stand_in.as_ref().map_or_else(std::process::id, |thread| thread.number()).into();
        (Self { address, token: *token, rate, thread }, stand_in)
    }

    /// As it travels.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let words = [self.address, self.token, self.rate, self.thread];
        let mut bytes = [0; Self::BYTES];
        bytes.as_chunks_mut::<8>().0.iter_mut().zip(words).for_each(|(b, word)| *b = word.to_le_bytes());
        bytes
    }

    /// A peer's, if it is one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| u64::from_le_bytes(bytes.as_chunks::<8>().0[at]);
        Some(Self { address: word(0), token: word(1), rate: word(2), thread: word(3) })
    }

    /// How this rank reads the memory of the process of that number, which made the offer; nothing if it can not, or that one's kernel is not
    /// fast enough.
    pub fn process(&self, pid: u32) -> Option<Process> {
        let holds = |process: &Process| {
            let mut found = [0; 8];
            process.read(self.address, ViewMut::from(&mut found[..])).is_ok()
                && u64::from_le_bytes(found) == self.token
        };
        if self.rate < RATE_MIN {
            return None;
        }
        // A thread of that very process, or it would say whose memory is read. In another namespace it has another number.
        let is_its_own = |thread: &u32| Path::new(&format!("/proc/{pid}/task/{thread}")).exists();
        let thread = u32::try_from(self.thread).ok().filter(is_its_own);
        thread.into_iter().chain([pid]).map(Process::of).find(holds)
    }
}

/// Another process on this host, or this one, as one of its threads stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    thread: u32,
}

/// Why memory could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// There is no such process any more.
    Gone,
    /// It has no memory there.
    Nothing,
    /// The kernel refused.
    System(i32),
}

impl Process {
    /// The one that the thread of this number is of, as this process counts them. The first thread of a process has its number.
    pub fn of(thread: u32) -> Self {
        Self { thread }
    }

    /// The system call.
    pub(crate) const CALL: &str = "process_vm_readv";

    /// Fills `into` with what lies at `address` of the process; where that is missing in part, so is what was read.
    pub(crate) fn read(self, address: u64, into: ViewMut<'_>) -> Result<(), Unread> {
        let thread = libc::pid_t::try_from(self.thread).map_err(|_| Unread::Gone)?;
        let mut done = 0;
        while done < into.len() {
            let at = address.checked_add(done as u64).and_then(|at| usize::try_from(at).ok());
            let at = at.ok_or(Unread::Nothing)?;
            let left = into.slice(done..into.len());
            let local = libc::iovec { iov_base: left.as_mut_ptr().cast(), iov_len: left.len() };
            let remote = libc::iovec { iov_base: core::ptr::without_provenance_mut(at), iov_len: left.len() };
            // SAFETY: both lists have one entry. The kernel writes within `left`, which may be written while it lives, and
            // looks at the other address itself.
            let read =
                unsafe { libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) };
            match usize::try_from(read) {
                Ok(0) => return Err(Unread::Nothing),
                Ok(read) => done += read,
                Err(_) => match std::io::Error::last_os_error().raw_os_error().unwrap_or(0) {
                    libc::EINTR => {}
                    libc::ESRCH => return Err(Unread::Gone),
                    libc::EFAULT => return Err(Unread::Nothing),
                    errno => return Err(Unread::System(errno)),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_travels_and_holds_while_its_process_says_the_truth() {
        let pid = std::process::id();
        let (offer, stand_in) = Offer::new(Fetch::Always);
        let stand_in = stand_in.expect("there is a thread to be had");
        assert_eq!(Offer::from_bytes(&offer.to_bytes()), Some(offer));
        assert_eq!(
            offer.process(pid),
            Some(Process::of(stand_in.number())),
            "a process can read its own memory"
        );
        // Threads of other processes, and of none.
        for thread in [1, u64::from(i32::MAX as u32), u64::from(u32::MAX), u64::MAX] {
            assert_eq!(Offer { thread, ..offer }.process(pid), Some(Process::of(pid)), "{thread}");
        }
        assert!(Offer::new(Fetch::Never).1.is_none(), "nobody reads its memory");
        for lie in [
            Offer { token: !offer.token, ..offer },
            Offer { address: 0, ..offer },
            Offer { address: u64::MAX - 3, ..offer },
            Offer { rate: RATE_MIN - 1, ..offer },
            Offer::new(Fetch::Never).0,
        ] {
            assert_eq!(lie.process(pid), None, "{lie:?}");
        }
        // Beyond all processes, and no number of one.
        for nobody in [i32::MAX as u32, u32::MAX] {
            assert_eq!(offer.process(nobody), None, "{nobody}");
        }
        let long = [offer.to_bytes().as_slice(), &[0]].concat();
        assert_eq!([&long[..], &long[..31]].map(Offer::from_bytes), [None; 2]);
    }

    #[test]
    fn memory_is_read_to_its_end_or_the_reason_told() {
        let own = Process::of(std::process::id());
        let from: Vec<u8> = (0..100_000).map(|at| at as u8).collect();
        let mut into = vec![0; from.len()];
        let address = from.as_ptr().addr() as u64;
        assert_eq!(own.read(address, ViewMut::from(&mut into[..])), Ok(()));
        assert!(into == from);
        assert_eq!(
            own.read(64, ViewMut::from(&mut into[..])),
            Err(Unread::Nothing),
            "nothing is mapped there"
        );
        let gone = Process::of(i32::MAX as u32);
        assert_eq!(gone.read(address, ViewMut::from(&mut into[..])), Err(Unread::Gone));
    }
}
