//! What ranks tell each other before an all-to-all whose blocks have lengths of their own, and short blocks that go along.
//!
//! Every rank tells all others the same memo: what it gives each of them, what it expects of each, and then all its blocks, if
//! there is room. Invariant: all ranks have all memos, and come by them to the same: whether all agree, and if not who differs;
//! whether all blocks went along; and how much room the memos of the next call have.
//!
//! To compare what each two ranks say of each other takes the square of the number of ranks. So from [`BALANCED_MIN`] of them on a memo
//! ends its counts with a *balance*: what the rank gives each other one, less what it expects of each, every count times a
//! [number](factor) that is the giver's and the getter's alone. All agree if the balances of all ranks come to nothing: one count
//! that differs always shows, and several hide each other by a chance of one in 2^64. Besides, each rank compares what concerns itself.

use super::{Blocks, Cut};
use crate::lane::Pinned;
use crate::owned::Owner;
use crate::request::Buffers;
use sohu_coll_algorithms::OneShot;
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::EXCHANGE_MAX;
use sohu_coll_core::plan::fuse::{Room, fuse_for};
use sohu_coll_core::plan::{Algorithm, Extents, Job};
use sohu_coll_core::{Collective, DType, Error, Misuse, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::Loan;
use std::sync::Arc;

/// The most ranks that use memos. With more of them, what all ranks have to say of each other is too much for each to hear.
const RANKS_MAX: u32 = 32;

/// How long memos may be, in bytes: what goes along with a signature in a line of shared memory, and whole lines up to what an
/// exchange takes. Far, each line takes some 25 ns, so there are many lengths, and a block of two ranks that is as long as a power
/// of two finds room in a memo that is a line longer. Longer ones are for ranks that share cores.
const LENGTHS: [usize; 15] =
    [40, 128, 192, 320, 448, 576, 832, 1088, 1536, 2112, 3072, EXCHANGE_MAX, 6400, 8448, 16640];

/// The most bytes of all memos together, where they hold blocks: up to there it is cheaper to hear what concerns others than to
/// make another call. Where ranks share cores, times the square of how many share one: another call is another turn of each, and
/// each waits for all turns. With 4 ranks on 2 cores 8 KiB take 8.6 us in memos and 11.4 in two calls, 16 KiB 12 either way; with 8 ranks
/// 16 KiB take 31 and 52.
const ALL_MAX: usize = 8 * 1088;

/// The slice of memos that are no exchange.
const SLICE: usize = 32 << 10;

/// Bytes of the two counts of one pair of ranks.
const PAIR: usize = 8;

/// From so many ranks on memos have a balance: their counts fit no line, so it costs nothing. Of fewer, each two are compared as soon.
const BALANCED_MIN: usize = 7;

/// Bytes of a balance.
const BALANCE: usize = 8;

/// Stands for counts that a memo can not tell, where a memo begins.
const UNTOLD: u32 = u32::MAX;

/// Why the plan of a memo's length is here.
const PLANNED: &str = "memos are told in one call at a time, and are as long as was planned";

/// The memos of one communicator's ranks.
#[derive(Debug)]
pub(crate) struct Memos {
    rank: usize,
    size: usize,
    /// By rank, what counts times in a balance: those that this rank gives it, and those that it expects of it.
    factors: Vec<[u64; 2]>,
    /// Those of all ranks, one after the other, with room for the longest.
    all: Vec<u8>,
    /// How long they may be, from the shortest on, and how they are told then. One is out while its call is made.
    lengths: Box<[usize]>,
    plans: Box<[Option<Box<Pinned>>]>,
    /// Which length they have, and how many bytes that is.
    place: usize,
    len: usize,
    /// How many bytes of blocks the next ones should have room for.
    room: usize,
}

/// What the memos say of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// All agree, and all blocks are where they belong.
    Everything,
    /// All agree.
    Agreed,
    /// Some rank has counts that fit no memo.
    Unclear,
}

impl Memos {
    /// Whether so many ranks use memos. One rank has nobody to tell.
    pub(crate) fn are_for(size: u32) -> bool {
        (2..=RANKS_MAX).contains(&size)
    }

    /// Those of `size` ranks, as many as [use them](Self::are_for), of which so many share a core.
    pub(crate) fn new(rank: Rank, size: u32, sharing: u32) -> Self {
        let job = Job { in_place: true, ..Job::new(Collective::AllGather, size) };
        let program = OneShot.program(&job, rank);
        let passes = fuse_for(&program, Room::Slice);
        let plan = |len: usize| {
            let binding = Binding {
                kernel: Kernel::new(DType::U8, ReduceOp::Sum),
                element: 1,
                slice: SLICE,
                store: Store::Cached,
                input_registered: false,
                output_registered: false,
                fetched: Fetched::Nothing,
                within: None,
            };
            let bound = Bound::new(&program, &passes, &Extents::bind(&program, len, 1), &binding);
            let signature = Signature {
                collective: Collective::AllToAll,
                dtype: DType::U8,
                op: ReduceOp::Sum,
                algorithm: Signature::RAGGED,
                root: Rank(0),
                count: len as u64,
                sequence: 0,
            };
            Box::new(Pinned { executor: Executor::new(Arc::new(bound)), signature, comparison: None })
        };
        let (rank, size) = (rank.index(), size as usize);
        let factors = (0..size).map(|other| [factor(rank, other), factor(other, rank)]).collect();
        let lengths = lengths(size, sharing as usize);
        let plans = lengths.iter().map(|len| Some(plan(*len))).collect();
        let longest = lengths.last().expect(PLANNED);
        let all = vec![0; longest * size];
        Self { rank, size, factors, all, len: lengths[0], lengths, plans, place: 0, room: 0 }
    }

    /// Writes this rank's memo. Gives what tells it to all, which is to be [put back](Self::put_back).
    pub(crate) fn write(&mut self, cut: &Cut<'_>, buffers: &Buffers<'_>) -> Box<Pinned> {
        let (rank, size) = (self.rank, self.size);
        self.place = place(&self.lengths, header(size).saturating_add(self.room));
        self.len = self.lengths[self.place];
        let memo = &mut self.all[rank * self.len..][..self.len];
        if write_counts(memo, rank, cut.blocks, &self.factors) {
            let input = match buffers {
                Buffers::Apart { input, .. } => input,
                Buffers::InPlace(buffer) => &**buffer,
            };
            let element = cut.dtype.size();
            let mut at = header(size);
            if given(memo, size, element) <= (self.len - at) as u64 {
                for (other, start) in starts(cut.blocks[0]).enumerate() {
                    let bytes = cut.blocks[0].counts[other] * element;
                    if bytes == 0 || other == rank {
                        continue;
                    }
                    memo[at..at + bytes].copy_from_slice(&input[start * element..][..bytes]);
                    at += bytes;
                }
            }
        } else {
            memo[..4].copy_from_slice(&UNTOLD.to_le_bytes());
        }
        let mut pinned = self.plans[self.place].take().expect(PLANNED);
        pinned.signature.dtype = cut.dtype;
        pinned
    }

    /// All memos, as the call in which they are told borrows them.
    pub(crate) fn loan(&mut self) -> Loan<'_> {
        let (rank, size) = (Rank(self.rank as u32), self.size as u32);
        self.buffers().told_loan(rank, size)
    }

    /// What [`write`](Self::write) gave is needed no more.
    pub(crate) fn put_back(&mut self, pinned: Box<Pinned>) {
        self.plans[self.place] = Some(pinned);
    }

    /// What the memos of all say, once they are here. Blocks that all went along are put where they belong.
    ///
    /// # Errors
    /// [`Misuse::Disagree`] names the first two ranks that disagree.
    pub(crate) fn read(&mut self, cut: &Cut<'_>, buffers: &mut Buffers<'_>) -> Result<Said, Error> {
        let (size, element) = (self.size, cut.dtype.size());
        let mut most = 0;
        for memo in self.told() {
            if pairs(memo, size).next().is_some_and(|pair| pair.gives == UNTOLD) {
                return Ok(Said::Unclear);
            }
            most = most.max(given(memo, size, element));
        }
        if !self.all_agree()
            && let Some(told) = self.disagreement(cut)
        {
            return Err(told.into());
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let room_max = self.lengths[self.lengths.len() - 1] - header(size);
        self.room = room(room_max, self.room, most);
        if most > self.len - header(size) {
            return Ok(Said::Agreed);
        }
        self.deliver(cut, buffers);
        Ok(Said::Everything)
    }

    /// Whether every rank gives every other what that expects, as far as can be seen at once: with short blocks, a good part of the call.
    fn all_agree(&self) -> bool {
        if self.size < BALANCED_MIN {
            // Each rank with those before it.
            return (1..self.size).all(|rank| agree(&self.counts(rank)[..rank], self.told(), rank - 1));
        }
        let (before, behind) = self.counts(self.rank).split_at(self.rank);
        self.told().fold(0, |sum, memo| balance(memo, self.size).wrapping_add(sum)) == 0
            && agree(before, self.told(), self.rank.wrapping_sub(1))
            && agree(behind, self.told().skip(self.rank + 1), self.rank)
    }

    /// What a rank says of each other one, in order.
    fn counts(&self, rank: usize) -> &[[u8; PAIR]] {
        self.memo(rank)[..counted(self.size)].as_chunks().0
    }

    /// The first two ranks that do not agree, and what they say; none if all do, and a balance was wrong.
    #[cold]
    fn disagreement(&self, cut: &Cut<'_>) -> Option<Misuse> {
        let find = |getter: usize| {
            others(getter, self.size).find_map(|giver| {
                let gives = pair(self.memo(giver), place_of(giver, getter)).gives.into();
                let gets = pair(self.memo(getter), place_of(getter, giver)).gets.into();
                let (from, to) = (Rank(giver as u32), Rank(getter as u32));
                (gives != gets).then(|| Misuse::Disagree { call: cut.name(), from, to, gives, gets })
            })
        };
        (0..self.size).find_map(find)
    }

    /// Puts the blocks that went along, and the one that stays, where they belong. By what the memos say, they fit.
    fn deliver(&self, cut: &Cut<'_>, buffers: &mut Buffers<'_>) {
        let (rank, size, element) = (self.rank, self.size, cut.dtype.size());
        let [gives, gets] = cut.blocks;
        let (input, output): (Option<&[u8]>, &mut [u8]) = match buffers {
            Buffers::Apart { input, output } => (Some(input), output),
            Buffers::InPlace(buffer) => (None, buffer),
        };
        for (from, start) in starts(gets).enumerate() {
            let bytes = gets.counts[from] * element;
            if bytes == 0 {
                continue;
            }
            let block = if from == rank {
                // In place, what a rank gives itself is there already.
                let Some(input) = input else { continue };
                let own = starts(gives).nth(rank).unwrap_or(0) * element;
                &input[own..][..bytes]
            } else {
                let memo = self.memo(from);
                let before = pairs(memo, size).take(place_of(from, rank));
                let before = before.map(|pair| pair.gives as usize).sum::<usize>() * element;
                &memo[header(size) + before..][..bytes]
            };
            output[start * element..][..bytes].copy_from_slice(block);
        }
    }

    /// All memos, by rank. No division, which took as long as all else of two ranks.
    fn told(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.all[..];
        (0..self.size).map(move |_| {
            let (memo, behind) = rest.split_at(self.len);
            rest = behind;
            memo
        })
    }

    fn memo(&self, rank: usize) -> &[u8] {
        &self.all[rank * self.len..][..self.len]
    }
}

impl Owner for Memos {
    fn buffers(&mut self) -> Buffers<'_> {
        Buffers::InPlace(&mut self.all[..self.len * self.size])
    }
}

/// How long the memos of so many ranks, of which so many share a core, may be: so that they hold the counts, and longer if all together
/// have no more than [`ALL_MAX`] allows.
fn lengths(size: usize, sharing: usize) -> Box<[usize]> {
    let mut enough = LENGTHS.into_iter().filter(|len| header(size) <= *len);
    let shortest = enough.next();
    shortest.into_iter().chain(enough.take_while(|len| len * size <= ALL_MAX * sharing.pow(2))).collect()
}

/// Which of these lengths memos have that should be so long: long enough, or else the first.
fn place(lengths: &[usize], len: usize) -> usize {
    lengths.iter().position(|one| len <= *one).unwrap_or(0)
}

/// How many bytes of blocks memos should have room for, of at most `max`, after a call in which some rank gave others `given` and that
/// should have had room for `before`. It shrinks slowly: where short calls and long ones take turns, the short ones find room.
fn room(max: usize, before: usize, given: usize) -> usize {
    let shrunk = before - before.div_ceil(8);
    if given <= max { given.max(shrunk) } else { shrunk }
}

/// Bytes of a memo before its blocks.
fn header(size: usize) -> usize {
    counted(size) + if size >= BALANCED_MIN { BALANCE } else { 0 }
}

/// Bytes of a memo's counts.
fn counted(size: usize) -> usize {
    (size - 1) * PAIR
}

/// What a count of what one rank gives another counts times in balances: an odd number, so that no two counts come to the same.
fn factor(from: usize, to: usize) -> u64 {
    // The finish of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    let mut mixed = ((from as u64) << 32 | to as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) | 1
}

/// The balance of a memo that has one.
fn balance(memo: &[u8], size: usize) -> u64 {
    memo[counted(size)..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What a rank's memo says of one other.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Pair {
    /// What it gives that.
    gives: u32,
    /// What it expects of that.
    gets: u32,
}

impl Pair {
    /// What the other should say.
    fn turned(self) -> Self {
        Self { gives: self.gets, gets: self.gives }
    }

    fn from_bytes(bytes: [u8; PAIR]) -> Self {
        let both = u64::from_le_bytes(bytes);
        Self { gives: both as u32, gets: (both >> 32) as u32 }
    }

    fn to_bytes(self) -> [u8; PAIR] {
        (u64::from(self.gives) | u64::from(self.gets) << 32).to_le_bytes()
    }
}

/// What a memo says of each other rank, in order.
fn pairs(memo: &[u8], size: usize) -> impl Iterator<Item = Pair> {
    memo[..counted(size)].as_chunks().0.iter().map(|bytes| Pair::from_bytes(*bytes))
}

/// Which of `rank`'s pairs is of `other`.
fn place_of(rank: usize, other: usize) -> usize {
    other - usize::from(other > rank)
}

/// Whether what a rank says of some others is what their memos say of it, all of them in the same place.
fn agree<'a>(own: &[[u8; PAIR]], memos: impl Iterator<Item = &'a [u8]>, place: usize) -> bool {
    own.iter().zip(memos).all(|(own, memo)| Pair::from_bytes(*own) == pair(memo, place).turned())
}

/// What a memo says at one place.
fn pair(memo: &[u8], place: usize) -> Pair {
    Pair::from_bytes(memo.as_chunks().0[place])
}

/// Writes what a memo begins with, with such factors. Says whether it can tell these counts.
fn write_counts(memo: &mut [u8], rank: usize, [gives, gets]: [Blocks<'_>; 2], factors: &[[u64; 2]]) -> bool {
    let size = gives.counts.len();
    let (told, rest) = memo.split_at_mut(counted(size));
    // A rank's block for itself concerns nobody else, unless it is wrong.
    let mut can_tell = gives.counts[rank] == gets.counts[rank];
    let mut balance = 0u64;
    let all = gives.counts.iter().zip(gets.counts).zip(factors).enumerate();
    let others = all.filter(|(other, _)| *other != rank);
    for (bytes, (_, ((gives, gets), [to, from]))) in told.as_chunks_mut().0.iter_mut().zip(others) {
        can_tell &= *gives.max(gets) < UNTOLD as usize;
        *bytes = Pair { gives: *gives as u32, gets: *gets as u32 }.to_bytes();
        let [given, got] =
            [(gives, to), (gets, from)].map(|(count, factor)| (*count as u64).wrapping_mul(*factor));
        balance = balance.wrapping_add(given).wrapping_sub(got);
    }
    if size >= BALANCED_MIN {
        rest[..BALANCE].copy_from_slice(&balance.to_le_bytes());
    }
    can_tell
}

/// Bytes that a rank gives others, by its memo.
fn given(memo: &[u8], size: usize, element: usize) -> u64 {
    pairs(memo, size).map(|pair| u64::from(pair.gives)).sum::<u64>() * element as u64
}

fn others(rank: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..size).filter(move |other| *other != rank)
}

/// Where each block starts, in elements. The blocks were found to lie inside their buffer.
fn starts(blocks: Blocks<'_>) -> impl Iterator<Item = usize> {
    let mut next = 0;
    blocks.counts.iter().enumerate().map(move |(rank, count)| {
        let start = blocks.displacements.map_or(next, |starts| starts[rank]);
        next = start + count;
        start
    })
}

#[cfg(test)]
mod tests;
