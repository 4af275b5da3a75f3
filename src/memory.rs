//! The memory that the communicators of this process take: itemised, summed up, and bounded.
//!
//! Counted is what a rank makes itself: its shared segment with the registered memory in use, or its queues, and scratch. Not
//! counted are plans (some kilobytes each), what ranks tell each other before an all-to-all-v (10 KiB at most), the buffers of the
//! caller, and the segments of peers, which those count.
//!
//! Invariant: whatever takes memory is entered in the book before it is taken, and the book is locked until it is entered. So
//! no two threads can both take what was left for one. It is locked when something grows, never in a call that is repeated.

use crate::connect::Memory;
use core::fmt;
use sohu_coll_core::Error;
use sohu_coll_shm::Heap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

static BOOK: Mutex<Book> = Mutex::new(Book { next: 0, entries: Vec::new() });

/// What takes memory, and how much, in bytes.
pub(crate) type Items = Vec<(&'static str, usize)>;

struct Book {
    next: u64,
    entries: Vec<Entry>,
}

/// What one communicator takes.
struct Entry {
    number: u64,
    fixed: Items,
    scratch: usize,
    heap: Option<Weak<Heap>>,
    /// Whether the communicator is there. Buffers that outlive it keep its segment.
    is_open: bool,
}

impl Entry {
    fn registered(&self) -> Option<usize> {
        let heap = self.heap.as_ref()?;
        Some(heap.upgrade().map_or(0, |heap| heap.taken()))
    }

    fn items(&self) -> Items {
        let mut items = self.fixed.clone();
        items.extend(self.registered().map(|bytes| ("registered", bytes)));
        items.push(("scratch", self.scratch));
        items
    }

    fn total(&self) -> usize {
        self.items().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Book {
    fn open() -> MutexGuard<'static, Self> {
        let mut book = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
        book.entries
            .retain(|entry| entry.is_open || entry.heap.as_ref().is_some_and(|heap| heap.strong_count() > 0));
        book
    }

    fn entry(&mut self, number: u64) -> &mut Entry {
        let found = self.entries.iter_mut().find(|entry| entry.number == number);
        found.expect("an entry stays as long as its account")
    }

    /// What all communicators take, item by item.
    fn items(&self) -> Items {
        let mut sums: Items = Vec::new();
        for (name, bytes) in self.entries.iter().flat_map(Entry::items) {
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += bytes,
                None => sums.push((name, bytes)),
            }
        }
        sums
    }

    /// Whether `bytes` more are within the bound.
    fn admits(&self, max: Option<usize>, bytes: usize, what: &str) -> Result<(), Error> {
        let Some(max) = max else { return Ok(()) };
        let items = self.items();
        let taken: usize = items.iter().map(|(_, bytes)| bytes).sum();
        if taken.checked_add(bytes).is_some_and(|sum| sum <= max) {
            return Ok(());
        }
        let count = self.entries.iter().filter(|entry| entry.is_open).count();
        let taken = match taken {
            0 => "nothing".into(),
            taken => format!("{} by {count} communicators: {}", amount(taken), list(&items)),
        };
        let what = format!("{what} needs {}", amount(bytes));
        Err(Error::Memory { what, taken, max: amount(max) })
    }
}

/// One communicator's place in the book, until it is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    number: u64,
    max: Option<usize>,
}

impl Account {
    /// Enters what a communicator of `size` ranks takes from its beginning on.
    ///
    /// # Errors
    /// [`Error::Memory`] when that is more than the bound leaves.
    pub(crate) fn open(size: u32, fixed: Items, max: Option<usize>) -> Result<Arc<Self>, Error> {
        let mut book = Book::open();
        let bytes = fixed.iter().map(|(_, bytes)| bytes).sum();
        book.admits(max, bytes, &format!("a communicator of {size} ranks ({})", list(&fixed)))?;
        let number = book.next;
        book.next += 1;
        book.entries.push(Entry { number, fixed, scratch: 0, heap: None, is_open: true });
        Ok(Arc::new(Self { number, max }))
    }

    /// What the communicator does not take after all.
    pub(crate) fn without(&self, item: &str) {
        Book::open().entry(self.number).fixed.retain(|(name, _)| *name != item);
    }

    /// Registered memory comes from here.
    pub(crate) fn connected(&self, memory: &Memory) {
        Book::open().entry(self.number).heap = memory.heap().map(Arc::downgrade);
    }

    /// Enters that scratch memory grows to `bytes`.
    ///
    /// # Errors
    /// [`Error::Memory`] when that is more than the bound leaves.
    pub(crate) fn grow_scratch(&self, bytes: usize) -> Result<(), Error> {
        let mut book = Book::open();
        let more = bytes.saturating_sub(book.entry(self.number).scratch);
        book.admits(self.max, more, "scratch memory for a call")?;
        book.entry(self.number).scratch = bytes;
        Ok(())
    }

    /// Takes registered memory by `take`, if the bound leaves `bytes`.
    ///
    /// # Errors
    /// Why not; or as `take`.
    pub(crate) fn register<T>(
        &self,
        bytes: usize,
        take: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let book = Book::open();
        book.admits(self.max, bytes, "it").map_err(|error| error.to_string())?;
        // The heap counts by itself, but nobody else may look before it did.
        let taken = take();
        drop(book);
        taken
    }

    /// What the communicator takes now.
    pub(crate) fn report(&self, name: Option<&str>) -> MemoryUse {
        let mut book = Book::open();
        let items = book.entry(self.number).items();
        let process = book.entries.iter().map(Entry::total).sum();
        let communicators = book.entries.iter().filter(|entry| entry.is_open).count();
        MemoryUse { name: name.map(Into::into), items, process, communicators, max: self.max }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut book = Book::open();
        let entry = book.entry(self.number);
        entry.is_open = false;
        entry.scratch = 0;
    }
}

/// The memory that a communicator takes on this rank, itemised; see
/// [`Communicator::memory`](crate::Communicator::memory). Its text is a small table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    name: Option<String>,
    items: Items,
    process: usize,
    communicators: usize,
    max: Option<usize>,
}

impl MemoryUse {
    /// What takes memory, and how many bytes.
    pub fn items(&self) -> &[(&'static str, usize)] {
        &self.items
    }

    /// Bytes of one item; 0 where there is none of that name.
    pub fn bytes(&self, name: &str) -> usize {
        self.items.iter().find(|(known, _)| *known == name).map_or(0, |(_, bytes)| *bytes)
    }

    /// Bytes of this communicator.
    pub fn total(&self) -> usize {
        self.items.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of all communicators of this process.
    pub fn process(&self) -> usize {
        self.process
    }

    /// The most bytes that they may have, where that is bounded.
    pub fn max(&self) -> Option<usize> {
        self.max
    }
}

impl fmt::Display for MemoryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" of '{name}'"));
        writeln!(f, "memory{name}")?;
        for (item, bytes) in &self.items {
            writeln!(f, "  {item:<12} {:>12}", amount(*bytes))?;
        }
        writeln!(f, "  {:<12} {:>12}", "total", amount(self.total()))?;
        let (process, count) = (amount(self.process), self.communicators);
        write!(f, "  process: {process} by {count} communicators")?;
        match self.max {
            Some(max) => write!(f, ", at most {}", amount(max)),
            None => f.write_str(", not bounded"),
        }
    }
}

fn list(items: &Items) -> String {
    let there = items.iter().filter(|(_, bytes)| *bytes > 0);
    let texts: Vec<String> = there.map(|(name, bytes)| format!("{name} {}", amount(*bytes))).collect();
    texts.join(", ")
}

/// `512 B`, `1.5 KiB`, `2 MiB`, `64 GiB`.
fn amount(bytes: usize) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => {
            let text = format!("{:.2}", bytes as f64 / (1u64 << shift) as f64);
            format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (2 << 20, "2 MiB"),
            ((2 << 20) + (256 << 10), "2.25 MiB"),
            (64 << 30, "64 GiB"),
        ] {
            assert_eq!(amount(bytes), text);
        }
    }

    #[test]
    fn the_text_is_a_table_with_the_bound() {
        let items = vec![("staging", 2 << 20), ("scratch", 100)];
        let (name, process) = (Some("tp".into()), 4 << 20);
        let budget = MemoryUse { name, items, process, communicators: 2, max: Some(1 << 30) };
        assert_eq!(
            budget.to_string(),
            "memory of 'tp'\n  staging             2 MiB\n  scratch             100 B\n  total               2 MiB\n  \
             process: 4 MiB by 2 communicators, at most 1 GiB"
        );
        assert_eq!(
            (budget.total(), budget.bytes("scratch"), budget.bytes("other")),
            ((2 << 20) + 100, 100, 0)
        );
    }

    #[test]
    fn what_is_bounded_is_refused_with_what_takes_how_much_and_comes_back() {
        // Other tests of this process may have communicators, so the bound is over what there is now.
        let fixed = || vec![("staging", 1 << 40), ("slots", 1 << 30)];
        let first = Account::open(2, fixed(), Some((1 << 41) + (1 << 39))).expect("there is room");
        let told =
            Account::open(4, fixed(), Some((1 << 40) + (1 << 39))).expect_err("there is none").to_string();
        assert!(
            told.contains("a communicator of 4 ranks (staging 1024 GiB, slots 1 GiB) needs 1025 GiB"),
            "{told}"
        );
        assert!(told.contains("SOHU_COLL_MAX_MEMORY") && told.contains("1536 GiB"), "{told}");
        first.grow_scratch(1 << 39).expect("there is room");
        first.grow_scratch(1 << 38).expect("it shrinks");
        let told = first.grow_scratch(1 << 42).expect_err("there is none").to_string();
        assert!(told.contains("scratch memory for a call needs 3840 GiB"), "{told}");
        assert!(told.contains("scratch 256 GiB"), "{told}");
        let told = first.register(1 << 42, || Ok(())).expect_err("there is none");
        assert!(told.contains("it needs 4096 GiB"), "{told}");
        assert_eq!(first.report(None).bytes("scratch"), 1 << 38);
        drop(first);
        Account::open(4, fixed(), Some((1 << 40) + (1 << 39))).expect("what is dropped is free");
    }
}
