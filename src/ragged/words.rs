//! What ranks tell each other before an all-to-all with blocks of any lengths.
//!
//! Each rank knows its own lengths alone. Two small calls compare them: each rank [tells](Words::tell) every other what it
//! will get, and all ranks hear what each of them [thinks](Words::judge) of that. So all know of the first pair that
//! disagrees, before a byte of the call itself has moved.

use super::Cut;
use crate::operation::Folding;
use crate::owned::Owner;
use crate::request::{Buffers, Request};
use crate::terms::Terms;
use sohu_coll_core::{Collective, DType, Error, Misuse, Rank, ReduceOp};

/// Words of what one rank thinks: the pair that disagrees, the giver first, 0 where all is well; and its two lengths, of the
/// rank that found the pair.
const JUDGED: usize = 3;

/// The words of both calls, kept from one comparison to the next.
#[derive(Debug, Default)]
pub(crate) struct Words {
    given: Vec<u64>,
    offered: Vec<u64>,
    found: [u64; JUDGED],
    all: Vec<u64>,
    /// Whether the first call is over.
    is_judging: bool,
}

impl Words {
    /// Gets ready to tell every rank what it will get from this one.
    pub(crate) fn tell(&mut self, cut: &Cut<'_>) {
        let gives = cut.blocks[0].counts;
        self.is_judging = false;
        self.given.clear();
        self.given.extend(gives.iter().map(|count| *count as u64));
        self.offered.resize(gives.len(), 0);
        self.all.resize(JUDGED * gives.len(), 0);
    }

    /// Compares what the others have told, and gets ready to say what came of it.
    pub(crate) fn judge(&mut self, rank: Rank, cut: &Cut<'_>) {
        let gets = cut.blocks[1].counts;
        let wrong = (0u64..)
            .zip(self.offered.iter().zip(gets))
            .find(|(_, (offered, gets))| **offered != **gets as u64);
        self.is_judging = true;
        self.found = wrong.map_or([0; JUDGED], |(giver, (offered, gets))| {
            [((giver + 1) << 32) | (u64::from(rank.0) + 1), *offered, *gets as u64]
        });
    }

    fn collective(&self) -> Collective {
        if self.is_judging { Collective::AllGather } else { Collective::AllToAll }
    }

    /// The call that is due.
    pub(crate) fn request(&mut self) -> Request<'_> {
        let (collective, dtype, op) = (self.collective(), DType::U64, ReduceOp::Sum);
        Request { collective, dtype, op, root: 0, buffers: self.buffers() }
    }

    /// The same, its buffers apart.
    pub(crate) fn terms(&self) -> Terms {
        let folding = Folding::by_name(ReduceOp::Sum);
        let (collective, dtype) = (self.collective(), DType::U64);
        Terms { collective, dtype, folding, root: 0, flags: 0, lengths: None }
    }

    /// Whether all ranks agree, after both calls.
    ///
    /// # Errors
    /// [`Misuse::Disagree`] names the first two that do not.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        let Some(found) = self.all.chunks_exact(JUDGED).find(|found| found[0] != 0) else { return Ok(()) };
        // The numbers of the two, from 1 on; a peer wrote them.
        let rank = |number: u64| Rank((number as u32).saturating_sub(1));
        let (from, to) = (rank(found[0] >> 32), rank(found[0]));
        Err(Misuse::Disagree { call: "all_to_all_v", from, to, gives: found[1], gets: found[2] }.into())
    }
}

impl Owner for Words {
    fn buffers(&mut self) -> Buffers<'_> {
        match self.is_judging {
            false => Buffers::apart(&self.given, &mut self.offered),
            true => Buffers::apart(&self.found, &mut self.all),
        }
    }
}
