//! Symbolic values: which fold of which inputs a chunk holds.
//!
//! Equal numbers mean equal bits: values are hash-consed, a fold of two is commutative, and nothing is
//! associative. A fold of several values rounds once, so it is another value than the same folds one by one.

use super::Reason;
use crate::rank::Rank;
use std::collections::HashMap;

/// A value, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ValueId(u32);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Value {
    /// What a rank gave.
    Leaf { rank: Rank, chunk: u32 },
    /// The operands, in order; `finished` where an average divides too.
    Fold { operands: Box<[ValueId]>, finished: bool },
}

/// What is known of a value without looking into it.
#[derive(Debug)]
struct Facts {
    chunk: u32,
    /// Whose contributions it has, a bit for each rank.
    ranks: Box<[u64]>,
}

/// All values seen so far.
#[derive(Debug)]
pub(super) struct Values {
    size: u32,
    numbers: HashMap<Value, ValueId>,
    facts: Vec<Facts>,
}

impl Values {
    pub(super) fn new(size: u32) -> Self {
        Self { size, numbers: HashMap::new(), facts: Vec::new() }
    }

    /// What `rank` gave as chunk `chunk`.
    pub(super) fn leaf(&mut self, rank: Rank, chunk: u32) -> ValueId {
        let size = self.size;
        self.number(Value::Leaf { rank, chunk }, || {
            let mut ranks = vec![0; size.div_ceil(64) as usize].into_boxed_slice();
            ranks[rank.index() / 64] |= 1 << (rank.0 % 64);
            Facts { chunk, ranks }
        })
    }

    /// The fold of the operands in order, or the operand itself where there is one.
    pub(super) fn fold(&mut self, operands: &[ValueId], finished: bool) -> Result<ValueId, Reason> {
        let first = &self.facts[operands[0].0 as usize];
        let (chunk, mut ranks) = (first.chunk, first.ranks.clone());
        if let [only] = *operands {
            return if finished { Err(Reason::MarkedEarly { chunk }) } else { Ok(only) };
        }
        for operand in &operands[1..] {
            let facts = &self.facts[operand.0 as usize];
            if facts.chunk != chunk {
                return Err(Reason::MixedChunks { chunk, other: facts.chunk });
            }
            for (word, (mine, theirs)) in (0..).zip(ranks.iter_mut().zip(&facts.ranks)) {
                let twice = *mine & theirs;
                if twice != 0 {
                    return Err(Reason::ReducedTwice {
                        rank: Rank(word * 64 + twice.trailing_zeros()),
                        chunk,
                    });
                }
                *mine |= theirs;
            }
        }
        match (self.is_all(&ranks), finished) {
            (true, false) => return Err(Reason::Unmarked { chunk }),
            (false, true) => return Err(Reason::MarkedEarly { chunk }),
            _ => {}
        }
        let mut operands: Box<[ValueId]> = operands.into();
        if operands.len() == 2 {
            operands.sort_unstable();
        }
        Ok(self.number(Value::Fold { operands, finished }, || Facts { chunk, ranks }))
    }

    /// Whether the value is the reduction of `chunk` over all ranks.
    pub(super) fn is_reduction(&self, value: ValueId, chunk: u32) -> bool {
        let facts = &self.facts[value.0 as usize];
        facts.chunk == chunk && self.is_all(&facts.ranks)
    }

    /// The value in words.
    pub(super) fn describe(&self, value: ValueId) -> String {
        let facts = &self.facts[value.0 as usize];
        let has = |r: &u32| facts.ranks[*r as usize / 64] >> (r % 64) & 1 == 1;
        let ranks: Vec<String> = (0..self.size).filter(has).map(|r| r.to_string()).collect();
        format!("chunk {} of rank {}", facts.chunk, ranks.join("+"))
    }

    fn is_all(&self, ranks: &[u64]) -> bool {
        ranks.iter().map(|word| word.count_ones()).sum::<u32>() == self.size
    }

    fn number(&mut self, value: Value, facts: impl FnOnce() -> Facts) -> ValueId {
        let next = ValueId(self.facts.len() as u32);
        let id = *self.numbers.entry(value).or_insert(next);
        if id == next {
            self.facts.push(facts());
        }
        id
    }
}
