//! Makes one call again and again: checked, untimed, one by one, and back to back.
//!
//! Invariant: how many calls are made depends on nothing that ranks could see differently.

use crate::cli::Flags;
use crate::geometry::Shape;
use crate::measure::{ITERATIONS, Turn};
use crate::overlap::{self, Flight, Wanted};
use crate::pattern::{self, Pattern, Place};
use crate::team::Team;
use sohu_coll::{Blocks, Buffers, Error, ReduceOp, Request, Untyped};
use std::time::Instant;

/// How often the budget may be overrun before the loop is cut short: the estimate was made in other conditions.
const OVERRUN: f64 = 6.0;

/// Calls between looks at the clock that all ranks share.
const LOOK_EVERY: usize = 16;

/// The least timed calls of one round of several.
const LEAST_OF_ROUND: u32 = 2;

/// What the calls of one round came to; the fields are those of a half.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) wrong: u64,
    pub(crate) time_us: f64,
    pub(crate) bulk_us: f64,
    pub(crate) iterations_us: Vec<f64>,
    pub(crate) skipped: usize,
}

/// One call, to be made again and again.
pub(crate) struct Caller<'a> {
    pub(crate) team: &'a mut Team,
    pub(crate) shape: Shape,
    pub(crate) place: Place,
    pub(crate) input: &'a mut [u8],
    pub(crate) output: &'a mut [u8],
    /// Whether to call on the communicator with reproducible results.
    pub(crate) strict: bool,
    /// Bytes of the blocks of the input and the output, where they have lengths of their own.
    pub(crate) blocks: Option<[Vec<usize>; 2]>,
    /// The calls that are in flight at once, where there are several.
    pub(crate) flight: Option<Box<dyn Flight>>,
}

impl Caller<'_> {
    /// Measures one round.
    ///
    /// # Errors
    /// As the calls.
    pub(crate) fn time(mut self, pattern: &Pattern, flags: &Flags, turn: Turn) -> Result<Timed, Error> {
        let mut wrong = 0;
        let checks = if turn.is_first() { flags.check } else { 0 };
        for _ in 0..checks {
            wrong += self.check(pattern)?;
        }
        if checks == 0 && flags.check > 0 {
            // Else it would be what other rows left, and numbers of another type can be slow ones of this type.
            pattern.fill(self.place, self.input, self.output);
        }
        if flags.overlap > 1 {
            wrong += self.board(pattern, flags)?;
        }
        let count = self.warm_up(flags, turn)?;
        let mut iterations_us = self.single(count, flags, turn)?;
        let mine = self.bulk(iterations_us.len(), flags)?;
        let skipped = (flags.skip as usize).min(iterations_us.len() - 1);
        iterations_us.drain(..skipped);
        let time_us = self.combine(mine, flags.average)?;
        let bulk_us = self.combine(mine, 3)?;
        if flags.check > 0 && turn.is_last() {
            wrong += self.check(pattern)?;
        }
        Ok(Timed { wrong, time_us, bulk_us, iterations_us, skipped })
    }

    fn call(&mut self) -> Result<(), Error> {
        let Shape { collective, dtype, op, root, .. } = self.shape;
        if self.shape.is_ring() {
            let comm = self.team.calls(self.strict);
            let (rank, ranks) = (comm.rank(), comm.size());
            let (next, last) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
            return comm.group(|group| {
                group.send_bytes(dtype, &*self.input, next).recv_bytes(dtype, &mut *self.output, last);
            });
        }
        if let Some([gives, gets]) = &self.blocks {
            // What only moves needs no type: bytes go wherever buffers start, in the same time.
            let comm = self.team.calls(self.strict);
            if self.place == Place::InPlace {
                return comm.all_to_all_v_in_place(&mut *self.output, Blocks::packed(gives));
            }
            return comm.all_to_all_v(
                &*self.input,
                Blocks::packed(gives),
                &mut *self.output,
                Blocks::packed(gets),
            );
        }
        let buffers = match self.place {
            Place::Apart => Buffers::Apart { input: &*self.input, output: &mut *self.output },
            Place::InPlace => Buffers::InPlace(&mut *self.output),
        };
        let request = Request { collective, dtype, op, root, buffers };
        if op == ReduceOp::PreMulSum {
            let scalar = pattern::scalar(dtype, self.team.rank());
            return self.team.calls(self.strict).run_scaled(request, scalar);
        }
        self.team.calls(self.strict).run(request)
    }

    /// Plans the calls that are in flight at once, makes them once, and returns the number of wrong elements on all ranks.
    fn board(&mut self, pattern: &Pattern, flags: &Flags) -> Result<u64, Error> {
        let Shape { collective, dtype, op, root, .. } = self.shape;
        let lengths = [self.input.len(), self.output.len()];
        let fill = |input: &mut [u8], output: &mut [u8]| pattern.fill(self.place, input, output);
        let (place, registered, blocks) = (self.place, flags.register == 1, self.blocks.clone());
        let scalar = (op == ReduceOp::PreMulSum).then(|| pattern::scalar(dtype, self.team.rank()));
        let (count, ring) = (flags.overlap, self.shape.is_ring());
        let wanted = Wanted { place, lengths, count, registered, scalar, blocks, ring };
        let comm = self.team.calls(self.strict);
        let mut flight = overlap::board(comm, Untyped { collective, dtype, op, root }, wanted, &fill)?;
        flight.go(comm)?;
        let mut wrong =
            [if flags.check > 0 { flight.wrong(&|output| pattern.wrong(self.place, output)) } else { 0 }];
        self.team.own().all_reduce_in_place(&mut wrong, ReduceOp::Sum)?;
        self.flight = Some(flight);
        Ok(wrong[0])
    }

    /// What is timed as one: so many calls, one after another or all in flight.
    fn iteration(&mut self, flags: &Flags) -> Result<(), Error> {
        if let Some(flight) = &mut self.flight {
            return flight.go(self.team.calls(self.strict));
        }
        for _ in 0..flags.aggregate {
            self.call()?;
        }
        Ok(())
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
    fn warm_up(&mut self, flags: &Flags, turn: Turn) -> Result<u32, Error> {
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
            Some(iterations) => Ok(turn.share(iterations)),
            None => {
                let slowest = self.combine(mine, 3)?;
                let iteration = (slowest + 1e-6) * calls_of(flags);
                let most = ITERATIONS.1.div_ceil(turn.rounds);
                let least = if turn.rounds > 1 { LEAST_OF_ROUND } else { ITERATIONS.0 };
                Ok(((budget(flags, turn) / iteration) as u32).clamp(least, most.max(least)))
            }
        }
    }

    /// Times single iterations, each after a barrier; returns the time per call of the slowest rank for each, in
    /// microseconds.
    fn single(&mut self, count: u32, flags: &Flags, turn: Turn) -> Result<Vec<f64>, Error> {
        let most = if flags.iters.is_some() { f64::INFINITY } else { OVERRUN * budget(flags, turn) };
        let mut times = Vec::with_capacity(count as usize);
        let begin = Instant::now();
        for _ in 0..count {
            self.team.own().barrier()?;
            let start = Instant::now();
            self.iteration(flags)?;
            times.push(start.elapsed().as_secs_f64() * 1e6 / calls_of(flags));
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
        self.team.own().barrier()?;
        let start = Instant::now();
        if self.flight.is_some() {
            for _ in 0..count {
                self.iteration(flags)?;
                if flags.blocking == 1 {
                    self.team.own().barrier()?;
                }
            }
        } else {
            for _ in 0..count as u64 * u64::from(flags.aggregate) {
                self.call()?;
                if flags.blocking == 1 {
                    self.team.own().barrier()?;
                }
            }
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / (count as f64 * calls_of(flags)))
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

/// Calls of one iteration.
fn calls_of(flags: &Flags) -> f64 {
    f64::from(flags.aggregate) * f64::from(flags.overlap)
}

/// Seconds that each timed loop of one round fills.
fn budget(flags: &Flags, turn: Turn) -> f64 {
    flags.budget / f64::from(turn.rounds)
}
