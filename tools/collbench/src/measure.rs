//! Measures one row: checks the data, times calls back to back and one by one, and checks again.
//!
//! A row may be measured in several rounds, between which the other rows get their turn: what the machine does for a
//! moment then shows as a difference between rounds, and not as one between rows.
//!
//! Invariant: every rank makes the same calls in the same order. Whatever decides how many (a clock, say) is agreed on first.

use crate::bound::{self, Level};
use crate::caller::{Caller, Timed};
use crate::cli::Flags;
use crate::geometry::Shape;
use crate::host;
use crate::memory::Memory;
use crate::pattern::{Pattern, Place};
use crate::stats::{Stats, median};
use crate::team::Team;
use sohu_coll::{Communicator, Error, MemoryUse};

/// The least and the most timed calls where a budget decides, as the benchmark of the peers has them.
pub(crate) const ITERATIONS: (u32, u32) = (4, 5000);

/// Below this hand-over of a cache line, in nanoseconds, ranks share a last-level cache: 42 to 65 between cores of a small one, 120 to 180
/// across one that sixty cores share; between two caches 190 to 310.
const NEAR_NS: f64 = 185.0;

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
    /// One-way hand-over of a cache line: the greater of before and after; of several rounds the median. NaN where there
    /// is none.
    pub(crate) handover_ns: f64,
    /// The least time the machine allows; NaN where that is not known.
    pub(crate) limit_us: f64,
    /// What was chosen for the call.
    pub(crate) explained: Explained,
    /// What each round came to.
    pub(crate) rounds: Vec<Round>,
    /// The same call with reproducible results, where that was asked for.
    pub(crate) strict: Option<Strict>,
}

/// One round of a half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Round {
    /// Median of single calls, in microseconds.
    pub(crate) med_us: f64,
    /// One-way hand-over of a cache line around the round; NaN where there is none.
    pub(crate) handover_ns: f64,
}

/// A half whose results may not depend on how they are computed.
#[derive(Clone, Debug)]
pub(crate) struct Strict {
    /// As [`Half::time_us`].
    pub(crate) time_us: f64,
    /// Median of single calls, in microseconds.
    pub(crate) med_us: f64,
    /// What was chosen for the call.
    pub(crate) explained: Explained,
    /// In each round, how many times as long as without: calls back to back, single calls.
    pub(crate) ratios: Vec<[f64; 2]>,
}

impl Strict {
    /// How many times as long a call takes, back to back: the median of the rounds.
    pub(crate) fn cost(&self) -> f64 {
        median(&mut self.ratios.iter().map(|ratios| ratios[0]).collect::<Vec<f64>>())
    }

    /// The same, by the medians of single calls.
    pub(crate) fn cost_single(&self) -> f64 {
        median(&mut self.ratios.iter().map(|ratios| ratios[1]).collect::<Vec<f64>>())
    }
}

impl Half {
    /// The limit in percent of the time taken: 100 would be perfect.
    pub(crate) fn limit_pct(&self) -> f64 {
        self.limit_us / self.time_us * 100.0
    }

    /// Several rounds as one half.
    fn joined(rounds: Vec<Self>) -> Self {
        let mean = |of: fn(&Self) -> f64| rounds.iter().map(of).sum::<f64>() / rounds.len() as f64;
        let (time_us, bulk_us) = (mean(|half| half.time_us), mean(|half| half.bulk_us));
        let handover_ns = median(&mut rounds.iter().map(|half| half.handover_ns).collect::<Vec<f64>>());
        let stricts: Vec<&Strict> = rounds.iter().filter_map(|half| half.strict.as_ref()).collect();
        let strict = stricts.first().map(|first| Strict {
            time_us: stricts.iter().map(|strict| strict.time_us).sum::<f64>() / stricts.len() as f64,
            med_us: median(&mut stricts.iter().map(|strict| strict.med_us).collect::<Vec<f64>>()),
            explained: first.explained.clone(),
            ratios: stricts.iter().flat_map(|strict| strict.ratios.clone()).collect(),
        });
        let wrong: Vec<u64> = rounds.iter().filter_map(|half| half.wrong).collect();
        let mut whole = rounds.first().expect("a row has a round").clone();
        whole.wrong = (!wrong.is_empty()).then(|| wrong.iter().sum());
        whole.iterations_us = rounds.iter().flat_map(|half| half.iterations_us.iter().copied()).collect();
        // A limit that a busy moment raised is none.
        whole.limit_us = rounds.iter().map(|half| half.limit_us).fold(f64::NAN, f64::min);
        whole.skipped = rounds.iter().map(|half| half.skipped).sum();
        whole.rounds = rounds.iter().flat_map(|half| half.rounds.iter().copied()).collect();
        Self { time_us, bulk_us, handover_ns, strict, ..whole }
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
    /// The most sends of a rank outstanding at once, where the algorithm bounds them.
    pub(crate) outstanding_max: Option<u32>,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was called.
    pub(crate) shape: Shape,
    /// Out of place and, where there is such a form, in place.
    pub(crate) halves: Vec<Half>,
}

impl Row {
    /// Several rounds of the same call as one row.
    ///
    /// # Panics
    /// When there is no round.
    pub(crate) fn joined(rounds: Vec<Self>) -> Self {
        let shape = rounds.first().expect("a row has a round").shape;
        let mut halves: Vec<Vec<Half>> = Vec::new();
        for round in rounds {
            halves.resize_with(round.halves.len(), Vec::new);
            halves.iter_mut().zip(round.halves).for_each(|(halves, half)| halves.push(half));
        }
        Self { shape, halves: halves.into_iter().map(Half::joined).collect() }
    }

    /// The greatest hand-over measured around the row; NaN where there is none.
    pub(crate) fn handover_ns(&self) -> f64 {
        self.halves.iter().map(|half| half.handover_ns).fold(f64::NAN, f64::max)
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

/// Which round of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) round: u32,
    pub(crate) rounds: u32,
}

impl Turn {
    /// This round's share of `count` calls.
    pub(crate) fn share(self, count: u32) -> u32 {
        let upto = |round: u32| (u64::from(count) * u64::from(round) / u64::from(self.rounds)) as u32;
        upto(self.round + 1) - upto(self.round)
    }

    /// Whether it comes before all others.
    pub(crate) fn is_first(self) -> bool {
        self.round == 0
    }

    /// Whether it comes after all others.
    pub(crate) fn is_last(self) -> bool {
        self.round + 1 == self.rounds
    }
}

/// Buffers for the longest call.
struct Buffers {
    input: Memory,
    output: Memory,
}

impl Buffers {
    fn new(comm: &mut Communicator, flags: &Flags, shapes: &[Shape]) -> Result<Self, Error> {
        let most = |bytes: fn(&Shape) -> usize| shapes.iter().map(bytes).max().unwrap_or(0);
        let (unalign, registered) = (flags.unalign as usize, flags.register == 1);
        let input = Memory::new(comm, most(Shape::input_bytes), unalign, registered)?;
        let output = Memory::new(comm, most(Shape::bytes), unalign, registered)?;
        Ok(Self { input, output })
    }
}

/// What rows are measured with.
pub(crate) struct Bench<'a> {
    team: &'a mut Team,
    flags: &'a Flags,
    levels: &'a [Level],
    buffers: Buffers,
    /// Those of the reproducible communicator, where they must be registered with it.
    strict_buffers: Option<Buffers>,
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
        let buffers = Buffers::new(team.measured(), flags, shapes)?;
        // Private buffers are the same for both, so that no difference of their pages is taken for one of the calls.
        let strict = team.strict().filter(|_| flags.register == 1);
        let strict_buffers = strict.map(|comm| Buffers::new(comm, flags, shapes)).transpose()?;
        let roomy = team.size() as usize <= host::online();
        Ok(Self { team, flags, levels, buffers, strict_buffers, roomy })
    }

    /// Measures one round of a row.
    pub(crate) fn row(&mut self, shape: Shape, turn: Turn) -> Result<Row, Error> {
        let pattern = Pattern::new(shape, self.team.rank());
        let mut halves = Vec::new();
        let mut before = self.handover()?;
        for place in shape.places() {
            let mut half = self.half(shape, &pattern, *place, turn)?;
            let after = self.handover()?;
            half.handover_ns = before.max(after);
            half.rounds.iter_mut().for_each(|round| round.handover_ns = half.handover_ns);
            let registered = self.flags.register == 1;
            half.limit_us = bound::limit_us(self.levels, half.handover_ns, &shape, *place, registered);
            halves.push(half);
            before = after;
        }
        Ok(Row { shape, halves })
    }

    /// This rank's part of the bench lasts until here, where rank 0 gives the exit code; no rank leaves before.
    pub(crate) fn end(&mut self, code: u8) -> Result<u8, Error> {
        self.team.first_says(code)
    }

    /// What the measured communicator takes of rank 0's memory.
    pub(crate) fn memory(&mut self) -> MemoryUse {
        self.team.measured().memory()
    }

    fn handover(&mut self) -> Result<f64, Error> {
        if self.roomy { self.team.own().handover_ns() } else { Ok(f64::NAN) }
    }

    fn half(&mut self, shape: Shape, pattern: &Pattern, place: Place, turn: Turn) -> Result<Half, Error> {
        let explained = self.explain(shape, place, false)?;
        let strict_explained = match self.team.strict() {
            Some(_) => Some(self.explain(shape, place, true)?),
            None => None,
        };
        // Who goes first has the caches as the last row left them: both do in turn.
        let strict_first = turn.round % 2 == 1;
        let early = match strict_explained {
            Some(_) if strict_first => Some(self.timed(shape, pattern, place, turn, true)?),
            _ => None,
        };
        let free = self.timed(shape, pattern, place, turn, false)?;
        let late = match strict_explained {
            Some(_) if !strict_first => Some(self.timed(shape, pattern, place, turn, true)?),
            _ => None,
        };
        let med_us = Stats::of(&free.iterations_us).p50;
        let strict = early.or(late);
        let wrong = free.wrong + strict.as_ref().map_or(0, |strict| strict.wrong);
        let strict = strict.zip(strict_explained).map(|(timed, explained)| {
            let strict_med = Stats::of(&timed.iterations_us).p50;
            Strict {
                time_us: timed.time_us,
                med_us: strict_med,
                explained,
                ratios: vec![[timed.time_us / free.time_us, strict_med / med_us]],
            }
        });
        Ok(Half {
            wrong: (self.flags.check > 0).then_some(wrong),
            time_us: free.time_us,
            bulk_us: free.bulk_us,
            iterations_us: free.iterations_us,
            skipped: free.skipped,
            handover_ns: f64::NAN,
            limit_us: f64::NAN,
            explained,
            rounds: vec![Round { med_us, handover_ns: f64::NAN }],
            strict,
        })
    }

    fn timed(
        &mut self,
        shape: Shape,
        pattern: &Pattern,
        place: Place,
        turn: Turn,
        strict: bool,
    ) -> Result<Timed, Error> {
        let rank = self.team.rank();
        let [given, got] = match place {
            Place::Apart => shape.apart_bytes(rank),
            Place::InPlace => [0, shape.in_place_bytes(rank)],
        };
        let blocks = shape.traffic.map(|traffic| [traffic.gives(rank), traffic.gets(rank)]);
        let Buffers { input, output } = match &mut self.strict_buffers {
            Some(buffers) if strict => buffers,
            _ => &mut self.buffers,
        };
        let (input, output) = (input.first(given), output.first(got));
        let team = &mut *self.team;
        Caller { team, shape, place, input, output, strict, blocks, flight: None }
            .time(pattern, self.flags, turn)
    }

    fn explain(&mut self, shape: Shape, place: Place, strict: bool) -> Result<Explained, Error> {
        let (in_place, registered) = (place == Place::InPlace, self.flags.register == 1);
        let Shape { collective, dtype, op, count, .. } = shape;
        if shape.traffic.is_some() {
            // There is one way to make such a call, and no figure for it.
            let algorithm = match shape.is_ring() {
                true => "-",
                false => self.team.calls(strict).ragged_algorithm(collective),
            };
            let (algorithm, protocol) = (algorithm.into(), "-".into());
            return Ok(Explained { algorithm, protocol, predicted_us: f64::NAN, outstanding_max: None });
        }
        let comm = self.team.calls(strict);
        let chosen = comm.explain(collective, dtype, op, count, in_place, registered)?;
        Ok(Explained {
            algorithm: chosen.algorithm.into(),
            protocol: chosen.protocol.into(),
            predicted_us: chosen.predicted_us,
            outstanding_max: chosen.outstanding_max,
        })
    }
}

#[cfg(test)]
mod tests;
