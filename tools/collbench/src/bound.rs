//! The physical limit of a call: no implementation on this machine can be faster.
//!
//! A call's ranks must hand at least one cache line over, and together they must move some bytes. So
//!
//! ```text
//! limit = max( L,  copied / C  +  folded / F )
//! ```
//!
//! with L the one-way hand-over of a cache line between two ranks (only where every rank waits for every other: back to
//! back, calls that go one way, to the root or from it, overlap); C and F the rates at which all ranks at once, each on
//! its own core and in its own memory, copy bytes and fold two inputs into one output (bytes of one input per second,
//! ranks summed), both with the better kind of store, read off the measured levels at the size of the call. What
//! n ranks must copy and fold at least, all of them together, for a call of S bytes (B = S / n is one block):
//!
//! | collective, buffers | copied | folded |
//! |---|---|---|
//! | all-reduce, private | n S: first inputs into staging, where next ranks fold theirs onto them; results out of it | (n-1) S |
//! | all-reduce, registered | n S: each rank reads a block of every input and writes a block of every output | - |
//! | reduce-scatter, private | S: first inputs into staging | (n-1) S |
//! | reduce-scatter, registered | - | (n-1) S |
//! | all-gather, private | n B + n (n-1) B: into staging, out of it, and n B more out of place | - |
//! | all-gather, registered | n (n-1) B, and n B more out of place | - |
//! | broadcast, private | n S: into staging, out of it | - |
//! | broadcast, registered | (n-1) S | - |
//! | reduce, private | S: the first input into staging | (n-1) S |
//! | reduce, registered | - | (n-1) S |
//! | gather and scatter, private | 2 (n-1) B: into staging, out of it, and B more out of place | - |
//! | gather and scatter, registered | (n-1) B, and B more out of place | - |
//! | all-to-all, private | 2 n (n-1) B: into staging, out of it, and n B more out of place | - |
//! | all-to-all, registered | n (n-1) B, and n B more out of place | - |
//! | all-to-all with blocks of any lengths | as all-to-all, with what the pairs of ranks exchange | - |
//!
//! Reading what another core has just written is slower than reading one's own memory, so 100 % is out of reach.

use crate::geometry::Shape;
use crate::pattern::Place;
use sohu_coll::Collective;

/// Rates of all ranks together at one size of buffer, in GB/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    /// Bytes of one buffer.
    pub(crate) bytes: usize,
    /// Copying with ordinary stores, then with stores past the caches.
    pub(crate) copy: [f64; 2],
    /// Folding two inputs, with the same two stores.
    pub(crate) fold: [f64; 2],
}

/// What all ranks must do together.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Work {
    copied: f64,
    folded: f64,
}

/// The least time of a call in microseconds; NaN where nothing was measured.
pub(crate) fn limit_us(
    levels: &[Level],
    handover_ns: f64,
    shape: &Shape,
    place: Place,
    registered: bool,
) -> f64 {
    if levels.is_empty() || shape.ranks < 2 {
        return f64::NAN;
    }
    let work = work(shape, place, registered);
    let at = shape.bytes() as f64;
    let moving = work.copied / rate(levels, at, |l| l.copy) + work.folded / rate(levels, at, |l| l.fold);
    // A hand-over that could not be measured limits nothing: `max` passes over NaN.
    let waiting = if shape.collective.rooted() { f64::NAN } else { handover_ns };
    moving.max(waiting) / 1e3
}

fn work(shape: &Shape, place: Place, registered: bool) -> Work {
    if let Some(traffic) = shape.traffic {
        let [moved, stays] = traffic.moved().map(|bytes| bytes as f64);
        let stays = if place == Place::Apart { stays } else { 0.0 };
        return Work { copied: if registered { moved } else { 2.0 * moved } + stays, folded: 0.0 };
    }
    let ranks = f64::from(shape.ranks);
    let others = ranks - 1.0;
    let whole = shape.bytes() as f64;
    let own = if place == Place::Apart { whole } else { 0.0 };
    let block = whole / ranks;
    // What stays on its rank is copied once, and only out of place.
    let own_block = own / ranks;
    let (copied, folded) = match (shape.collective, registered) {
        (Collective::AllReduce, false) => (ranks * whole, others * whole),
        (Collective::AllReduce, true) => (ranks * whole, 0.0),
        (Collective::ReduceScatter | Collective::Reduce, false) => (whole, others * whole),
        (Collective::ReduceScatter | Collective::Reduce, true) => (0.0, others * whole),
        (Collective::AllGather, false) => (whole + others * whole + own, 0.0),
        (Collective::AllGather, true) => (others * whole + own, 0.0),
        (Collective::Broadcast, false) => (ranks * whole, 0.0),
        (Collective::Broadcast, true) => (others * whole, 0.0),
        (Collective::Gather | Collective::Scatter, false) => (2.0 * others * block + own_block, 0.0),
        (Collective::Gather | Collective::Scatter, true) => (others * block + own_block, 0.0),
        (Collective::AllToAll, false) => (2.0 * others * whole + own, 0.0),
        (Collective::AllToAll, true) => (others * whole + own, 0.0),
    };
    Work { copied, folded }
}

/// The better rate of the two stores at `bytes`, between the two levels around it on a logarithmic scale. GB/s are bytes
/// per nanosecond.
fn rate(levels: &[Level], bytes: f64, of: impl Fn(&Level) -> [f64; 2]) -> f64 {
    let best = |level: &Level| of(level).into_iter().fold(0.0, f64::max);
    let above = levels.iter().position(|level| level.bytes as f64 >= bytes).unwrap_or(levels.len());
    match (above.checked_sub(1).and_then(|below| levels.get(below)), levels.get(above)) {
        (Some(low), Some(high)) => {
            let span = (high.bytes as f64 / low.bytes as f64).ln();
            let way = (bytes / low.bytes as f64).ln() / span;
            best(low) + (best(high) - best(low)) * way
        }
        (Some(only), None) | (None, Some(only)) => best(only),
        (None, None) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Traffic;
    use sohu_coll::{DType, ReduceOp};

    const LEVELS: [Level; 2] = [
        Level { bytes: 1 << 20, copy: [100.0, 10.0], fold: [50.0, 5.0] },
        Level { bytes: 1 << 24, copy: [10.0, 20.0], fold: [5.0, 10.0] },
    ];

    fn shape(collective: Collective, ranks: u32, bytes: u64) -> Shape {
        Shape::new((collective, DType::F32, ReduceOp::Sum, 0), ranks, bytes)
    }

    #[test]
    fn small_calls_are_limited_by_the_hand_over() {
        let small = shape(Collective::AllReduce, 2, 8);
        assert_eq!(limit_us(&LEVELS, 60.0, &small, Place::Apart, false), 0.06);
        let overlapping = shape(Collective::Reduce, 2, 1000);
        assert_eq!(limit_us(&LEVELS, 60.0, &overlapping, Place::Apart, true), 0.02);
    }

    #[test]
    fn large_calls_are_limited_by_memory() {
        let large = shape(Collective::AllReduce, 2, 1 << 24);
        let bytes = f64::from(1 << 24);
        // Private: 2 S copied at 20, S folded at 10; registered: 2 S copied.
        assert_eq!(limit_us(&LEVELS, 60.0, &large, Place::Apart, false), (bytes / 10.0 + bytes / 10.0) / 1e3);
        assert_eq!(limit_us(&LEVELS, 60.0, &large, Place::Apart, true), bytes / 10.0 / 1e3);
    }

    #[test]
    fn rates_between_levels_lie_between_theirs() {
        let middle = f64::from(1 << 22);
        assert!((rate(&LEVELS, middle, |l| l.copy) - 60.0).abs() < 1e-9);
        for (bytes, gbps) in
            [(1.0, 100.0), (f64::from(1 << 20), 100.0), (f64::from(1 << 24), 20.0), (1e12, 20.0)]
        {
            assert_eq!(rate(&LEVELS, bytes, |l| l.copy), gbps);
        }
    }

    #[test]
    fn an_all_gather_in_place_copies_its_own_block_less() {
        let gather = shape(Collective::AllGather, 4, 4096);
        assert_eq!(work(&gather, Place::Apart, true), Work { copied: 4.0 * 4096.0, folded: 0.0 });
        assert_eq!(work(&gather, Place::InPlace, true), Work { copied: 3.0 * 4096.0, folded: 0.0 });
    }

    #[test]
    fn what_ranks_exchange_is_copied_into_staging_and_out_of_it() {
        let copied = |collective, place, registered| work(&shape(collective, 4, 4096), place, registered);
        let only = |copied| Work { copied, folded: 0.0 };
        // Three blocks of 1024 bytes go to or come from the root; twelve go from rank to rank.
        for rooted in [Collective::Gather, Collective::Scatter] {
            assert_eq!(copied(rooted, Place::Apart, true), only(4.0 * 1024.0));
            assert_eq!(copied(rooted, Place::InPlace, true), only(3.0 * 1024.0));
            assert_eq!(copied(rooted, Place::InPlace, false), only(6.0 * 1024.0));
        }
        assert_eq!(copied(Collective::AllToAll, Place::Apart, true), only(16.0 * 1024.0));
        assert_eq!(copied(Collective::AllToAll, Place::InPlace, true), only(12.0 * 1024.0));
        assert_eq!(copied(Collective::AllToAll, Place::InPlace, false), only(24.0 * 1024.0));
    }

    #[test]
    fn only_the_first_inputs_of_a_reduction_are_copied_into_staging() {
        let folded = 3.0 * 4096.0;
        for (collective, copied) in [
            (Collective::Reduce, 4096.0),
            (Collective::ReduceScatter, 4096.0),
            (Collective::AllReduce, 4.0 * 4096.0),
        ] {
            let work = work(&shape(collective, 4, 4096), Place::Apart, false);
            assert_eq!(work, Work { copied, folded }, "{collective}");
        }
    }

    #[test]
    fn blocks_of_their_own_lengths_are_copied_as_long_as_they_are() {
        let traffic = Traffic::new(vec![vec![10, 0], vec![5, 1]], 4);
        let shape = Shape::ragged(DType::F32, 2, 40, traffic);
        assert_eq!(work(&shape, Place::Apart, false), Work { copied: 2.0 * 20.0 + 44.0, folded: 0.0 });
        assert_eq!(work(&shape, Place::Apart, true), Work { copied: 20.0 + 44.0, folded: 0.0 });
    }

    #[test]
    fn nothing_measured_and_one_rank_have_no_limit() {
        assert!(limit_us(&[], 60.0, &shape(Collective::AllReduce, 2, 8), Place::Apart, false).is_nan());
        assert!(limit_us(&LEVELS, 60.0, &shape(Collective::AllReduce, 1, 8), Place::Apart, false).is_nan());
    }

    #[test]
    fn a_hand_over_that_was_not_measured_limits_nothing() {
        let small = shape(Collective::AllToAll, 2, 1000);
        assert_eq!(limit_us(&LEVELS, f64::NAN, &small, Place::InPlace, true), 0.01);
    }
}
