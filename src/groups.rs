//! Communicators out of communicators: split, duplicated, or all ranks of one process.
//!
//! Invariant: what becomes of a new communicator touches no other one. It has links, control sockets and memory of its
//! own, so its failure is not that of the one it came from.

use crate::bootstrap::UniqueId;
use crate::communicator::Communicator;
use sohu_coll_core::Error;

/// What a rank says about itself before a split, in bytes: whether it has a colour, the colour, the key, and the text of
/// an id that its group uses if it comes first.
const RECORD: usize = 1 + 4 + 8 + UniqueId::TEXT_BYTES;

impl Communicator {
    /// Parts the ranks into groups, each with a communicator of its own: ranks of one `colour` come together, in the
    /// order of their `key`s (equal keys: in the order of their ranks here). A rank without a colour takes part
    /// in the call and gets none. Every rank must call it, as any collective.
    ///
    /// The new communicator has the settings of this one (and, where this one has a name, `world`, that of its colour, `world/0`),
    /// and both can be used at once: calls on one do not
    /// wait for calls on the other.
    ///
    /// # Errors
    /// As for [`Builder::build`](crate::Builder::build); [`Misuse::Algorithm`](crate::Misuse::Algorithm) when an algorithm
    /// is forced that does no all-gather; else as described at [`Communicator`].
    pub fn split(&mut self, colour: Option<u32>, key: i64) -> Result<Option<Self>, Error> {
        self.split_as(colour, key, &colour.unwrap_or(0).to_string())
    }

    fn split_as(&mut self, colour: Option<u32>, key: i64, suffix: &str) -> Result<Option<Self>, Error> {
        let mut own = [0; RECORD];
        own[0] = u8::from(colour.is_some());
        own[1..5].copy_from_slice(&colour.unwrap_or(0).to_ne_bytes());
        own[5..13].copy_from_slice(&key.to_ne_bytes());
        own[13..].copy_from_slice(UniqueId::new().to_text().as_bytes());
        let mut all = vec![0; RECORD * self.size() as usize];
        self.all_gather(&own, &mut all)?;
        let Some(colour) = colour else { return Ok(None) };
        let mut group: Vec<(i64, u32)> = Vec::new();
        for (rank, record) in (0..).zip(all.chunks_exact(RECORD)) {
            let (theirs, key) = (word(&record[1..5]), word(&record[5..13]));
            if record[0] == 1 && u32::from_ne_bytes(theirs) == colour {
                group.push((i64::from_ne_bytes(key), rank));
            }
        }
        group.sort_unstable();
        let place = group.iter().position(|(_, rank)| *rank == self.rank());
        let place = place.expect("this rank has the colour that it asked for") as u32;
        let first = &all[group[0].1 as usize * RECORD..][..RECORD];
        let text = core::str::from_utf8(&first[13..]);
        let text = text.map_err(|_| Error::Refused("a rank sent an id that is no text".into()))?;
        let id = UniqueId::from_text(text)?;
        all.fill(0);
        let builder = self.template().named_after(suffix).rank(place).size(group.len() as u32).id(&id);
        builder.build().map(Some)
    }

    /// A second communicator of the same ranks, in the same order; named `world/copy` where this one is `world`. Every rank must
    /// call it.
    ///
    /// # Errors
    /// As for [`split`](Self::split).
    pub fn duplicate(&mut self) -> Result<Self, Error> {
        let key = i64::from(self.rank());
        self.split_as(Some(0), key, "copy").map(|copy| copy.expect("every rank has a colour"))
    }

    /// All ranks of a job of `size`, for the threads of this process: one communicator for each, in the order of the
    /// ranks. They are as if each were in a process of its own.
    ///
    /// # Errors
    /// As for [`Builder::build`](crate::Builder::build), the first in the order of the ranks.
    ///
    /// # Panics
    /// When `size` is 0.
    pub fn local(size: u32) -> Result<Vec<Self>, Error> {
        assert!(size > 0, "a communicator of no ranks");
        let id = UniqueId::new();
        // Ranks wait for one another while they are built, so each is built on a thread of its own.
        std::thread::scope(|scope| {
            let build = |rank| {
                let builder = Self::builder().rank(rank).size(size).id(&id);
                scope.spawn(move || builder.build())
            };
            let threads: Vec<_> = (0..size).map(build).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(built) => built,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            // All are waited for before the first error is returned.
            let built: Vec<Result<Self, Error>> = threads.into_iter().map(join).collect();
            built.into_iter().collect()
        })
    }
}

fn word<const BYTES: usize>(bytes: &[u8]) -> [u8; BYTES] {
    bytes.try_into().expect("cut to this length")
}
