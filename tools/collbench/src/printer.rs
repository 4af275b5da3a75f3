//! What rank 0 prints and writes while a series is measured, and when it is over.
//!
//! Invariant: every file that was asked for is open before anything is measured.

use crate::baseline::{self, Measured};
use crate::cli::Flags;
use crate::failure::Failure;
use crate::format::{self, Columns};
use crate::geometry::Shape;
use crate::json::{self, Origin, truth};
use crate::measure::{ITERATIONS, Row};
use crate::report::{Run, Target};
use crate::sweep::Plan;
use crate::{host, limits};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;

/// How many percent slower than the baseline is too slow, where nothing else is asked for.
const FAIL_ON: f64 = 5.0;

/// What rank 0 prints and writes.
pub(crate) struct Printer<'a> {
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
    pub(crate) fn new(
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
        if flags.overlap > 1 {
            println!("# {} calls in flight at once; times are those of one", flags.overlap);
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
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| text.lines().for_each(|line| println!("# {line}")));
    }

    /// Says that a round of a row is done, and shows the row that it completed.
    pub(crate) fn tell(&mut self, row: Option<&Row>) {
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
    pub(crate) fn finish(mut self, wrong: u64) -> Result<bool, Failure> {
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
            overlap: flags.overlap,
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
