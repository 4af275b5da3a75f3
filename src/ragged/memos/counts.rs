//! What a memo begins with: the counts of one rank.
//!
//! To compare what each two ranks say of each other takes the square of the number of ranks. So from [`BALANCED_MIN`] of them on a memo
//! ends its counts with a *balance*: what the rank gives each other one, less what it expects of each, every count times a
//! [number](factor) that is the giver's and the getter's alone. All agree if the balances of all ranks come to nothing: one count
//! that differs always shows, and several hide each other by chance alone: of one in 2^63, or less by
//! as many bits as all their differences are even by, 2^53 where those are multiples of 1024. Besides, each rank compares what concerns itself.

use crate::ragged::Blocks;

/// Bytes of the two counts of one pair of ranks.
pub(super) const PAIR: usize = 8;

/// From so many ranks on memos have a balance: their counts fit no line, so it costs next to nothing. Of fewer, each two are compared as soon.
pub(super) const BALANCED_MIN: usize = 7;

/// Bytes of a balance.
pub(super) const BALANCE: usize = 8;

/// Stands for counts that a memo can not tell, where a memo begins.
pub(super) const UNTOLD: u32 = u32::MAX;

/// Bytes of a memo before its blocks.
pub(super) fn header(size: usize) -> usize {
    counted(size) + if size >= BALANCED_MIN { BALANCE } else { 0 }
}

/// Bytes of a memo's counts.
pub(super) fn counted(size: usize) -> usize {
    (size - 1) * PAIR
}

/// What a count of what one rank gives another counts times in balances: an odd number, so that no two counts come to the same.
pub(super) fn factor(from: usize, to: usize) -> u64 {
    // The finish of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    let mut mixed = ((from as u64) << 32 | to as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) | 1
}

/// The balance of a memo that has one.
pub(super) fn balance(memo: &[u8], size: usize) -> u64 {
    memo[counted(size)..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What a rank's memo says of one other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    /// What it gives that.
    pub(super) gives: u32,
    /// What it expects of that.
    pub(super) gets: u32,
}

impl Pair {
    /// What the other should say.
    pub(super) fn turned(self) -> Self {
        Self { gives: self.gets, gets: self.gives }
    }

    pub(super) fn from_bytes(bytes: [u8; PAIR]) -> Self {
        let both = u64::from_le_bytes(bytes);
        Self { gives: both as u32, gets: (both >> 32) as u32 }
    }

    pub(super) fn to_bytes(self) -> [u8; PAIR] {
        (u64::from(self.gives) | u64::from(self.gets) << 32).to_le_bytes()
    }
}

/// What a memo says of each other rank, in order.
pub(super) fn pairs(memo: &[u8], size: usize) -> impl Iterator<Item = Pair> {
    memo[..counted(size)].as_chunks().0.iter().map(|bytes| Pair::from_bytes(*bytes))
}

/// Which of `rank`'s pairs is of `other`.
pub(super) fn place_of(rank: usize, other: usize) -> usize {
    other - usize::from(other > rank)
}

/// Whether what a rank says of some others is what their memos say of it, all of them in the same place.
pub(super) fn agree<'a>(own: &[[u8; PAIR]], memos: impl Iterator<Item = &'a [u8]>, place: usize) -> bool {
    own.iter().zip(memos).all(|(own, memo)| Pair::from_bytes(*own) == pair(memo, place).turned())
}

/// What a memo says at one place.
pub(super) fn pair(memo: &[u8], place: usize) -> Pair {
    Pair::from_bytes(memo.as_chunks().0[place])
}

/// Writes what a memo begins with, with such factors. Says whether it can tell these counts.
pub(super) fn write_counts(
    memo: &mut [u8],
    rank: usize,
    [gives, gets]: [Blocks<'_>; 2],
    factors: &[[u64; 2]],
) -> bool {
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
pub(super) fn given(memo: &[u8], size: usize, element: usize) -> u64 {
    pairs(memo, size).map(|pair| u64::from(pair.gives)).sum::<u64>() * element as u64
}

pub(super) fn others(rank: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..size).filter(move |other| *other != rank)
}

/// Where each block starts, in elements. The blocks were found to lie inside their buffer.
pub(super) fn starts(blocks: Blocks<'_>) -> impl Iterator<Item = usize> {
    let mut next = 0;
    blocks.counts.iter().enumerate().map(move |(rank, count)| {
        let start = blocks.displacements.map_or(next, |starts| starts[rank]);
        next = start + count;
        start
    })
}
