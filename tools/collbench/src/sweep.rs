//! A series of rows: every chosen type, operation and root at every size, printed by rank 0.

use crate::baseline::Measured;
use crate::cli::{Flags, RaggedFlags};
use crate::failure::{Failure, SLOWER, WRONG};
use crate::geometry::{self, SIZES_MAX, Shape};
use crate::json;
use crate::measure::{Bench, Row, Turn};
use crate::parse::OPS;
use crate::printer::Printer;
use crate::team::Team;
use crate::traffic::Source;
use crate::{host, limits, tune};
use sohu_coll::{Collective, DType, Error, ReduceOp};

/// In how many rounds rows are measured where runs, or settings, are compared.
const ROUNDS: u32 = 12;

/// A series that makes sense.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    collective: Collective,
    pub(crate) flags: &'a Flags,
    /// The greatest size.
    pub(crate) max: u64,
    sizes: Vec<u64>,
    /// What to compare with.
    pub(crate) baseline: Option<Measured>,
    /// Where the lengths of blocks come from, where they have lengths of their own.
    pub(crate) traffic: Option<Source>,
}

impl<'a> Plan<'a> {
    /// The series that the flags ask for.
    ///
    /// # Errors
    /// What makes no sense, with what would.
    pub(crate) fn new(collective: Collective, flags: &'a Flags) -> Result<Self, Failure> {
        let usage = |text: String| Err(Failure::Usage(text));
        let min = flags.min;
        let max = flags.max.unwrap_or_else(|| min.max(32 << 20));
        if min > max {
            return usage(format!("-b {min} is more than -e {max}; the smallest size comes first"));
        }
        if flags.factor.is_none() && flags.step == 0 && min < max {
            return usage("-i 0 never gets from -b to -e; give -i 1M, or -f 2 to multiply".into());
        }
        let widest = flags.dtype.of(DType::ALL).into_iter().max_by_key(|dtype| dtype.size());
        if let Some(dtype) = widest.filter(|dtype| min < dtype.size() as u64) {
            let least = dtype.size();
            return usage(format!(
                "size {min} is below one {dtype} element ({least} bytes); give -b {least} or more"
            ));
        }
        if let (crate::parse::Choice::One(root), Some(ranks)) = (flags.root, flags.common.ranks)
            && root >= ranks
        {
            return usage(no_such_root(root, ranks));
        }
        let sizes = geometry::sizes(min, max, flags.step, flags.factor);
        if sizes.len() > SIZES_MAX {
            return usage(format!(
                "-b, -e and -i make more than {SIZES_MAX} sizes; give -f 2, or a greater -i"
            ));
        }
        if let Some(iterations) = flags.iters.filter(|iterations| flags.skip >= *iterations) {
            return usage(format!(
                "-K {} leaves none of the {iterations} iterations of -n; give -K less, or -n more",
                flags.skip
            ));
        }
        if let (Some(rounds), Some(iterations)) = (flags.rounds, flags.iters)
            && rounds > iterations
        {
            return usage(format!(
                "--rounds {rounds} can not share the {iterations} iterations of -n; give --rounds {iterations} or less"
            ));
        }
        if flags.reproducible && !collective.reduces() {
            return usage(format!(
                "--reproducible makes no difference to {collective}, which folds nothing; it does to all_reduce, \
                 reduce_scatter and reduce"
            ));
        }
        if flags.baseline.is_some() && flags.cycles == 0 {
            return usage(
                "--baseline compares when all is measured, which -N 0 never is; give -N 1 or more".into(),
            );
        }
        let baseline = flags.baseline.as_deref().map(Measured::read).transpose()?;
        Ok(Self { collective, flags, max, sizes, baseline, traffic: None })
    }

    /// The series of all-to-alls whose blocks have lengths of their own.
    ///
    /// # Errors
    /// As for [`new`](Self::new); and what is wrong with the matrix.
    pub(crate) fn ragged(ragged: &'a RaggedFlags) -> Result<Self, Failure> {
        let flags = &ragged.flags;
        untuned(flags)?;
        if flags.common.algo.is_some() {
            return Err(Failure::Usage(
                "--algo makes no difference to alltoallv, for which there is one algorithm".into(),
            ));
        }
        let source = match &ragged.matrix {
            Some(path) => {
                Source::read(path, ragged.exact).map_err(|why| Failure::Usage(format!("--matrix {why}")))?
            }
            None => Source::Spread(ragged.spread, ragged.seed),
        };
        if let Some(ranks) = flags.common.ranks {
            source.fits(ranks).map_err(Failure::Usage)?;
        }
        Ok(Self { traffic: Some(source), ..Self::new(Collective::AllToAll, flags)? })
    }

    /// The series of messages from each rank to the next.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub(crate) fn ring(flags: &'a Flags) -> Result<Self, Failure> {
        untuned(flags)?;
        if flags.common.algo.is_some() {
            return Err(Failure::Usage(
                "--algo makes no difference to sendrecv, which has no algorithm".into(),
            ));
        }
        Ok(Self { traffic: Some(Source::Ring), ..Self::new(Collective::AllToAll, flags)? })
    }

    /// In how many rounds each row is measured.
    pub(crate) fn rounds(&self) -> u32 {
        let flags = self.flags;
        let kept = flags.common.output_file.is_some() || flags.report.is_some();
        let compared = flags.reproducible || flags.baseline.is_some() || kept;
        let usual = if compared && flags.skip == 0 { ROUNDS } else { 1 };
        flags.rounds.unwrap_or_else(|| usual.min(flags.iters.unwrap_or(usual)))
    }

    /// What nccl-tests calls the program.
    pub(crate) fn program(&self) -> String {
        match self.collective {
            _ if self.traffic == Some(Source::Ring) => "sendrecv_perf".into(),
            _ if self.traffic.is_some() => "alltoallv_perf".into(),
            Collective::AllToAll => "alltoall_perf".into(),
            other => format!("{other}_perf"),
        }
    }

    fn shapes(&self, ranks: u32) -> Vec<Shape> {
        if let Some(source) = &self.traffic {
            return self.ragged_shapes(ranks, source);
        }
        let collective = self.collective;
        let ops = match collective.reduces() {
            true => self.flags.op.of(OPS),
            false => vec![ReduceOp::Sum],
        };
        let roots = if collective.rooted() { self.flags.root.of(0..ranks) } else { vec![0] };
        let mut shapes = Vec::new();
        for dtype in self.flags.dtype.of(DType::ALL) {
            for &op in &ops {
                for &root in &roots {
                    let call = (collective, dtype, op, root);
                    shapes.extend(self.sizes.iter().map(|&size| Shape::new(call, ranks, size)));
                }
            }
        }
        shapes
    }
}

impl Plan<'_> {
    fn ragged_shapes(&self, ranks: u32, source: &Source) -> Vec<Shape> {
        let sizes = if source.is_exact() { &[0][..] } else { &self.sizes };
        let mut shapes = Vec::new();
        for dtype in self.flags.dtype.of(DType::ALL) {
            let traffics = sizes.iter().map(|size| source.traffic(ranks, *size, dtype.size()));
            let mut traffics: Vec<_> = traffics.collect();
            // A column has all rows or none: few elements are shared out alike by chance.
            let in_place = traffics.iter().all(|traffic| traffic.in_place);
            traffics.iter_mut().for_each(|traffic| traffic.in_place = in_place);
            let shape = |(size, traffic): (&u64, _)| Shape::ragged(dtype, ranks, *size, traffic);
            shapes.extend(sizes.iter().zip(traffics).map(shape));
        }
        shapes
    }
}

/// Refuses to tune calls that no algorithm is chosen for.
fn untuned(flags: &Flags) -> Result<(), Failure> {
    match flags.tune {
        None => Ok(()),
        Some(_) => Err(Failure::Usage("--tune is for calls that there are several algorithms for".into())),
    }
}

fn no_such_root(root: u32, ranks: u32) -> String {
    format!("root {root} is not a rank of a job of {ranks}; ranks are 0..{ranks}")
}

/// Measures the series and prints it on rank 0. Returns the exit code.
pub(crate) fn run(team: &mut Team, plan: &Plan<'_>) -> Result<u8, Failure> {
    let (flags, ranks) = (plan.flags, team.size());
    if let crate::parse::Choice::One(root) = flags.root
        && root >= ranks
    {
        return Err(Failure::Usage(no_such_root(root, ranks)));
    }
    if let Some(source) = &plan.traffic {
        source.fits(ranks).map_err(Failure::Usage)?;
    }
    let shapes = plan.shapes(ranks);
    if let Some(path) = &flags.tune {
        return tune::run(team, flags, &shapes, path);
    }
    let devices = devices(team)?;
    let printer = match team.rank() {
        0 => Printer::new(plan, devices, team.transport(), &shapes).map(Some),
        _ => Ok(None),
    };
    // Ranks that have nothing to say need not complain that rank 0 left.
    let code = team.first_says(printer.as_ref().map_or_else(Failure::code, |_| 0))?;
    let mut printer = printer?;
    if code != 0 {
        return Ok(code);
    }
    let levels = limits::levels(team, flags)?;
    let mut bench = Bench::new(team, flags, &levels, &shapes)?;
    let rounds = plan.rounds();
    let mut wrong = 0;
    let mut cycle = 0;
    while flags.cycles == 0 || cycle < flags.cycles {
        let mut parts: Vec<Vec<Row>> = vec![Vec::new(); shapes.len()];
        for round in 0..rounds {
            for (&shape, parts) in shapes.iter().zip(&mut parts) {
                let turn = Turn { round, rounds };
                parts.push(bench.row(shape, turn)?);
                let row = turn.is_last().then(|| Row::joined(std::mem::take(parts)));
                wrong += u64::from(row.as_ref().is_some_and(|row| row.wrong() > 0));
                if let Some(printer) = &mut printer {
                    printer.tell(row.as_ref());
                }
            }
        }
        cycle = cycle.saturating_add(1);
    }
    if let Some(printer) = printer.as_ref().filter(|_| flags.explain && !flags.common.jsonl) {
        printer.say(&bench.memory().to_string());
    }
    let slower = printer.map_or(Ok(false), |printer| printer.finish(wrong))?;
    let code = match slower {
        _ if wrong > 0 => WRONG,
        true => SLOWER,
        false => 0,
    };
    // A rank that left with an error code before would have the launcher end rank 0 while it still writes.
    Ok(bench.end(code)?)
}

/// Where every rank runs.
fn devices(team: &mut Team) -> Result<Vec<json::Device>, Error> {
    let core = host::cores().first().map_or(0, |&core| core as u64);
    let mine = [u64::from(std::process::id()), core];
    let mut all = vec![0; 2 * team.size() as usize];
    team.own().all_gather(&mine, &mut all)?;
    let place = |(rank, pair): (u32, &[u64])| json::Device {
        rank,
        group: 0,
        pid: pair[0],
        hostname: host::name(),
        device: pair[1],
        device_hex: "0000:00:00",
        device_info: host::processor(),
    };
    Ok((0..).zip(all.chunks_exact(2)).map(place).collect())
}

#[cfg(test)]
mod tests;
