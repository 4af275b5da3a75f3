//! What a rank says about a call before it sends any of its bytes.

use crate::element::{DType, ReduceOp};
use crate::operation::Tag;
use crate::rank::Rank;
use core::fmt;
use serde::{Deserialize, Serialize};

/// A collective operation, named as in NCCL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Collective {
    /// Every rank ends with the reduction of all inputs.
    AllReduce = 1,
    /// Rank r ends with block r of the reduction of all inputs.
    ReduceScatter = 2,
    /// Every rank ends with all inputs, in rank order.
    AllGather = 3,
    /// Every rank ends with the root's input.
    Broadcast = 4,
    /// The root ends with the reduction of all inputs.
    Reduce = 5,
    /// The root ends with all inputs, in rank order.
    Gather = 6,
    /// Rank r ends with block r of the root's input.
    Scatter = 7,
    /// Rank r ends with block r of every rank's input, in rank order.
    AllToAll = 8,
}

impl Collective {
    /// Every collective there is.
    pub const ALL: [Collective; 8] = [
        Self::AllReduce,
        Self::ReduceScatter,
        Self::AllGather,
        Self::Broadcast,
        Self::Reduce,
        Self::Gather,
        Self::Scatter,
        Self::AllToAll,
    ];

    /// The name users type and read: `all_reduce`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::Broadcast => "broadcast",
            Self::Reduce => "reduce",
            Self::Gather => "gather",
            Self::Scatter => "scatter",
            Self::AllToAll => "all_to_all",
        }
    }

    /// Whether the operation combines elements, so that an op matters.
    pub fn reduces(self) -> bool {
        matches!(self, Self::AllReduce | Self::ReduceScatter | Self::Reduce)
    }

    /// Whether one rank is special.
    pub fn rooted(self) -> bool {
        matches!(self, Self::Broadcast | Self::Reduce | Self::Gather | Self::Scatter)
    }

    /// How many blocks of `count` elements (as NCCL counts them) the vector has that `size` ranks together hold or
    /// reduce: see [`Holding`](crate::plan::Holding).
    #[inline]
    pub fn blocks(self, size: u32) -> u32 {
        match self {
            Self::AllReduce | Self::Broadcast | Self::Reduce => 1,
            Self::AllGather | Self::ReduceScatter | Self::Gather | Self::Scatter => size,
            Self::AllToAll => size * size,
        }
    }

    /// How many of them a rank's input and its output hold.
    #[inline]
    pub fn held(self, size: u32, is_root: bool) -> [u32; 2] {
        let root = u32::from(is_root);
        match self {
            Self::AllReduce => [1, 1],
            Self::ReduceScatter => [size, 1],
            Self::AllGather => [1, size],
            Self::Broadcast => [root, 1],
            Self::Reduce => [1, root],
            Self::Gather => [1, root * size],
            Self::Scatter => [root * size, 1],
            Self::AllToAll => [size, size],
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|c| *c as u8 == code)
    }
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One call as its rank made it. Every rank of a call must have made the same one; the
/// signature travels in the first header of the call on every link and is compared before any user
/// byte of that link's is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature {
    /// Which collective.
    pub collective: Collective,
    /// Element type.
    pub dtype: DType,
    /// Reduction; `Sum` where the collective does not reduce.
    pub op: ReduceOp,
    /// The algorithm's number in the library's table, so that two ranks tuned differently are caught; with
    /// [`REGISTERED`](Self::REGISTERED) where the call is planned for registered buffers, and [`PIECES`](Self::PIECES) where it is cut.
    pub algorithm: u8,
    /// The root; rank 0 where there is none. At most `u16::MAX`.
    pub root: Rank,
    /// Elements, as NCCL counts them for this collective. Less than 2^48. Of a user operation, what
    /// [`count_for`](Self::count_for) makes of them.
    pub count: u64,
    /// How many calls this communicator made before, modulo 2^32.
    pub sequence: u32,
}

impl Signature {
    /// The greatest count that a signature can carry.
    pub const COUNT_MAX: u64 = (1 << 48) - 1;

    /// The greatest count of a call with a user operation: the other bits are of the operation's tag.
    pub const USER_COUNT_MAX: u64 = (1 << 32) - 1;

    /// Set in [`algorithm`](Self::algorithm) where the call's buffers are registered.
    pub const REGISTERED: u8 = 0x80;

    /// Set in [`algorithm`](Self::algorithm) where blocks have lengths of their own; `count` is then a hash of the lengths, or
    /// 0 where they were compared before; of the call that compares them in memos, how many bytes a memo has.
    pub const RAGGED: u8 = 0x40;

    /// Set in [`algorithm`](Self::algorithm) of a barrier, which is planned as an all-reduce of one byte and is none to the
    /// ranks: one that makes the other is told so.
    pub const BARRIER: u8 = 0x20;

    /// Set in [`algorithm`](Self::algorithm) where the call goes through its buffers in several pieces. How many follows from what
    /// else is in a signature, but whether it does may not: bytes of two pieces would else be taken for those of one.
    pub const PIECES: u8 = 0x10;

    /// A signature for the time before the first call. Never sent.
    pub fn none() -> Self {
        Self {
            collective: Collective::AllReduce,
            dtype: DType::I8,
            op: ReduceOp::Sum,
            algorithm: 0,
            root: Rank(0),
            count: 0,
            sequence: u32::MAX,
        }
    }

    /// The [`count`](Self::count) of a call of so many elements with the user operation that has this tag.
    #[inline]
    pub fn count_for(elements: u64, tag: Tag) -> u64 {
        elements & Self::USER_COUNT_MAX | u64::from(tag.bits()) << 32
    }

    /// The signature as two words: `collective | dtype | op | algorithm | sequence`, `count | root`. The highest bits of a
    /// tag share the operation's byte.
    #[inline]
    pub fn to_words(&self) -> [u64; 2] {
        let kinds = u64::from(self.collective as u8)
            | u64::from(self.dtype as u8) << 8
            | (u64::from(self.op as u8) | self.count >> 48) << 16
            | u64::from(self.algorithm) << 24
            | u64::from(self.sequence) << 32;
        [kinds, (self.count & Self::COUNT_MAX) | u64::from(self.root.0) << 48]
    }

    /// Reads what a peer wrote. `None` when the words name no collective, type or operation.
    pub fn from_words(words: [u64; 2]) -> Option<Self> {
        let byte = |shift: u32| (words[0] >> shift) as u8;
        let op = ReduceOp::from_code(byte(16))?;
        let tagged = if op == ReduceOp::User { u64::from(byte(16) & !(ReduceOp::User as u8)) } else { 0 };
        Some(Self {
            collective: Collective::from_code(byte(0))?,
            dtype: DType::from_code(byte(8))?,
            op,
            algorithm: byte(24),
            sequence: (words[0] >> 32) as u32,
            count: words[1] & Self::COUNT_MAX | tagged << 48,
            root: Rank((words[1] >> 48) as u32),
        })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sequence, collective, dtype) = (self.sequence, self.collective, self.dtype);
        if self.algorithm & Self::BARRIER != 0 {
            return write!(f, "call {sequence} barrier");
        }
        let is_user = self.op == ReduceOp::User;
        let count = if is_user { self.count & Self::USER_COUNT_MAX } else { self.count };
        let is_ragged = self.algorithm & Self::RAGGED != 0;
        if is_ragged && collective == Collective::AllToAll && count > 0 {
            write!(f, "call {sequence} {collective}_v {dtype}[lengths in memos of {count} bytes]")?;
        } else if is_ragged {
            write!(f, "call {sequence} {collective}_v {dtype}[lengths #{count:x}]")?;
        } else {
            write!(f, "call {sequence} {collective} {dtype}[{count}]")?;
        }
        if self.collective.reduces() {
            write!(f, " {}", self.op)?;
        }
        if is_user {
            write!(f, " {}", Tag::from_bits((self.count >> 32) as u32))?;
        }
        if self.collective.rooted() {
            write!(f, " root {}", self.root.0)?;
        }
        if self.algorithm & Self::REGISTERED != 0 {
            f.write_str(" on registered buffers")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_operation_travels_with_its_tag() {
        let (one, two) =
            (Tag::of("signature::one", true).unwrap(), Tag::of("signature::two", false).unwrap());
        for (elements, tag) in [(0, one), (Signature::USER_COUNT_MAX, two), (7, Tag::from_bits(u32::MAX))] {
            let count = Signature::count_for(elements, tag);
            let root = Rank(u32::from(u16::MAX));
            let call = Signature { op: ReduceOp::User, count, root, ..Signature::none() };
            assert_eq!(Signature::from_words(call.to_words()), Some(call));
            assert!(call.to_string().contains(&format!("[{elements}] user operation {tag}")), "{call}");
        }
        let words = |tag| {
            let count = Signature::count_for(1, tag);
            Signature { op: ReduceOp::User, count, ..Signature::none() }.to_words()
        };
        assert_ne!(words(one), words(two));
        // Bits that only the operation's byte holds.
        assert_ne!(words(Tag::from_bits(1 << 22)), words(Tag::from_bits(0)));
    }
}
