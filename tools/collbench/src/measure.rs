//! Measures one row: checks the data, times calls back to back and one by one, and checks again.
//!
//! Invariant: every rank makes the same calls in the same order. Whatever decides how many (a clock, say) is agreed on first.

use crate::bound::{self, Level};
use crate::cli::Flags;
use crate::geometry::Shape;
use crate::host;
use crate::memory::Memory;
use crate::pattern::{Pattern, Place};
use crate::team::Team;
use sohu_coll::{Buffers, Error, ReduceOp, Request};
use std::time::Instant;

/// The least and the most timed calls where a budget decides, as the benchmark of the peers has them.
pub(crate) const ITERATIONS: (u32, u32) = (4, 5000);

/// How often the budget may be overrun before the loop is cut short: the estimate was made in other conditions.
const OVERRUN: f64 = 6.0;

/// Calls between looks at the clock that all ranks share.
const LOOK_EVERY: usize = 16;

/// Below this hand-over of a cache line, in nanoseconds, ranks share a last-level cache.
const NEAR_NS: f64 = 130.0;

/// What one half of a row (out of place, or in place) came to.
#[derive(Clone, Debug)]
pub(crate) struct Half {
    /// Wrong elements on all ranks, in all checks; `None` when nothing was checked.
    pub(crate) wrong: Option<u64>,
    /// Mean time of calls back to back, combined over ranks as `-a` asks, in microseconds.
    pub(crate) time_us: f64,
    /// The same, of the slowest rank.
    pub(crate) bulk_us: f64,
    /// Times of single calls after a barrier, of the slowest rank each; without the first `skipped`.
    pub(crate) iterations_us: Vec<f64>,
    /// How many of them were left out.
    pub(crate) skipped: usize,
    /// One-way hand-over of a cache line: the greater of before and after. NaN where there is none.
    pub(crate) handover_ns: f64,
    /// The least time the machine allows; NaN where that is not known.
    pub(crate) limit_us: f64,
    /// What was chosen for the call.
    pub(crate) explained: Explained,
}

impl Half {
    /// The limit in percent of the time taken: 100 would be perfect.
    pub(crate) fn limit_pct(&self) -> f64 {
        self.limit_us / self.time_us * 100.0
    }
}

/// What the library chose for a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explained {
    /// The algorithm.
    pub(crate) algorithm: String,
    /// How bytes move.
    pub(crate) protocol: String,
    /// What it should take, in microseconds.
    pub(crate) predicted_us: f64,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was called.
    pub(crate) shape: Shape,
    /// Out of place, in place.
    pub(crate) halves: [Half; 2],
}

impl Row {
    /// The greatest hand-over measured around the row; NaN where there is none.
    pub(crate) fn handover_ns(&self) -> f64 {
        self.halves[0].handover_ns.max(self.halves[1].handover_ns)
    }

    /// Whether the ranks' cores were near or far; `-` where that is not known.
    pub(crate) fn state(&self) -> &'static str {
        state(self.handover_ns())
    }

    /// Wrong elements in the row.
    pub(crate) fn wrong(&self) -> u64 {
        self.halves.iter().filter_map(|half| half.wrong).sum()
    }
}

/// `near` or `far`; `-` when not known.
pub(crate) fn state(handover_ns: f64) -> &'static str {
    match handover_ns {
        ns if ns.is_nan() => "-",
        ns if ns < NEAR_NS => "near",
        _ => "far",
    }
}

/// What rows are measured with.
pub(crate) struct Bench<'a> {
    team: &'a mut Team,
    flags: &'a Flags,
    levels: &'a [Level],
    input: Memory,
    output: Memory,
    /// Whether the hand-over can be measured: with fewer cores than ranks it would be a time slice.
    roomy: bool,
}

impl<'a> Bench<'a> {
    /// A bench with buffers for the greatest of `shapes`.
    pub(crate) fn new(
        team: &'a mut Team,
        flags: &'a Flags,
        levels: &'a [Level],
        shapes: &[Shape],
    ) -> Result<Self, Error> {
        let most = |bytes: fn(&Shape) -> usize| shapes.iter().map(bytes).max().unwrap_or(0);
        let (unalign, registered) = (flags.unalign as usize, flags.register == 1);
        let input = Memory::new(team.measured(), most(Shape::input_bytes), unalign, registered)?;
        let output = Memory::new(team.measured(), most(Shape::bytes), unalign, registered)?;
        let roomy = team.size() as usize <= host::online();
        Ok(Self { team, flags, levels, input, output, roomy })
    }

    /// Measures one row.
    pub(crate) fn row(&mut self, shape: Shape) -> Result<Row, Error> {
        let pattern = Pattern::new(shape, self.team.rank());
        let before = self.handover()?;
        let mut apart = self.half(shape, &pattern, Place::Apart)?;
        let between = self.handover()?;
        let mut in_place = self.half(shape, &pattern, Place::InPlace)?;
        let after = self.handover()?;
        apart.handover_ns = before.max(between);
        in_place.handover_ns = between.max(after);
        for (half, place) in [(&mut apart, Place::Apart), (&mut in_place, Place::InPlace)] {
            let registered = self.flags.register == 1;
            half.limit_us = bound::limit_us(self.levels, half.handover_ns, &shape, place, registered);
        }
        Ok(Row { shape, halves: [apart, in_place] })
    }

    /// This rank's part of the bench lasts until here, where rank 0 gives the exit code; no rank leaves before.
    pub(crate) fn end(&mut self, code: u8) -> Result<u8, Error> {
        self.team.first_says(code)
    }

    fn handover(&mut self) -> Result<f64, Error> {
        if self.roomy { self.team.own().handover_ns() } else { Ok(f64::NAN) }
    }

    fn half(&mut self, shape: Shape, pattern: &Pattern, place: Place) -> Result<Half, Error> {
        let registered = self.flags.register == 1;
        let in_place = place == Place::InPlace;
        let chosen = self.team.measured().explain(
            shape.collective,
            shape.dtype,
            shape.op,
            shape.count,
            in_place,
            registered,
        )?;
        let length = if in_place { shape.in_place_bytes(self.team.rank()) } else { shape.output_bytes() };
        let mut caller = Caller {
            team: &mut *self.team,
            shape,
            place,
            input: self.input.first(shape.input_bytes()),
            output: self.output.first(length),
        };
        let mut wrong = 0;
        for _ in 0..self.flags.check {
            wrong += caller.check(pattern)?;
        }
        let count = caller.warm_up(self.flags)?;
        let mut iterations_us = caller.single(count, self.flags)?;
        let mine = caller.bulk(iterations_us.len(), self.flags)?;
        let skipped = (self.flags.skip as usize).min(iterations_us.len() - 1);
        iterations_us.drain(..skipped);
        let time_us = caller.combine(mine, self.flags.average)?;
        let bulk_us = caller.combine(mine, 3)?;
        if self.flags.check > 0 {
            wrong += caller.check(pattern)?;
        }
        Ok(Half {
            wrong: (self.flags.check > 0).then_some(wrong),
            time_us,
            bulk_us,
            iterations_us,
            skipped,
            handover_ns: f64::NAN,
            limit_us: f64::NAN,
            explained: Explained {
                algorithm: chosen.algorithm.into(),
                protocol: chosen.protocol.into(),
                predicted_us: chosen.predicted_us,
            },
        })
    }
}

/// One call, to be made again and again.
struct Caller<'a> {
    team: &'a mut Team,
    shape: Shape,
    place: Place,
    input: &'a mut [u8],
    output: &'a mut [u8],
}

impl Caller<'_> {
    fn call(&mut self) -> Result<(), Error> {
        let Shape { collective, dtype, op, root, .. } = self.shape;
        let buffers = match self.place {
            Place::Apart => Buffers::Apart { input: &*self.input, output: &mut *self.output },
            Place::InPlace => Buffers::InPlace(&mut *self.output),
        };
        self.team.measured().run(Request { collective, dtype, op, root, buffers })
    }

    /// Makes one call on known data; returns the number of wrong elements on all ranks.
    fn check(&mut self, pattern: &Pattern) -> Result<u64, Error> {
        pattern.fill(self.place, self.input, self.output);
        self.team.own().barrier()?;
        self.call()?;
        let mut wrong = [pattern.wrong(self.place, self.output)];
        self.team.own().all_reduce_in_place(&mut wrong, ReduceOp::Sum)?;
        Ok(wrong[0])
    }

    /// Makes the untimed calls; returns how many timed ones there should be.
    fn warm_up(&mut self, flags: &Flags) -> Result<u32, Error> {
        let by_size = match self.shape.bytes() {
            0..=0x1_0000 => 20,
            0x1_0001..=0x40_0000 => 3,
            _ => 1,
        };
        let calls = match (flags.warmup, flags.iters) {
            (Some(calls), Some(_)) => calls,
            // An estimate needs a call.
            (Some(calls), None) => calls.max(1),
            (None, Some(_)) => 1,
            (None, None) => by_size,
        };
        self.team.own().barrier()?;
        let start = Instant::now();
        for _ in 0..calls {
            self.call()?;
        }
        let mine = start.elapsed().as_secs_f64() / f64::from(calls.max(1));
        match flags.iters {
            Some(iterations) => Ok(iterations),
            None => {
                let slowest = self.combine(mine, 3)?;
                let iteration = (slowest + 1e-6) * f64::from(flags.aggregate);
                Ok(((flags.budget / iteration) as u32).clamp(ITERATIONS.0, ITERATIONS.1))
            }
        }
    }

    /// Times single iterations, each after a barrier; returns the time per call of the slowest rank for each, in
    /// microseconds.
    fn single(&mut self, count: u32, flags: &Flags) -> Result<Vec<f64>, Error> {
        let most = if flags.iters.is_some() { f64::INFINITY } else { OVERRUN * flags.budget };
        let mut times = Vec::with_capacity(count as usize);
        let begin = Instant::now();
        for _ in 0..count {
            self.team.own().barrier()?;
            let start = Instant::now();
            for _ in 0..flags.aggregate {
                self.call()?;
            }
            times.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(flags.aggregate));
            if most.is_finite() && times.len().is_multiple_of(LOOK_EVERY) {
                let mut over = [u8::from(begin.elapsed().as_secs_f64() > most)];
                self.team.own().broadcast_in_place(&mut over, 0)?;
                if over[0] == 1 {
                    break;
                }
            }
        }
        self.team.own().all_reduce_in_place(&mut times, ReduceOp::Max)?;
        Ok(times)
    }

    /// Times `count` iterations back to back, or each call with a barrier after it; returns this rank's mean per call, in
    /// microseconds.
    fn bulk(&mut self, count: usize, flags: &Flags) -> Result<f64, Error> {
        let calls = count as u64 * u64::from(flags.aggregate);
        self.team.own().barrier()?;
        let start = Instant::now();
        for _ in 0..calls {
            self.call()?;
            if flags.blocking == 1 {
                self.team.own().barrier()?;
            }
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / calls as f64)
    }

    /// One figure of every rank, as `-a` combines them: 0 = rank 0's, 1 = the mean, 2 = the least, 3 = the greatest.
    fn combine(&mut self, mine: f64, how: u8) -> Result<f64, Error> {
        let mut figure = [mine];
        match how {
            0 => self.team.own().broadcast_in_place(&mut figure, 0)?,
            1 => self.team.own().all_reduce_in_place(&mut figure, ReduceOp::Avg)?,
            2 => self.team.own().all_reduce_in_place(&mut figure, ReduceOp::Min)?,
            _ => self.team.own().all_reduce_in_place(&mut figure, ReduceOp::Max)?,
        }
        Ok(figure[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_part_at_130_ns() {
        for (ns, name) in [(55.0, "near"), (129.9, "near"), (130.0, "far"), (290.0, "far"), (f64::NAN, "-")] {
            assert_eq!(state(ns), name);
        }
    }
}
