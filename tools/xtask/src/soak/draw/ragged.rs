//! Calls whose blocks have lengths of their own.

use super::{BYTES_MAX, Home, How, Rng, Script};
use sohu_coll::{Collective, DType, ReduceOp};
use std::ops::Range;

/// The collectives that there are with such blocks.
pub(in crate::soak) const COLLECTIVES: [Collective; 5] = [
    Collective::AllGather,
    Collective::ReduceScatter,
    Collective::Gather,
    Collective::Scatter,
    Collective::AllToAll,
];

/// The longest gap between two blocks of an all-to-all, in elements.
const GAP_MAX: usize = 20;

/// One such call, made once or several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::soak) struct Ragged {
    /// The name of the group that calls.
    pub(in crate::soak) group: u32,
    pub(in crate::soak) collective: Collective,
    pub(in crate::soak) dtype: DType,
    pub(in crate::soak) op: ReduceOp,
    /// A rank of the group; given also where the collective has none.
    pub(in crate::soak) root: u32,
    /// Elements of the block of each rank; in an all-to-all, of what each rank gives each, row by row.
    pub(in crate::soak) counts: Vec<Vec<usize>>,
    /// Whether the blocks of an all-to-all lie in any order, with gaps.
    pub(in crate::soak) scattered: bool,
    pub(in crate::soak) homes: [Home; 2],
    pub(in crate::soak) salt: u64,
    /// Bytes between the start of the memory and the first guard.
    pub(in crate::soak) offset: usize,
    /// Elements of a buffer that a rank hands over and does not need.
    pub(in crate::soak) spare: usize,
    /// How often it is made: from the second time on it is planned already.
    pub(in crate::soak) times: u32,
    /// Blocking, or started.
    pub(in crate::soak) how: How,
    pub(in crate::soak) late: Option<(u32, u64)>,
}

/// Where the blocks of one buffer of an all-to-all lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::soak) struct Lay {
    /// Of each rank, in elements.
    pub(in crate::soak) counts: Vec<usize>,
    /// Of each rank; `None` where they follow each other.
    pub(in crate::soak) displacements: Option<Vec<usize>>,
    /// Blocks and gaps in the order in which they lie: whose, or nobody's, and where.
    pub(in crate::soak) runs: Vec<(Option<u32>, Range<usize>)>,
}

impl Ragged {
    /// What `rank` gives, block by block, or gets, in an all-to-all.
    pub(in crate::soak) fn lay(&self, rank: u32, gives: bool) -> Lay {
        let own = rank as usize;
        let counts: Vec<usize> = match gives {
            true => self.counts[own].clone(),
            false => self.counts.iter().map(|row| row[own]).collect(),
        };
        let mut order: Vec<u32> = (0..counts.len() as u32).collect();
        let mut rng = Rng::new(self.salt, 2 * u64::from(rank) + u64::from(gives));
        if self.scattered {
            rng.shuffle(&mut order);
        }
        let mut displacements = vec![0; counts.len()];
        let (mut runs, mut at) = (Vec::new(), 0);
        for peer in order {
            if self.scattered {
                let gap = rng.index(GAP_MAX + 1);
                runs.push((None, at..at + gap));
                at += gap;
            }
            displacements[peer as usize] = at;
            let end = at + counts[peer as usize];
            runs.push((Some(peer), at..end));
            at = end;
        }
        Lay { counts, displacements: self.scattered.then_some(displacements), runs }
    }
}

impl Script {
    /// A call with blocks of any lengths, none and everything among them.
    pub(super) fn ragged(&mut self) -> Ragged {
        let group = self.parent();
        let size = group.members.len() as u32;
        let (collective, dtype) = (self.rng.one_of(&COLLECTIVES), self.rng.one_of(&DType::ALL));
        let rows = if collective == Collective::AllToAll { size } else { 1 };
        // Room for the gaps, too.
        let all = BYTES_MAX / dtype.size() - (GAP_MAX + 1) * size as usize;
        let spread = self.rng.below(5);
        let hot = self.rng.below(size.into()) as u32;
        let equal = self.bytes() / dtype.size();
        let mut count = |to: u32| {
            let any = self.bytes() / dtype.size();
            let share = any.min(all / size as usize);
            match spread {
                // One rank gets nearly all there is, from everybody.
                0 if to == hot => any.min(all / rows as usize),
                0 => self.rng.index(3),
                // Most blocks are empty, or all are.
                1 if !self.rng.once_in(4) => 0,
                2 if self.rng.once_in(2) => 0,
                3 => equal.min(all / size as usize),
                _ => share,
            }
        };
        let counts: Vec<Vec<usize>> = (0..rows).map(|_| (0..size).map(&mut count).collect()).collect();
        let how = self.fate(counts.iter().flatten().sum::<usize>() * dtype.size());
        Ragged {
            group: group.name,
            collective,
            dtype,
            op: self.rng.one_of(&ReduceOp::ALL),
            root: self.rng.below(size.into()) as u32,
            counts,
            scattered: self.rng.once_in(2),
            homes: self.homes(),
            salt: self.rng.next(),
            offset: self.offset(),
            spare: self.rng.one_of(&[0, 1, 13]),
            times: self.rng.one_of(&[1, 1, 2, 3]),
            how,
            late: self.late(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_one_gives_the_other_gets_and_no_buffer_is_too_long() {
        let mut script = Script::new(5, 3, 0);
        let (mut empty, mut skewed) = (0, 0);
        for _ in 0..2_000 {
            let call = script.ragged();
            let element = call.dtype.size();
            if call.collective != Collective::AllToAll {
                let all: usize = call.counts[0].iter().sum();
                assert!(all * element <= BYTES_MAX, "{call:?}");
                empty += usize::from(all == 0);
                continue;
            }
            for rank in 0..3 {
                let (gives, gets) = (call.lay(rank, true), call.lay(rank, false));
                assert!(
                    (0..3).all(|to| gives.counts[to] == call.lay(to as u32, false).counts[rank as usize])
                );
                for lay in [gives, gets] {
                    let ends: Vec<usize> = lay.runs.iter().map(|run| run.1.end).collect();
                    assert!(ends.last().is_none_or(|end| end * element <= BYTES_MAX), "{call:?}");
                    assert!(lay.runs.windows(2).all(|pair| pair[0].1.end == pair[1].1.start), "{lay:?}");
                    for (peer, range) in lay.runs.iter().filter_map(|run| Some((run.0?, &run.1))) {
                        let start = lay.displacements.as_ref().map(|starts| starts[peer as usize]);
                        assert!(start.is_none_or(|start| start == range.start), "{lay:?}");
                        assert_eq!(range.len(), lay.counts[peer as usize]);
                    }
                }
            }
            let sorted: BTreeSet<usize> = call.counts.iter().flatten().copied().collect();
            skewed += usize::from(sorted.last() > Some(&100_000) && sorted.first() < Some(&3));
        }
        assert!(
            empty > 10 && skewed > 10,
            "{empty} calls without a byte, {skewed} with one block of nearly all"
        );
    }
}
