//! A series of rows: every chosen type, operation and root at every size, printed by rank 0.

use crate::baseline::{self, Measured};
use crate::cli::{Flags, RaggedFlags};
use crate::failure::{Failure, SLOWER, WRONG};
use crate::format::{self, Columns};
use crate::geometry::{self, SIZES_MAX, Shape};
use crate::json::{self, Origin, truth};
use crate::measure::{Bench, ITERATIONS, Row, Turn};
use crate::report::{Run, Target};
use crate::team::Team;
use crate::traffic::Source;
use crate::{host, limits};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sohu_coll::{Collective, DType, Error, ReduceOp};
use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;

/// How many percent slower than the baseline is too slow, where nothing else is asked for.
const FAIL_ON: f64 = 5.0;

/// In how many rounds rows are measured where runs, or settings, are compared.
const ROUNDS: u32 = 12;

/// A series that makes sense.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    collective: Collective,
    flags: &'a Flags,
    max: u64,
    sizes: Vec<u64>,
    /// What to compare with.
    baseline: Option<Measured>,
    /// Where the lengths of blocks come from, where they have lengths of their own.
    traffic: Option<Source>,
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

    pub(crate) fn flags(&self) -> &'a Flags {
        self.flags
    }

    /// In how many rounds each row is measured.
    fn rounds(&self) -> u32 {
        let flags = self.flags;
        let kept = flags.common.output_file.is_some() || flags.report.is_some();
        let compared = flags.reproducible || flags.baseline.is_some() || kept;
        let usual = if compared && flags.skip == 0 { ROUNDS } else { 1 };
        flags.rounds.unwrap_or_else(|| usual.min(flags.iters.unwrap_or(usual)))
    }

    /// What nccl-tests calls the program.
    fn program(&self) -> String {
        match self.collective {
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
            true => self.flags.op.of(ReduceOp::ALL),
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
            let shape = |size| Shape::ragged(dtype, ranks, size, source.traffic(ranks, size, dtype.size()));
            shapes.extend(sizes.iter().map(|&size| shape(size)));
        }
        shapes
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

/// What rank 0 prints and writes.
struct Printer<'a> {
    plan: &'a Plan<'a>,
    columns: Columns,
    mode: &'static str,
    bar: ProgressBar,
    file: Option<(PathBuf, File)>,
    page: Option<Target>,
    report: json::Report,
    busbw: (f64, u32),
}

impl<'a> Printer<'a> {
    fn new(
        plan: &'a Plan<'a>,
        devices: Vec<json::Device>,
        mode: &'static str,
        shapes: &[Shape],
    ) -> Result<Self, Failure> {
        let flags = plan.flags;
        let report = report(plan, devices, mode);
        if let Some(baseline) = &plan.baseline {
            baseline.fits(&report, &plan.program(), shapes)?;
        }
        let page = flags.report.as_deref().map(Target::open).transpose()?;
        let path = flags.common.output_file.as_deref();
        let file = path.map(json::create).transpose().map_err(|error| json::unwritable(path, &error))?;
        let printer = Self {
            plan,
            columns: Columns {
                per_iter: flags.per_iter == 1,
                explain: flags.explain,
                strict: flags.reproducible,
            },
            mode,
            bar: bar(shapes.len() * plan.rounds() as usize, flags),
            file,
            page,
            report,
            busbw: (0.0, 0),
        };
        if !flags.common.jsonl {
            printer.print_head();
        }
        Ok(printer)
    }

    /// What the run is, and the head of the table.
    fn print_head(&self) {
        let (flags, config) = (self.plan.flags, &self.report.config);
        if let Some((path, _)) = &self.file {
            println!("# Writing JSON output to {}", path.display());
        }
        if let Some(path) = &flags.report {
            println!("# Drawing a page to {}", path.display());
        }
        println!("# sohu-collbench version {}, table of nccl-tests 2.19.6", self.report.sohu_coll_version);
        println!("# Collective test starting: {}", self.plan.program());
        let (step, kind) = flags.factor.map_or((flags.step, "bytes"), |factor| (factor, "factor"));
        println!(
            "# nThread 1 nGpus 1 minBytes {} maxBytes {} step: {step}({kind}) warmup iters: {} iters: {} agg iters: {} \
             validation: {} graph: 0 unalign: {}",
            config.minimum_bytes,
            config.maximum_bytes,
            config.warmup_iters,
            config.iterations,
            config.aggregated_iterations,
            flags.check,
            flags.unalign
        );
        if let Some(budget) = config.budget_s {
            println!(
                "# Iterations: what fills {budget} s per loop, {} to {}, after 1 to 20 warm-up calls by size; -n 20 -w 1 does as \
                 nccl-tests",
                ITERATIONS.0, ITERATIONS.1
            );
        }
        if self.plan.rounds() > 1 {
            println!(
                "# Each row is measured in {} rounds, in turn with the others; rows appear in the last one",
                self.plan.rounds()
            );
        }
        if let Some(source) = &self.plan.traffic {
            println!("# Traffic: {source}; the size is what the busiest rank gives or gets");
        }
        if self.columns.strict {
            println!(
                "# Reproducible results: repro is the time with them, cost how many times as long that is"
            );
        }
        if self.columns.per_iter {
            println!("# Per-Iteration Report: i_* are single calls after a barrier, slowest rank each");
        }
        println!(
            "# Transport {}, {} buffers",
            self.mode,
            ["private", "registered"][usize::from(flags.register)]
        );
        println!("#\n# Using devices");
        for device in &config.devices {
            println!(
                "#  Rank {:2} Group {:2} Pid {:6} on {:>10} device {:2} [{}] {}",
                device.rank,
                device.group,
                device.pid,
                device.hostname,
                device.device,
                device.device_hex,
                device.device_info
            );
        }
        print!("{}", format::header(self.columns));
    }

    /// Prints lines that are no rows.
    fn say(&self, text: &str) {
        self.bar.suspend(|| text.lines().for_each(|line| println!("# {line}")));
    }

    /// Says that a round of a row is done, and shows the row that it completed.
    fn tell(&mut self, row: Option<&Row>) {
        if let Some(row) = row {
            self.row(row);
        }
        self.bar.inc(1);
    }

    fn row(&mut self, row: &Row) {
        let flags = self.plan.flags;
        for half in &row.halves {
            self.busbw = (self.busbw.0 + row.shape.busbw(half.time_us), self.busbw.1 + 1);
        }
        let text = if flags.common.jsonl {
            let origin = Origin { peer: &flags.peer_name, mode: self.mode, rep: flags.common.rep };
            json::line(row, origin) + "\n"
        } else {
            format::row(row, self.columns)
        };
        self.bar.suspend(|| print!("{text}"));
        if self.file.is_some() || self.page.is_some() || self.plan.baseline.is_some() {
            let entry = json::Entry::of(row, &self.plan.program(), self.columns.per_iter);
            self.report.results.push(entry);
        }
    }

    /// Whether the run was slower than its baseline.
    fn finish(mut self, wrong: u64) -> Result<bool, Failure> {
        self.bar.finish_and_clear();
        let busbw = self.busbw.0 / f64::from(self.busbw.1.max(1));
        if !self.plan.flags.common.jsonl {
            print!("{}", format::footer(&self.plan.program(), wrong, busbw));
        }
        if let Some((path, mut file)) = self.file.take() {
            self.report.out_of_bounds = json::Count { count: wrong, okay: truth(wrong == 0) };
            self.report.average_bus_bandwidth =
                json::Average { bandwidth: json::Num(busbw), okay: "unchecked" };
            self.report.end_time = host::now();
            limits::write_json(&mut file, &self.report).map_err(|error| {
                Failure::Environment(format!("writing {} failed: {error}", path.display()))
            })?;
        }
        if let Some(page) = self.page.take() {
            page.write(&[Run::now(&self.report)])?;
        }
        Ok(self.compare())
    }

    /// Says what is slower than the baseline, and whether anything is.
    fn compare(&self) -> bool {
        let flags = self.plan.flags;
        let (Some(before), Some(path)) = (&self.plan.baseline, &flags.baseline) else { return false };
        let percent = flags.fail_on.unwrap_or(FAIL_ON);
        let comparison = baseline::compare(before, &Measured::now(&self.report), percent);
        let summary = format!("baseline {}, {percent} %: {comparison}", path.display());
        for line in comparison.slower.iter().map(ToString::to_string).chain([summary]) {
            match flags.common.jsonl {
                true => eprintln!("{line}"),
                false => println!("# {line}"),
            }
        }
        !comparison.slower.is_empty()
    }
}

/// A bar on a terminal; nothing elsewhere. It draws only between rows, and has no thread that could disturb one.
fn bar(rows: usize, flags: &Flags) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let length = (flags.cycles != 0).then(|| rows as u64 * u64::from(flags.cycles));
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} measured, {elapsed} gone, {eta} to go");
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr())
        .with_style(style.expect("the template is well formed"))
}

/// The report before anything was measured.
fn report(plan: &Plan<'_>, devices: Vec<json::Device>, mode: &str) -> json::Report {
    let flags = plan.flags;
    let fixed = flags.iters.is_some();
    json::Report {
        version: 3,
        start_time: host::now(),
        args: std::env::args().collect(),
        env: Vec::new(),
        nccl_version: 0,
        sohu_coll_version: env!("CARGO_PKG_VERSION"),
        config: json::Config {
            nthreads: 1,
            ngpus: 1,
            minimum_bytes: flags.min,
            maximum_bytes: plan.max,
            step_factor: flags.factor,
            step_bytes: flags.factor.is_none().then_some(flags.step),
            warmup_iters: flags.warmup.unwrap_or(if fixed { 1 } else { 20 }),
            iterations: flags.iters.unwrap_or(ITERATIONS.1),
            aggregated_iterations: flags.aggregate,
            validation: flags.check,
            graph: 0,
            blocking_collectives: truth(flags.blocking == 1),
            per_iter_timing: truth(flags.per_iter == 1),
            per_iter_skip: flags.skip,
            parallel_init: truth(false),
            budget_s: (!fixed).then_some(flags.budget),
            transport: mode.into(),
            ranks: devices.len() as u32,
            registered: truth(flags.register == 1),
            unalign: flags.unalign,
            traffic: plan.traffic.as_ref().map_or_else(String::new, ToString::to_string),
            rounds: plan.rounds(),
            devices,
        },
        results: Vec::new(),
        out_of_bounds: json::Count { count: 0, okay: truth(true) },
        average_bus_bandwidth: json::Average { bandwidth: json::Num(0.0), okay: "unchecked" },
        errors: Vec::new(),
        end_time: String::new(),
    }
}

#[cfg(test)]
mod tests;
