//! What ranks tell each other before an all-to-all whose blocks have lengths of their own, and short blocks that go along.
//!
//! Every rank tells all others the same memo: what it gives each of them, what it expects of each, and then all its blocks, if
//! there is room. Invariant: all ranks have all memos, and come by them to the same: whether all agree, and if not who differs;
//! whether all blocks went along; and how much room the memos of the next call have.

mod counts;
mod known;

use self::counts::{
    BALANCED_MIN, PAIR, UNTOLD, agree, balance, counted, factor, given, header, others, pair, pairs,
    place_of, starts, write_counts,
};
use self::known::{Known, Part};
use super::Cut;
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
    /// Blocks that go along: from the input to this rank's memo; from all memos to the output; and the one that stays, from the input to
    /// the output.
    gives: Vec<Part>,
    gets: Vec<Part>,
    stays: Option<Part>,
    /// The most bytes that a rank gave others.
    most: usize,
    /// What is known of the call before, if it is made again.
    known: Known,
    /// Whether this call is that one, as far as this rank can tell.
    repeats: bool,
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
            Box::new(Pinned {
                executor: Executor::new(Arc::new(bound)),
                signature,
                number: 0,
                comparison: None,
            })
        };
        let (rank, size) = (rank.index(), size as usize);
        let factors = (0..size).map(|other| [factor(rank, other), factor(other, rank)]).collect();
        let lengths = lengths(size, sharing as usize);
        let plans = lengths.iter().map(|len| Some(plan(*len))).collect();
        let longest = lengths.last().expect(PLANNED);
        let all = vec![0; longest * size];
        Self {
            rank,
            size,
            factors,
            all,
            len: lengths[0],
            lengths,
            plans,
            place: 0,
            room: 0,
            gives: Vec::with_capacity(size),
            gets: Vec::with_capacity(size),
            stays: None,
            most: 0,
            known: Known::new(size, header(size)),
            repeats: false,
        }
    }

    /// Writes this rank's memo for call `number`, the same number for no other call; 0, if that is not known. Gives what tells it to all,
    /// which is to be [put back](Self::put_back).
    pub(crate) fn write(&mut self, cut: &Cut<'_>, buffers: &Buffers<'_>, number: u64) -> Box<Pinned> {
        self.place = place(&self.lengths, header(self.size).saturating_add(self.room));
        self.len = self.lengths[self.place];
        self.repeats = self.known.is(number, self.len);
        if !self.repeats {
            self.known.forget();
            self.write_counts(cut);
        }
        let memo = &mut self.all[self.rank * self.len..][..self.len];
        let input = match buffers {
            Buffers::Apart { input, .. } => input,
            Buffers::InPlace(buffer) => &**buffer,
        };
        self.gives.iter().for_each(|part| part.copy(input, memo));
        let mut pinned = self.plans[self.place].take().expect(PLANNED);
        pinned.signature.dtype = cut.dtype;
        pinned
    }

    /// Writes all but the blocks, and finds out where those go, if they go along.
    fn write_counts(&mut self, cut: &Cut<'_>) {
        let (rank, size, [gives, _]) = (self.rank, self.size, cut.blocks);
        let memo = &mut self.all[rank * self.len..][..self.len];
        self.gives.clear();
        if !write_counts(memo, rank, cut.blocks, &self.factors) {
            memo[..4].copy_from_slice(&UNTOLD.to_le_bytes());
            return;
        }
        let (element, mut to) = (cut.dtype.size(), header(size));
        if given(memo, size, element) > (self.len - to) as u64 {
            return;
        }
        for (other, start) in starts(gives).enumerate() {
            let len = gives.counts[other] * element;
            if len > 0 && other != rank {
                self.gives.push(Part { from: start * element, to, len });
                to += len;
            }
        }
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

    /// What the memos of all say, once they are here, in the call of that `number`. Blocks that all went along are put where they belong.
    ///
    /// # Errors
    /// [`Misuse::Disagree`] names the first two ranks that disagree.
    pub(crate) fn read(
        &mut self,
        cut: &Cut<'_>,
        buffers: &mut Buffers<'_>,
        number: u64,
    ) -> Result<Said, Error> {
        let said = if self.repeats && self.known.is_said_again(self.told(), self.rank) {
            Said::Everything
        } else {
            self.known.forget();
            let (said, most) = self.compare(cut)?;
            match said {
                Said::Unclear => return Ok(said),
                Said::Agreed => {}
                Said::Everything => self.find_blocks(cut, matches!(buffers, Buffers::InPlace(_)), number),
            }
            self.most = most;
            said
        };
        let room_max = self.lengths[self.lengths.len() - 1] - header(self.size);
        self.room = room(room_max, self.room, self.most);
        if said == Said::Everything {
            self.deliver(buffers);
        }
        Ok(said)
    }

    /// What the memos of all say, and the most bytes that a rank gives others.
    fn compare(&self, cut: &Cut<'_>) -> Result<(Said, usize), Error> {
        let (size, element) = (self.size, cut.dtype.size());
        let mut most = 0;
        for memo in self.told() {
            if pairs(memo, size).next().is_some_and(|pair| pair.gives == UNTOLD) {
                return Ok((Said::Unclear, 0));
            }
            most = most.max(given(memo, size, element));
        }
        if !self.all_agree()
            && let Some(told) = self.disagreement(cut)
        {
            return Err(told.into());
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let said = if most > self.len - header(size) { Said::Agreed } else { Said::Everything };
        Ok((said, most))
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

    /// Finds out where the blocks that went along in call `number` belong, and the one that stays. By what the memos say, they fit.
    fn find_blocks(&mut self, cut: &Cut<'_>, in_place: bool, number: u64) {
        let (rank, size, element) = (self.rank, self.size, cut.dtype.size());
        let [gives, gets] = cut.blocks;
        self.gets.clear();
        self.stays = None;
        for (other, start) in starts(gets).enumerate() {
            let (to, len) = (start * element, gets.counts[other] * element);
            if len == 0 {
                continue;
            }
            if other == rank {
                let from = starts(gives).nth(rank).unwrap_or(0) * element;
                // In place it is there already.
                self.stays = (!in_place).then_some(Part { from, to, len });
                continue;
            }
            let before = pairs(self.memo(other), size).take(place_of(other, rank));
            let before = before.map(|pair| pair.gives as usize).sum::<usize>() * element;
            self.gets.push(Part { from: other * self.len + header(size) + before, to, len });
        }
        let (all, len) = (&self.all, self.len);
        self.known.made(number, len, (0..size).map(|rank| &all[rank * len..][..header(size)]));
    }

    /// Puts the blocks where they belong.
    fn deliver(&self, buffers: &mut Buffers<'_>) {
        let output: &mut [u8] = match buffers {
            Buffers::Apart { input, output } => {
                self.stays.iter().for_each(|part| part.copy(input, output));
                output
            }
            Buffers::InPlace(buffer) => buffer,
        };
        self.gets.iter().for_each(|part| part.copy(&self.all, output));
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

#[cfg(test)]
mod tests;
