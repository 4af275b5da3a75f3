//! What one row measures: how many elements each rank gives and gets, and how its bandwidths are computed. The rules are
//! those of nccl-tests.

use crate::pattern::Place;
use crate::traffic::Traffic;
use sohu_coll::{Collective, DType, ReduceOp};
use std::ops::Range;

/// One row's call, the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Which collective.
    pub(crate) collective: Collective,
    /// Element type.
    pub(crate) dtype: DType,
    /// Reduction; `Sum` where there is none.
    pub(crate) op: ReduceOp,
    /// The root; 0 where there is none.
    pub(crate) root: u32,
    /// How many ranks.
    pub(crate) ranks: u32,
    /// The size that was asked for, in bytes.
    pub(crate) asked: u64,
    /// Elements as the call counts them: those of one block.
    pub(crate) count: usize,
    /// Where blocks have lengths of their own: which. It lasts as long as the process, so that a shape stays a small value;
    /// a run has few.
    pub(crate) traffic: Option<&'static Traffic>,
}

impl Shape {
    /// The call whose greatest buffer has `asked` bytes, rounded down to what divides among the ranks, but at least an
    /// element for each.
    pub(crate) fn new(
        (collective, dtype, op, root): (Collective, DType, ReduceOp, u32),
        ranks: u32,
        asked: u64,
    ) -> Self {
        let elements = asked as usize / dtype.size();
        let count = match most(collective.held(ranks, true)) {
            1 => elements,
            blocks => (elements / blocks).max(1),
        };
        Self { collective, dtype, op, root, ranks, asked, count, traffic: None }
    }

    /// An all-to-all of such blocks, or a ring of messages, for `asked` bytes a rank.
    pub(crate) fn ragged(dtype: DType, ranks: u32, asked: u64, traffic: Traffic) -> Self {
        let elements = asked as usize / dtype.size();
        let count = if traffic.ring { elements } else { elements / ranks as usize };
        let call = (Collective::AllToAll, dtype, ReduceOp::Sum, 0);
        Self { count, traffic: Some(Box::leak(Box::new(traffic))), ..Self::new(call, ranks, asked) }
    }

    /// Whether it is messages round a ring.
    pub(crate) fn is_ring(&self) -> bool {
        self.traffic.is_some_and(|traffic| traffic.ring)
    }

    /// The forms that the call has.
    pub(crate) fn places(&self) -> &'static [Place] {
        match self.traffic {
            Some(traffic) if !traffic.in_place => &[Place::Apart],
            _ => &[Place::Apart, Place::InPlace],
        }
    }

    /// Bytes of the input that a rank hands over where input and output are apart: as long as the root's, whether or not it
    /// is looked at.
    pub(crate) fn input_bytes(&self) -> usize {
        if let Some(traffic) = self.traffic {
            return traffic.most()[0];
        }
        self.collective.held(self.ranks, true)[0] as usize * self.block_bytes()
    }

    /// The same, of the output.
    pub(crate) fn output_bytes(&self) -> usize {
        if let Some(traffic) = self.traffic {
            return traffic.most()[1];
        }
        self.collective.held(self.ranks, true)[1] as usize * self.block_bytes()
    }

    /// Bytes of the input and the output of `rank` where they are apart, and blocks may have lengths of their own.
    pub(crate) fn apart_bytes(&self, rank: u32) -> [usize; 2] {
        match self.traffic {
            Some(traffic) => [traffic.gives(rank), traffic.gets(rank)].map(|blocks| blocks.iter().sum()),
            None => [self.input_bytes(), self.output_bytes()],
        }
    }

    /// Bytes of the greater of the two, of the busiest rank: the size column.
    pub(crate) fn bytes(&self) -> usize {
        self.input_bytes().max(self.output_bytes())
    }

    /// Bytes of the buffer of an in-place call of `rank`.
    pub(crate) fn in_place_bytes(&self, rank: u32) -> usize {
        if self.traffic.is_some() {
            return self.apart_bytes(rank)[1];
        }
        most(self.held(rank)) * self.block_bytes()
    }

    /// Where the input of `rank` lies in the buffer of an in-place call, in bytes; empty where it gives nothing.
    pub(crate) fn input_in_place(&self, rank: u32) -> Range<usize> {
        self.in_place(rank, 0)
    }

    /// Where the output of `rank` lies in the buffer of an in-place call, in bytes; empty where it gets nothing.
    pub(crate) fn output_in_place(&self, rank: u32) -> Range<usize> {
        self.in_place(rank, 1)
    }

    /// Whether `rank` gets anything.
    pub(crate) fn gets(&self, rank: u32) -> bool {
        self.held(rank)[1] > 0
    }

    /// Blocks of the input and the output of `rank`.
    fn held(&self, rank: u32) -> [u32; 2] {
        self.collective.held(self.ranks, rank == self.root)
    }

    /// Where there is one block of those that the buffer has one of for each rank, it is the rank's own.
    fn in_place(&self, rank: u32, side: usize) -> Range<usize> {
        if self.traffic.is_some() {
            return 0..self.apart_bytes(rank)[side];
        }
        let held = self.held(rank);
        let blocks = match held[side] {
            1 if most(held) > 1 => rank..rank + 1,
            blocks => 0..blocks,
        };
        blocks.start as usize * self.block_bytes()..blocks.end as usize * self.block_bytes()
    }

    fn block_bytes(&self) -> usize {
        self.count * self.dtype.size()
    }

    /// Bytes over time, in GB/s (1e9 bytes per second).
    pub(crate) fn algbw(&self, time_us: f64) -> f64 {
        self.bytes() as f64 / time_us / 1e3
    }

    /// The same, times what makes it comparable with the bandwidth of a wire, whatever the collective.
    pub(crate) fn busbw(&self, time_us: f64) -> f64 {
        let others = f64::from(self.ranks - 1);
        let factor = match self.collective {
            _ if self.is_ring() => 1.0,
            Collective::AllReduce => 2.0 * others / f64::from(self.ranks),
            Collective::Broadcast | Collective::Reduce => 1.0,
            _ => others / f64::from(self.ranks),
        };
        self.algbw(time_us) * factor
    }

    /// The operation in the table: `none` where there is none.
    pub(crate) fn op_name(&self) -> &'static str {
        if self.collective.reduces() { self.op.name() } else { "none" }
    }

    /// The root in the table: -1 where there is none.
    pub(crate) fn root_number(&self) -> i64 {
        if self.collective.rooted() { i64::from(self.root) } else { -1 }
    }
}

/// The greater number of blocks.
fn most([input, output]: [u32; 2]) -> usize {
    input.max(output) as usize
}

/// The sizes from `min` to `max`, each `step` more than the one before, or `factor` times it.
pub(crate) fn sizes(min: u64, max: u64, step: u64, factor: Option<u64>) -> Vec<u64> {
    let next = |size: &u64| match factor {
        Some(factor) => size.checked_mul(factor),
        None => size.checked_add(step).filter(|next| next > size),
    };
    std::iter::successors(Some(min), next).take_while(|size| *size <= max).take(SIZES_MAX + 1).collect()
}

/// The most sizes of one run.
pub(crate) const SIZES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(collective: Collective, ranks: u32, asked: u64) -> Shape {
        Shape::new((collective, DType::F32, ReduceOp::Sum, 0), ranks, asked)
    }

    #[test]
    fn size_is_the_whole_buffer_and_count_is_per_rank() {
        for (collective, count, input, output) in [
            (Collective::AllReduce, 256, 1024, 1024),
            (Collective::Broadcast, 256, 1024, 1024),
            (Collective::AllGather, 64, 256, 1024),
            (Collective::ReduceScatter, 64, 1024, 256),
            (Collective::Reduce, 256, 1024, 1024),
            (Collective::Gather, 64, 256, 1024),
            (Collective::Scatter, 64, 1024, 256),
            (Collective::AllToAll, 64, 1024, 1024),
        ] {
            let shape = shape(collective, 4, 1024);
            assert_eq!((shape.count, shape.input_bytes(), shape.output_bytes()), (count, input, output));
            assert_eq!(shape.bytes(), 1024);
        }
    }

    #[test]
    fn sizes_round_down_to_whole_elements_but_every_rank_gets_one() {
        assert_eq!(shape(Collective::AllReduce, 3, 11).count, 2);
        assert_eq!(shape(Collective::AllGather, 3, 31).bytes(), 24);
        assert_eq!(shape(Collective::AllGather, 3, 4).bytes(), 12);
    }

    #[test]
    fn in_place_blocks_follow_the_rank() {
        assert_eq!(shape(Collective::AllGather, 4, 1024).input_in_place(2), 512..768);
        assert_eq!(shape(Collective::AllGather, 4, 1024).output_in_place(2), 0..1024);
        assert_eq!(shape(Collective::ReduceScatter, 4, 1024).output_in_place(3), 768..1024);
        assert_eq!(shape(Collective::AllReduce, 4, 1024).input_in_place(3), 0..1024);
        assert_eq!(shape(Collective::AllToAll, 4, 1024).output_in_place(3), 0..1024);
    }

    #[test]
    fn in_place_buffers_of_the_root_and_of_others_differ() {
        for (collective, root, other) in [
            (Collective::Broadcast, (1024, 0..1024, 0..1024), (1024, 0..0, 0..1024)),
            (Collective::Reduce, (1024, 0..1024, 0..1024), (1024, 0..1024, 0..0)),
            (Collective::Gather, (1024, 256..512, 0..1024), (256, 0..256, 0..0)),
            (Collective::Scatter, (1024, 0..1024, 256..512), (256, 0..0, 0..256)),
        ] {
            let shape = Shape::new((collective, DType::F32, ReduceOp::Sum, 1), 4, 1024);
            for (rank, expected) in [(1, root), (3, other)] {
                let found =
                    (shape.in_place_bytes(rank), shape.input_in_place(rank), shape.output_in_place(rank));
                assert_eq!(found, expected, "{collective}, rank {rank}");
                assert_eq!(shape.gets(rank), !found.2.is_empty());
            }
        }
    }

    #[test]
    fn bandwidths_use_the_factors_of_nccl_tests() {
        for (collective, factor) in [
            (Collective::AllReduce, 1.5),
            (Collective::ReduceScatter, 0.75),
            (Collective::AllGather, 0.75),
            (Collective::Broadcast, 1.0),
            (Collective::Reduce, 1.0),
            (Collective::Gather, 0.75),
            (Collective::Scatter, 0.75),
            (Collective::AllToAll, 0.75),
        ] {
            let shape = shape(collective, 4, 8_000);
            assert_eq!(shape.algbw(8.0), 1.0);
            assert_eq!(shape.busbw(8.0), factor);
        }
    }

    #[test]
    fn messages_round_the_ring_have_the_size_of_one_and_factor_1() {
        for ranks in [1, 2, 5] {
            let traffic = crate::traffic::Source::Ring.traffic(ranks, 4_002, 4);
            let shape = Shape::ragged(DType::F32, ranks, 4_002, traffic);
            assert_eq!((shape.bytes(), shape.count, shape.is_ring()), (4_000, 1_000, true));
            assert_eq!(shape.apart_bytes(ranks - 1), [4_000, 4_000]);
            assert_eq!((shape.algbw(4.0), shape.busbw(4.0)), (1.0, 1.0));
            assert_eq!((shape.places(), shape.root_number()), (&[Place::Apart][..], -1));
        }
    }

    #[test]
    fn the_size_of_ragged_calls_is_that_of_the_busiest_rank() {
        let traffic = Traffic::new(vec![vec![0, 6], vec![3, 1]], 4);
        let shape = Shape::ragged(DType::F32, 2, 24, traffic);
        assert_eq!((shape.bytes(), shape.count), (28, 3));
        assert_eq!(shape.apart_bytes(0), [24, 12]);
        assert_eq!(shape.apart_bytes(1), [16, 28]);
        assert_eq!(shape.busbw(14.0), 28.0 / 14.0 / 1e3 / 2.0);
        assert_eq!(shape.places(), [Place::Apart]);
    }

    #[test]
    fn blocks_can_be_swapped_in_place_where_each_rank_gives_another_as_much_as_it_gets() {
        let shape = Shape::ragged(DType::F32, 2, 24, Traffic::new(vec![vec![0, 6], vec![6, 1]], 4));
        assert_eq!(shape.places(), [Place::Apart, Place::InPlace]);
        assert_eq!((shape.in_place_bytes(0), shape.in_place_bytes(1)), (24, 28));
        assert_eq!((shape.input_in_place(1), shape.output_in_place(1)), (0..28, 0..28));
    }

    #[test]
    fn one_rank_moves_nothing_over_a_wire() {
        assert_eq!(shape(Collective::AllReduce, 1, 8_000).busbw(8.0), 0.0);
    }

    #[test]
    fn sizes_are_added_or_multiplied_up_to_the_greatest() {
        assert_eq!(sizes(8, 40, 0, Some(2)), [8, 16, 32]);
        assert_eq!(sizes(8, 32, 0, Some(2)), [8, 16, 32]);
        assert_eq!(sizes(8, 20, 5, None), [8, 13, 18]);
        assert_eq!(sizes(8, 8, 0, None), [8]);
        assert_eq!(sizes(9, 8, 1, None), [0; 0]);
        assert_eq!(sizes(1 << 40, u64::MAX, 0, Some(1 << 40)), [1 << 40]);
        assert_eq!(sizes(0, u64::MAX, 1, None).len(), SIZES_MAX + 1);
    }
}
