//! Huge pages under private memory that is lent often.
//!
//! The kernel fetches private memory page by page, and to find and hold one of 4 KiB takes it 40 ns: a third of the time that copying
//! it takes. Out of a huge page it fetches at the pace of a plain copy. What programs give is in small pages unless they have
//! seen to it; but the kernel can be asked to move memory to a huge page, and what a program sees of it stays as it is. That is worth
//! it for memory that is lent again and again.

use std::sync::LazyLock;

/// Bytes of a huge page, and of a stretch: memory from a multiple of that on, which could lie in one.
const HUGE_BYTES: usize = 2 << 20;

/// Bytes of a page such as memory lies in at first.
const PAGE_BYTES: usize = 4 << 10;

/// What must be lent of a stretch before it is moved. To move one takes 0.45 ms, and to fetch one out of small pages 22 us more than out of a
/// huge one: by now about as much was lost as is paid, so that memory which is never lent again has cost twice the least at most.
const WORTH_BYTES: u64 = 32 << 20;

/// What that grows to with each refusal, which doubles it.
const WORTH_MOST: u64 = 1 << 40;

/// What must be lent of a stretch that was moved before it is tried again. Nobody says when memory is given back, and other memory comes in its
/// place; to ask for what is already so takes 5 us.
const AGAIN_BYTES: u64 = 256 << 20;

/// What must be lent in all between one try and the next: a buffer of many stretches takes several calls, each of which takes
/// less than twice as long.
const PACE_BYTES: u64 = 8 << 20;

/// How many stretches are kept in mind: 512 MiB, if they are neighbours.
const STRETCHES: usize = 256;

/// `madvise`: now, and not when the kernel comes to it. Since Linux 6.1; those before refuse.
const MADV_COLLAPSE: libc::c_int = 25;

/// Whether huge pages may be asked for: there are some of that size, and the administrator has not turned them off, which a request would
/// not mind.
static ALLOWED: LazyLock<bool> = LazyLock::new(|| {
    let setting = |name| {
        let path = format!("/sys/kernel/mm/transparent_hugepage/{name}");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    is_allowed(&setting("enabled"), &setting("hpage_pmd_size"))
});

fn is_allowed(enabled: &str, bytes: &str) -> bool {
    !enabled.is_empty() && !enabled.contains("[never]") && bytes.trim().parse() == Ok(HUGE_BYTES)
}

/// What was lent of one stretch.
#[derive(Clone, Copy, Default)]
struct Stretch {
    number: usize,
    /// Since it was last tried.
    lent: u64,
    /// When it is tried.
    worth: u64,
}

/// What was lent of each stretch of this process's memory over the links of one rank.
#[derive(Default)]
pub(crate) struct HugePages {
    /// A stretch has its place by its number; none if nothing is ever moved.
    stretches: Box<[Stretch]>,
    /// What was lent since any was tried.
    lent: u64,
}

impl HugePages {
    /// The memory that one takes.
    pub(crate) const BYTES: usize = STRETCHES * size_of::<Stretch>();

    /// Nothing was lent yet. Nothing ever moves if the system does not have it.
    pub(crate) fn new() -> Self {
        let count = if *ALLOWED { STRETCHES } else { 0 };
        Self { stretches: vec![Stretch::default(); count].into(), lent: 0 }
    }

    /// Notes that the `len` bytes at `address` are about to be lent, and moves them first where that has come to be worth it.
    #[inline]
    pub(crate) fn note(&mut self, address: usize, len: usize) {
        if !self.stretches.is_empty() {
            self.count(address, len, &mut |stretch| is_resident(stretch) && collapse(stretch));
        }
    }

    /// `try_to` says whether the stretch at that address has moved.
    fn count(&mut self, address: usize, len: usize, try_to: &mut dyn FnMut(usize) -> bool) {
        let end = address + len;
        self.lent += len as u64;
        for number in address / HUGE_BYTES..end.div_ceil(HUGE_BYTES) {
            let start = number * HUGE_BYTES;
            let bytes = end.min(start + HUGE_BYTES) - address.max(start);
            let stretch = &mut self.stretches[number % STRETCHES];
            if stretch.number != number {
                *stretch = Stretch { number, lent: 0, worth: WORTH_BYTES };
            }
            stretch.lent += bytes as u64;
            if stretch.lent >= stretch.worth && self.lent >= PACE_BYTES {
                let refused = (stretch.worth * 2).min(WORTH_MOST);
                stretch.worth = if try_to(start) { AGAIN_BYTES } else { refused };
                stretch.lent = 0;
                self.lent = 0;
            }
        }
    }
}

/// Whether the stretch is mapped and in memory, all of it: else to move it would take memory that nobody asked for.
fn is_resident(stretch: usize) -> bool {
    let mut pages = [0u8; HUGE_BYTES / PAGE_BYTES];
    let base = core::ptr::without_provenance_mut(stretch);
    // SAFETY: the kernel stores a byte for each page of the range, for which there is room. Nothing in the range is looked at.
    let failed = unsafe { libc::mincore(base, HUGE_BYTES, pages.as_mut_ptr()) };
    failed == 0 && pages.iter().all(|page| page & 1 == 1)
}

/// Moves a stretch to a huge page, if the kernel has one and can: what is mapped otherwise, pinned, or of several mappings stays.
fn collapse(stretch: usize) -> bool {
    let base = core::ptr::without_provenance_mut(stretch);
    // SAFETY: what the memory holds, and what may be done with it, is the same before and after, and while the kernel is at it whoever
    // uses it waits. That goes for memory of others that the range may hold.
    unsafe { libc::madvise(base, HUGE_BYTES, MADV_COLLAPSE) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const TIMES: usize = WORTH_BYTES as usize / HUGE_BYTES;

    /// Lends so often, and says which stretches were tried after how many times. Stretch 9 refuses.
    fn tried(
        pages: &mut HugePages,
        address: usize,
        len: usize,
        times: core::ops::RangeInclusive<usize>,
    ) -> Vec<(usize, usize)> {
        let mut tried = Vec::new();
        for time in times {
            pages.count(address, len, &mut |start| {
                tried.push((time, start / HUGE_BYTES));
                start != 9 * HUGE_BYTES
            });
        }
        tried
    }

    fn pages() -> HugePages {
        HugePages { stretches: vec![Stretch::default(); STRETCHES].into(), lent: 0 }
    }

    #[test]
    fn a_stretch_is_tried_when_it_has_been_lent_often_and_again_much_later() {
        let again = TIMES + AGAIN_BYTES as usize / HUGE_BYTES;
        let found = tried(&mut pages(), 7 * HUGE_BYTES, HUGE_BYTES, 1..=again);
        assert_eq!(found, [(TIMES, 7), (again, 7)]);
        // Half of it takes twice as many.
        let found = tried(&mut pages(), 7 * HUGE_BYTES + MIB / 2, MIB, 1..=4 * TIMES);
        assert_eq!(found, [(2 * TIMES, 7)]);
        assert_eq!(tried(&mut pages(), 7 * HUGE_BYTES, 0, 1..=TIMES), []);
    }

    #[test]
    fn a_refusal_doubles_what_it_takes() {
        let found = tried(&mut pages(), 9 * HUGE_BYTES, HUGE_BYTES, 1..=7 * TIMES);
        assert_eq!(found, [(TIMES, 9), (3 * TIMES, 9), (7 * TIMES, 9)]);
        let mut tired = pages();
        tired.stretches[9] = Stretch { number: 9, lent: WORTH_MOST, worth: WORTH_MOST };
        tired.lent = PACE_BYTES;
        assert_eq!(tried(&mut tired, 9 * HUGE_BYTES, 1, 1..=1), [(1, 9)]);
        assert_eq!(tired.stretches[9].worth, WORTH_MOST);
    }

    #[test]
    fn neighbours_are_counted_apart_and_tried_one_by_one() {
        // A quarter of 3, all of 4 and 5, a byte of 6.
        let (address, len) = (3 * HUGE_BYTES + 3 * MIB / 2, 2 * HUGE_BYTES + MIB / 2 + 1);
        let found = tried(&mut pages(), address, len, 1..=4 * TIMES);
        let paced = TIMES + (PACE_BYTES as usize).div_ceil(len);
        assert_eq!(found, [(TIMES, 4), (paced, 5), (4 * TIMES, 3)]);
    }

    #[test]
    fn another_stretch_at_the_same_place_begins_anew() {
        let mut pages = pages();
        let other = (7 + STRETCHES) * HUGE_BYTES;
        assert_eq!(tried(&mut pages, 7 * HUGE_BYTES, HUGE_BYTES, 1..=TIMES - 1), []);
        assert_eq!(tried(&mut pages, other, HUGE_BYTES, 1..=1), []);
        assert_eq!(tried(&mut pages, 7 * HUGE_BYTES, HUGE_BYTES, 1..=TIMES), [(TIMES, 7)]);
    }

    #[test]
    fn the_administrator_has_the_last_word() {
        assert!(is_allowed("always [madvise] never\n", "2097152\n"));
        assert!(is_allowed("[always] madvise never\n", "2097152\n"));
        assert!(!is_allowed("always madvise [never]\n", "2097152\n"));
        assert!(!is_allowed("always [madvise] never\n", "536870912\n"));
        assert!(!is_allowed("", ""));
        HugePages::default().note(0, usize::MAX);
    }

    /// The stretches that lie in `bytes`.
    fn stretches(bytes: &[u8]) -> impl Iterator<Item = usize> {
        let start = bytes.as_ptr().addr();
        let whole = start.div_ceil(HUGE_BYTES)..(start + bytes.len()) / HUGE_BYTES;
        whole.map(|number| number * HUGE_BYTES)
    }

    #[test]
    fn what_is_moved_stays_what_it_was_and_holes_stay_holes() {
        let mut bytes = vec![0u8; 9 * HUGE_BYTES];
        let all: Vec<usize> = stretches(&bytes).collect();
        assert!(all.len() >= 8, "{all:x?}");
        assert!(all.iter().all(|stretch| !is_resident(*stretch)), "nobody has touched it");
        let until = all[7] - bytes.as_ptr().addr();
        bytes[..until].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 7) as u8);
        let touched = all.iter().filter(|stretch| is_resident(**stretch)).count();
        assert!((7..=8).contains(&touched), "{touched} of {}", all.len());
        let moved = all[..7].iter().filter(|stretch| collapse(**stretch)).count();
        // A system may be short of huge pages, but not of all, or has none.
        assert!(moved > 0 || !*ALLOWED, "none of 7 stretches could be moved");
        assert!(bytes[..until].iter().enumerate().all(|(at, byte)| *byte == (at / 7) as u8));
        assert!(bytes[until..].iter().all(|byte| *byte == 0));
        // What is mapped in part, or not at all, is no reason to fail.
        assert!(!is_resident(0) && !collapse(0));
    }
}
