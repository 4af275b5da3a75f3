//! The page that `--report` writes: time and bus bandwidth against size, as small multiples, in one file.
//!
//! All figures come from reports of `-J`, that of this run among them, so that a page can show several runs.
//!
//! Invariant: every measured half of every row is one point in each of the two charts of its panel; nothing is left out,
//! and no line joins points of different algorithms, buffers, places or states.

mod chart;
mod page;
mod scale;

use crate::failure::Failure;
use crate::json;
use crate::json::read::Row;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where a page will be written.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    file: File,
}

impl Target {
    /// Opens the file. What it holds stays until the page is there.
    ///
    /// # Errors
    /// When no file can be written there.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|error| json::unwritable(Some(path), &error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes the page, and nothing else.
    ///
    /// # Errors
    /// When the file can not be written.
    pub(crate) fn write(mut self, runs: &[Run]) -> Result<PathBuf, Failure> {
        let text = page::page(runs);
        let mut put = || -> io::Result<()> {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(text.as_bytes())
        };
        put().map_err(|error| {
            Failure::Environment(format!("writing {} failed: {error}", self.path.display()))
        })?;
        Ok(self.path)
    }
}

/// Draws the page of reports that are already there.
///
/// # Errors
/// When one of them is no report, or the page can not be written.
pub(crate) fn draw(page: &Path, reports: &[PathBuf]) -> Result<u8, Failure> {
    let runs: Vec<Run> = reports.iter().map(|path| Run::read(path)).collect::<Result<_, _>>()?;
    let written = Target::open(page)?.write(&runs)?;
    println!("{}", written.display());
    Ok(0)
}

/// What is read of a report of `-J`.
#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    start_time: String,
    #[serde(default)]
    args: Vec<String>,
    config: Config,
    results: Vec<Row<Half, Singles>>,
}

#[derive(Debug, Deserialize)]
struct Config {
    transport: String,
    ranks: u32,
    registered: String,
    #[serde(default)]
    traffic: String,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Device {
    hostname: String,
    device_info: String,
}

#[derive(Debug, Deserialize)]
struct Half {
    #[serde(deserialize_with = "number")]
    time: f64,
    #[serde(deserialize_with = "number")]
    bus_bw: f64,
    #[serde(deserialize_with = "number")]
    med_us: f64,
    #[serde(deserialize_with = "number")]
    p99_us: f64,
    #[serde(deserialize_with = "number")]
    limit_pct: f64,
    state: String,
    algorithm: String,
}

#[derive(Debug, Default, Deserialize)]
struct Singles {
    #[serde(default)]
    quantiles_us: Vec<f64>,
}

/// A number, or the text that stands where there is none.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        There(f64),
        Text(IgnoredAny),
    }
    Ok(match Number::deserialize(from)? {
        Number::There(value) => value,
        Number::Text(_) => f64::NAN,
    })
}

impl Run {
    /// The run that is just over.
    pub(crate) fn now(report: &json::Report) -> Self {
        let read = serde_json::to_value(report).and_then(serde_json::from_value);
        read.expect("what we write can be read")
    }

    /// # Errors
    /// When there is no report at `path`.
    fn read(path: &Path) -> Result<Self, Failure> {
        let told = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
        let text = std::fs::read(path).map_err(|error| told(error.to_string()))?;
        serde_json::from_slice(&text)
            .map_err(|error| told(format!("this is no report of sohu-collbench -J: {error}")))
    }

    /// Where it ran and how, in one line.
    fn summary(&self) -> String {
        let Config { transport, ranks, devices, .. } = &self.config;
        let host = devices
            .first()
            .map_or_else(String::new, |device| format!(" on {}, {}", device.hostname, device.device_info));
        let [program, rest @ ..] = &*self.args else {
            return format!("{}: {ranks} ranks over {transport}{host}", self.start_time);
        };
        let name =
            Path::new(program).file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
        let words = rest.iter().filter(|word| *word != "--launched");
        let command = words.fold(name, |command, word| command + " " + word);
        format!("{}: {ranks} ranks over {transport}{host}: {command}", self.start_time)
    }
}

/// What the calls of one panel have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    program: String,
    dtype: String,
    redop: String,
    root: String,
    ranks: u32,
    transport: String,
    traffic: String,
}

impl Call {
    fn title(&self) -> String {
        let Self { program, dtype, redop, root, ranks, transport, traffic } = self;
        let name = program.strip_suffix("_perf").unwrap_or(program);
        let op = if redop == "none" { String::new() } else { format!(" {redop}") };
        let root = if root == "-1" { String::new() } else { format!(", root {root}") };
        let traffic = if traffic.is_empty() { String::new() } else { format!(", {traffic}") };
        format!("{name} {dtype}{op}{root}, {ranks} ranks over {transport}{traffic}")
    }
}

/// What the points of one line have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    algorithm: String,
    registered: bool,
    in_place: bool,
    state: String,
}

impl Series {
    fn name(&self) -> String {
        let buffers = if self.registered { "registered" } else { "private" };
        let place = if self.in_place { "in place" } else { "out of place" };
        let state = if self.state == "-" { String::new() } else { format!(", {}", self.state) };
        format!("{}, {buffers}, {place}{state}", self.algorithm)
    }
}

/// One measured half: times in microseconds, NaN where there is none.
#[derive(Clone, Debug)]
struct Point {
    size: f64,
    /// Median of single calls.
    median: f64,
    /// A quarter of the single calls are below the one and above the other.
    quarters: [f64; 2],
    p99: f64,
    /// The least time that the machine allows.
    limit: f64,
    /// Bus bandwidth in GB/s times time in microseconds: what a call of this size moves.
    moved: f64,
}

impl Point {
    fn of(size: usize, half: &Half, singles: &Singles) -> Self {
        let times = &singles.quantiles_us;
        let quarter = |part: usize| times.get(times.len() * part / 4).copied().unwrap_or(half.med_us);
        Self {
            size: size as f64,
            median: half.med_us,
            quarters: [quarter(1), quarter(3)],
            p99: half.p99_us,
            limit: half.limit_pct / 100.0 * half.time,
            moved: half.bus_bw * half.time,
        }
    }

    /// The bus bandwidth of a call that takes so long, in GB/s.
    fn busbw(&self, time_us: f64) -> f64 {
        self.moved / time_us
    }
}

/// Two charts of the same calls.
#[derive(Debug)]
struct Panel {
    call: Call,
    lines: BTreeMap<Series, Vec<Point>>,
}

/// All panels of the runs, in the order of their calls.
fn panels(runs: &[Run]) -> Vec<Panel> {
    let mut panels: BTreeMap<Call, BTreeMap<Series, Vec<Point>>> = BTreeMap::new();
    for run in runs {
        for entry in &run.results {
            let call = Call {
                program: entry.experiment_name.clone(),
                dtype: entry.dtype.clone(),
                redop: entry.redop.clone(),
                root: entry.root.trim().into(),
                ranks: run.config.ranks,
                transport: run.config.transport.clone(),
                traffic: run.config.traffic.clone(),
            };
            let lines = panels.entry(call).or_default();
            let apart = (false, Some(&entry.out_of_place), Some(&entry.out_of_place_per_iter));
            let shared = (true, entry.in_place.as_ref(), entry.in_place_per_iter.as_ref());
            for (in_place, half, singles) in [apart, shared] {
                let Some(half) = half else { continue };
                let series = Series {
                    algorithm: half.algorithm.clone(),
                    registered: run.config.registered == "true",
                    in_place,
                    state: half.state.clone(),
                };
                let point = Point::of(entry.size, half, singles.unwrap_or(&Singles::default()));
                lines.entry(series).or_default().push(point);
            }
        }
    }
    for points in panels.values_mut().flat_map(BTreeMap::values_mut) {
        points.sort_by(|a, b| a.size.total_cmp(&b.size));
    }
    panels.into_iter().map(|(call, lines)| Panel { call, lines }).collect()
}

#[cfg(test)]
mod tests;
