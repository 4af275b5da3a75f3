//! Bytes that a peer lent out of its private memory: the kernel fetches them from there.

use super::exchange::Ahead;
use super::peer::Peer;
use super::protocol::{Flight, Front, PRIVATE};
use super::{Call, ShmLinks, pipe};
use crate::fetch::{Process, Unread};
use crate::huge::HugePages;
use crate::layout::LINE;
use crate::stand_in::StandIn;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::EXCHANGE_LENT_MAX;
use sohu_coll_mem::words::{Mapped, Ordering, Words};
use sohu_coll_mem::{View, ViewMut};
use std::sync::Arc;

/// Bytes of a peer's private memory that one pass works on: they are fetched to here first. Part of a core's own cache, and long
/// enough that the system call does not count.
pub(super) const BOUNCE_BYTES: usize = 128 << 10;

// What an exchange folds is fetched whole.
const _: () = assert!(BOUNCE_BYTES >= EXCHANGE_LENT_MAX);

/// What is told of a chunk that the kernel can not fetch.
const NOTHING: &str = "a private chunk where it has no memory, or none that the kernel fetches (device memory, say; it is staged with \
                       SOHU_COLL_FETCH=never)";

/// Where a peer's private memory is fetched from, and where to if it has no place of its own.
pub(super) struct Fetched {
    peer: Rank,
    process: Process,
    /// The peer's word that says that it has given up.
    withdrawn: Mapped,
    bounce: Bounce,
}

/// Memory that is fetched to. It starts at a cache line: what does not takes a twentieth longer to fetch and to fold.
struct Bounce {
    memory: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Bounce {
    fn new(len: usize) -> Self {
        let memory: Box<[u8]> = vec![0; len + LINE].into();
        let start = memory.as_ptr().align_offset(LINE);
        Self { memory, start, len }
    }

    fn first(&self, len: usize) -> &[u8] {
        &self.memory[self.start..self.start + len]
    }

    fn first_mut(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + len]
    }
}

impl Fetched {
    /// That of `peer`, with so many bytes to fetch to.
    fn new(peer: &Peer, process: Process, bounce: usize) -> Self {
        let withdrawn = peer.map.words(peer.layout.withdrawn(), LINE / 8);
        Self { peer: peer.rank, process, withdrawn, bounce: Bounce::new(bounce) }
    }

    /// Fetches `len` bytes, or as many as there is room for, and shows them; nothing, if the peer's process is gone.
    pub(super) fn bounce(&mut self, address: u64, len: usize) -> Result<View<'_>, LinkError> {
        let len = len.min(self.bounce.len);
        let read = self.process.read(address, ViewMut::from(self.bounce.first_mut(len)));
        Ok(if self.is_well(read)? { self.view(len) } else { View::EMPTY })
    }

    /// What was fetched last.
    #[inline]
    pub(super) fn view(&self, len: usize) -> View<'_> {
        View::from(self.bounce.first(len))
    }

    /// Fills `into`. If not, the peer's process is gone.
    pub(super) fn read(&self, address: u64, into: ViewMut<'_>) -> Result<bool, LinkError> {
        self.is_well(self.process.read(address, into))
    }

    fn is_well(&self, read: Result<(), Unread>) -> Result<bool, LinkError> {
        let peer = self.peer;
        // Pairs with the fence in `ShmLinks::withdraw`: if a byte was fetched that its owner stored after that, the word is seen.
        self.withdrawn.fence(Ordering::Acquire);
        if self.withdrawn.word(0).load(Ordering::Relaxed) != 0 {
            return Err(LinkError::Closed { peer });
        }
        match read {
            Ok(()) => Ok(true),
            // Whoever watches the ranks finds out, and says so on all of them.
            Err(Unread::Gone) => Ok(false),
            Err(Unread::Nothing) => Err(LinkError::Corrupt { peer, what: NOTHING }),
            Err(Unread::System(errno)) => Err(LinkError::System { peer, call: Process::CALL, errno }),
        }
    }
}

/// The length of a private chunk, as a peer named it. Whether it has such memory is for the kernel to say.
pub(super) fn bounded_private(
    fetched: Option<&Fetched>,
    address: u64,
    len: u64,
) -> Result<usize, &'static str> {
    let len = usize::try_from(len).ok().filter(|len| (1..=isize::MAX as usize).contains(len));
    match (fetched, len) {
        (None, _) => Err("private memory, where none is fetched"),
        (_, Some(len)) if address.checked_add(len as u64).is_some() => Ok(len),
        _ => Err("a private chunk of no possible length"),
    }
}

impl ShmLinks {
    /// From now on private memory may be lent to all peers, and is fetched from them: `processes[r]` is [that](crate::Offer::process) of rank r,
    /// and this rank's own stays as long as its stand-in. Messages of more than `longest` bytes are staged all the same.
    ///
    /// # Panics
    /// When there is not one process for each rank.
    pub fn fetch_from(&mut self, processes: &[Process], stand_in: Option<Arc<StandIn>>, longest: usize) {
        assert!(processes.len() == self.peers.ranks(), "{} processes", processes.len());
        self.stand_in = stand_in;
        // Where that is faster lines take long.
        self.ahead = Ahead::ALL;
        self.fetched_max = longest;
        for (peer, pipes) in self.peers.iter_mut().zip(&mut self.pipes) {
            let process = processes[peer.rank.index()];
            peer.fetched = Some(Fetched::new(peer, process, BOUNCE_BYTES));
            pipes.drain.fetched = Some(Fetched::new(peer, process, pipe::BOUNCE_BYTES));
        }
    }

    /// Ranks share cores, and lines take long: who has its turn asks for what all peers have sent meanwhile before it looks at the first.
    pub fn take_turns(&mut self) {
        self.ahead.turn = Some(Ahead::TURN);
    }

    /// From now on private memory that is lent often is moved to huge pages, where the system has them: from there the kernel fetches
    /// faster.
    pub fn lend_from_huge_pages(&mut self) {
        self.huge = HugePages::new();
    }

    /// Says that nothing this rank has lent is good any more, before it is its caller's again: a peer may be fetching it.
    pub(super) fn withdraw(&self) {
        let word = self.segment.map.words(self.layout().withdrawn(), LINE / 8);
        word.word(0).store(1, Ordering::Relaxed);
        // Pairs with the fence in `Fetched::is_well`.
        word.fence(Ordering::Release);
    }

    /// Whether private memory is fetched.
    pub fn fetches(&self) -> bool {
        // All are, or none.
        self.peers.iter().next().is_some_and(|peer| peer.fetched.is_some())
    }

    /// Bytes that [`fetch_from`](Self::fetch_from) and [`lend_from_huge_pages`](Self::lend_from_huge_pages) take with `ranks` ranks, once they are used.
    pub fn fetch_bytes(ranks: u32) -> usize {
        let bounces = ranks.saturating_sub(1) as usize * (BOUNCE_BYTES + pipe::BOUNCE_BYTES + 2 * LINE);
        bounces + HugePages::BYTES
    }
}

impl Peer {
    /// A chunk of the peer's private memory, as it named it.
    pub(super) fn private(&self, address: u64, len: u64) -> Result<Front, LinkError> {
        let len = bounded_private(self.fetched.as_ref(), address, len);
        Ok(Front::Private { address, len: len.map_err(|what| self.corrupt(what))? })
    }

    /// Puts a chunk that lies in this rank's private memory; there must be room.
    pub(super) fn put_private(&mut self, address: usize, len: usize, loan: usize, ours: &Call) {
        self.fly(Flight::Lent(loan));
        self.out_at += len as u64;
        self.put(PRIVATE, 0, &[address as u64, len as u64], ours);
    }

    /// Has the next `len` bytes ready for [`view`](Self::view). If not, the peer's process is gone.
    #[inline]
    pub(super) fn fetch(&mut self, len: usize) -> Result<bool, LinkError> {
        match (self.front, &mut self.fetched) {
            (Some(Front::Private { address, .. }), Some(fetched)) => {
                Ok(fetched.bounce(address + self.taken as u64, len)?.len() == len)
            }
            _ => Ok(true),
        }
    }

    /// Fetches all of the `len` bytes that the peer lent at `address`: to `into`, if they go there. Nothing if it fails.
    pub(super) fn fetch_whole<'a>(
        &'a mut self,
        address: u64,
        len: usize,
        into: Option<ViewMut<'a>>,
    ) -> Option<View<'a>> {
        let fetched = self.fetched.as_mut()?;
        let bytes = match into {
            Some(into) => fetched.read(address, into.first(len)).ok()?.then(|| into.first(len).as_view()),
            None => Some(fetched.bounce(address, len).ok()?),
        };
        bytes.filter(|bytes| bytes.len() == len)
    }

    /// Moves the next bytes of the peer's private memory to `into`, in one go, and consumes them. Returns how many.
    pub(super) fn fetch_into(&mut self, into: ViewMut<'_>) -> Result<usize, LinkError> {
        let (Some(Front::Private { address, len }), Some(fetched)) = (self.front, &self.fetched) else {
            return Ok(0);
        };
        let len = (len - self.taken).min(into.len());
        if !fetched.read(address + self.taken as u64, into.first(len))? {
            return Ok(0);
        }
        self.consume(len);
        Ok(len)
    }
}
