//! Started and planned calls whose blocks have lengths of their own. They keep a copy of the lengths.

use super::{Planned, Started, calls, none, terms};
use crate::communicator::Communicator;
use crate::operation::Operation;
use crate::owned::{Apart, Owned, Shared};
use crate::pending::{Failed, Pending};
use crate::persistent::Persistent;
use crate::ragged::Blocks;
use crate::terms::{Lengths, Terms};
use sohu_coll_core::Collective;
#[cfg(doc)]
use sohu_coll_core::Misuse;
use std::sync::Arc;

/// One list of blocks without gaps.
fn packed(counts: &[usize]) -> Option<Arc<Lengths>> {
    Some(Lengths::of([Blocks::packed(counts); 2]))
}

calls! {
    AllGather(counts: &[usize]), none(), 0, packed(counts);
        "all_gather_v": start_all_gather_v, plan_all_gather_v;
        "all_gather_v_in_place": start_all_gather_v_in_place, plan_all_gather_v_in_place;
    ReduceScatter(counts: &[usize], op: impl Operation<B::Element>), op.folding(), 0, packed(counts);
        "reduce_scatter_v": start_reduce_scatter_v, plan_reduce_scatter_v;
        "reduce_scatter_v_in_place": start_reduce_scatter_v_in_place, plan_reduce_scatter_v_in_place;
    Gather(counts: &[usize], root: u32), none(), root, packed(counts);
        "gather_v": start_gather_v, plan_gather_v;
        "gather_v_in_place": start_gather_v_in_place, plan_gather_v_in_place;
    Scatter(counts: &[usize], root: u32), none(), root, packed(counts);
        "scatter_v": start_scatter_v, plan_scatter_v;
        "scatter_v_in_place": start_scatter_v_in_place, plan_scatter_v_in_place;
}

fn all_to_all<B: Owned>(gives: Blocks<'_>, gets: Blocks<'_>) -> Terms {
    terms::<B>(Collective::AllToAll, none(), 0, Some(Lengths::of([gives, gets])))
}

impl Communicator {
    /// Starts a call as [`all_to_all_v`](Self::all_to_all_v) is; it owns its buffers until it is over.
    ///
    /// # Errors
    /// As for [`all_to_all_v`](Self::all_to_all_v), and [`Misuse::Pending`] when too many calls are pending. Ranks that disagree
    /// on a block are told where the call is waited for. [`Failed`] gives the buffers back.
    pub fn start_all_to_all_v<B, O>(
        &mut self,
        input: B,
        gives: Blocks<'_>,
        output: O,
        gets: Blocks<'_>,
    ) -> Started<(B, O)>
    where
        B: Owned,
        O: Owned<Element = B::Element>,
    {
        self.start(all_to_all::<B>(gives, gets), Apart(input, output))
    }

    /// Plans calls as [`all_to_all_v`](Self::all_to_all_v) is, on these buffers. Lengths are compared in each run: those of
    /// other ranks may change.
    ///
    /// # Errors
    /// [`Misuse`](crate::Misuse) as for [`all_to_all_v`](Self::all_to_all_v); [`Failed`] gives the buffers back.
    pub fn plan_all_to_all_v<B, O>(
        &mut self,
        input: B,
        gives: Blocks<'_>,
        output: O,
        gets: Blocks<'_>,
    ) -> Planned<(B, O)>
    where
        B: Owned,
        O: Owned<Element = B::Element>,
    {
        self.plan(all_to_all::<B>(gives, gets), Apart(input, output))
    }

    /// Starts a call as [`all_to_all_v_in_place`](Self::all_to_all_v_in_place) is; it owns its buffer until it is over.
    ///
    /// # Errors
    /// As for [`start_all_to_all_v`](Self::start_all_to_all_v).
    pub fn start_all_to_all_v_in_place<B: Owned>(&mut self, data: B, blocks: Blocks<'_>) -> Started<B> {
        self.start(all_to_all::<B>(blocks, blocks), Shared(data))
    }

    /// Plans calls as [`all_to_all_v_in_place`](Self::all_to_all_v_in_place) is, on this buffer. As for
    /// [`plan_all_to_all_v`](Self::plan_all_to_all_v).
    ///
    /// # Errors
    /// As for [`plan_all_to_all_v`](Self::plan_all_to_all_v).
    pub fn plan_all_to_all_v_in_place<B: Owned>(&mut self, data: B, blocks: Blocks<'_>) -> Planned<B> {
        self.plan(all_to_all::<B>(blocks, blocks), Shared(data))
    }
}
