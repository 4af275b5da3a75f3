//! The command line of `sohu-collbench`: the flags of nccl-tests with their letters and meanings, and a few of its own.

use crate::parse::{self, Choice};
use crate::traffic::Spread;
use clap::{Args, Parser, Subcommand, ValueEnum};
use sohu_coll::{Collective, DType, ReduceOp, TransportKind};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  sohu-collbench all_reduce --ranks 2 -b 8 -e 64M -f 4
  sohu-collbench all_gather --ranks 4 -b 1K -e 1M -f 2 -d bfloat16 --explain
  sohu-collbench all_to_all --ranks 2 -b 1M -e 1M -J old.json
  sohu-collbench all_to_all --ranks 2 -b 1M -e 1M --baseline old.json --fail-on 5%
  sohu-collbench all_reduce --ranks 2 -b 8 -e 64M -f 2 --report all_reduce.html
  sohu-collbench report both.html private.json registered.json
  sohu-collbench alltoallv --ranks 4 -b 64K -e 16M -f 4 --spread zipf:1.2 --seed 7
  sohu-collbench limits --ranks 2
  sohu-coll run -n 2 --no-prefix -- sohu-collbench all_reduce -b 1M -e 1M -n 100

Under the names of nccl-tests (all_reduce_perf, alltoall_perf and so on: a link, say) the collective is left out:
all_reduce_perf --ranks 2 -b 8 -e 64M -f 4

Exit codes: 0 well, 1 wrong data, 2 wrong command line, 3 slower than the baseline, 4 timeout, 5 the host or a rank failed, 130 Ctrl-C.";

/// Bandwidth and latency of collectives, in the manner of nccl-tests, and the limits of the machine.
#[derive(Debug, Parser)]
#[command(name = "sohu-collbench", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What there is to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Every rank ends with the reduction of all inputs
    #[command(name = "all_reduce", aliases = ["all_reduce_perf", "allreduce", "all-reduce"])]
    AllReduce(Flags),
    /// Rank r ends with block r of the reduction of all inputs
    #[command(name = "reduce_scatter", aliases = ["reduce_scatter_perf", "reducescatter", "reduce-scatter"])]
    ReduceScatter(Flags),
    /// Every rank ends with all inputs
    #[command(name = "all_gather", aliases = ["all_gather_perf", "allgather", "all-gather"])]
    AllGather(Flags),
    /// Every rank ends with the root's input
    #[command(name = "broadcast", aliases = ["broadcast_perf", "bcast"])]
    Broadcast(Flags),
    /// The root ends with the reduction of all inputs
    #[command(name = "reduce", alias = "reduce_perf")]
    Reduce(Flags),
    /// The root ends with all inputs
    #[command(name = "gather", alias = "gather_perf")]
    Gather(Flags),
    /// Rank r ends with block r of the root's input
    #[command(name = "scatter", alias = "scatter_perf")]
    Scatter(Flags),
    /// Rank r ends with block r of every rank's input
    #[command(name = "all_to_all", aliases = ["alltoall_perf", "all_to_all_perf", "alltoall", "all-to-all"])]
    AllToAll(Flags),
    /// Rank r ends with what every rank has for it, which may be more or less
    #[command(name = "alltoallv", aliases = ["alltoallv_perf", "all_to_all_v", "all-to-all-v"])]
    AllToAllV(RaggedFlags),
    /// Rank r ends with what rank r-1 sends to it
    #[command(name = "sendrecv", aliases = ["sendrecv_perf", "send_recv", "send-recv"])]
    SendRecv(Flags),
    /// What the machine can do at best: copy and reduce bandwidth, hand-over of a cache line, wake of a sleeper
    #[command(name = "limits")]
    Limits(LimitFlags),
    /// Draw reports of -J as one page, as --report does with that of its own run
    #[command(name = "report")]
    Report(ReportFlags),
}

/// The same, with the collective told apart from the rest.
pub(crate) enum Work {
    /// Measure this collective.
    Sweep(Collective, Box<Flags>),
    /// Measure the all-to-all whose blocks have lengths of their own.
    Ragged(Box<RaggedFlags>),
    /// Measure messages from each rank to the next.
    Ring(Box<Flags>),
    /// Measure the machine.
    Limits(Box<LimitFlags>),
    /// Draw what was measured.
    Report(ReportFlags),
}

impl Task {
    /// What to do.
    pub(crate) fn work(self) -> Work {
        let (collective, flags) = match self {
            Self::AllReduce(flags) => (Collective::AllReduce, flags),
            Self::ReduceScatter(flags) => (Collective::ReduceScatter, flags),
            Self::AllGather(flags) => (Collective::AllGather, flags),
            Self::Broadcast(flags) => (Collective::Broadcast, flags),
            Self::Reduce(flags) => (Collective::Reduce, flags),
            Self::Gather(flags) => (Collective::Gather, flags),
            Self::Scatter(flags) => (Collective::Scatter, flags),
            Self::AllToAll(flags) => (Collective::AllToAll, flags),
            Self::AllToAllV(flags) => return Work::Ragged(Box::new(flags)),
            Self::SendRecv(flags) => return Work::Ring(Box::new(flags)),
            Self::Limits(flags) => return Work::Limits(Box::new(flags)),
            Self::Report(flags) => return Work::Report(flags),
        };
        Work::Sweep(collective, Box::new(flags))
    }
}

/// What every measurement needs.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Start this many ranks here, on this host; without it, be one rank of a job that a launcher started
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) ranks: Option<u32>,
    /// How ranks reach each other
    #[arg(long, value_enum)]
    pub(crate) transport: Option<Transport>,
    /// Force an algorithm by its name
    #[arg(long, value_name = "NAME")]
    pub(crate) algo: Option<String>,
    /// The most time for the start and for each call, and about the most for the whole job:
    /// 30 or 2.5 for seconds, 500ms, 2.5s, 2m, 1h
    #[arg(short = 'T', long = "timeout", value_name = "TIME", value_parser = sohu_coll::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Do not bind rank r to core r (counted round)
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// One JSON line per measurement on stdout instead of the table
    #[arg(long)]
    pub(crate) jsonl: bool,
    /// A number for each JSON line, to tell repetitions apart
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) rep: u32,
    /// Write a report to this file; if there is one, to FILE.0, FILE.1, ...
    #[arg(short = 'J', long = "output_file", value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
    /// Set for the ranks that --ranks starts.
    #[arg(long, hide = true)]
    pub(crate) launched: bool,
}

/// How a collective is measured.
#[derive(Args, Debug)]
#[command(next_line_help = false)]
pub(crate) struct Flags {
    /// What every measurement needs.
    #[command(flatten)]
    pub(crate) common: Common,
    /// Smallest size: 8, 64K, 1M, 1G
    #[arg(short = 'b', long = "minbytes", value_name = "SIZE", value_parser = parse::size, default_value = "32M")]
    pub(crate) min: u64,
    /// Greatest size [default: 32M, or the smallest if that is more]
    #[arg(short = 'e', long = "maxbytes", value_name = "SIZE", value_parser = parse::size)]
    pub(crate) max: Option<u64>,
    /// Add this much from size to size
    #[arg(short = 'i', long = "stepbytes", value_name = "SIZE", value_parser = parse::size, default_value = "1M")]
    pub(crate) step: u64,
    /// Multiply by this from size to size, instead
    #[arg(short = 'f', long = "stepfactor", value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    pub(crate) factor: Option<u64>,
    /// sum, prod, min, max, avg, mulsum (rank r's input times 1 + r % 2, then the sum) or all
    #[arg(short = 'o', long = "op", value_parser = parse::op, default_value = "sum")]
    pub(crate) op: Choice<ReduceOp>,
    /// int8, uint8, int32, uint32, int64, uint64, half, bfloat16, float, double, f8e4m3, f8e5m2 or all
    #[arg(short = 'd', long = "datatype", value_name = "TYPE", value_parser = parse::dtype, default_value = "float")]
    pub(crate) dtype: Choice<DType>,
    /// The root's rank, or all
    #[arg(short = 'r', long = "root", value_parser = parse::root, default_value = "0")]
    pub(crate) root: Choice<u32>,
    /// Timed iterations per loop [default: as many as --budget takes, 4 to 5000; nccl-tests: 20]
    #[arg(short = 'n', long = "iters", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) iters: Option<u32>,
    /// Untimed calls first [default: with -n 1, else 20, 3 or 1 by size]
    #[arg(short = 'w', long = "warmup_iters", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) warmup: Option<u32>,
    /// Seconds that each timed loop fills, where -n gives no number of calls
    #[arg(long, value_name = "SECONDS", value_parser = parse::seconds, default_value = "0.12")]
    pub(crate) budget: f64,
    /// Make this many calls per iteration; times are those of one call
    #[arg(short = 'm', long = "agg_iters", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) aggregate: u32,
    /// Keep this many calls in flight: each iteration starts so many, and waits for all; times are those of one
    #[arg(long, value_name = "K", default_value_t = 1, conflicts_with_all = ["aggregate", "unalign"], value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) overlap: u32,
    /// 1 = wait for all ranks after each call of the timed loop, in its time; 0 = call after call
    #[arg(short = 'z', long = "blocking", value_name = "0|1", value_parser = parse::blocking, default_value = "0")]
    pub(crate) blocking: u8,
    /// Measure the whole series this often; 0 = until stopped
    #[arg(short = 'N', long = "run_cycles", value_name = "N", default_value_t = 1)]
    pub(crate) cycles: u32,
    /// How the time column combines the ranks: 0 = rank 0, 1 = mean, 2 = least, 3 = greatest
    #[arg(short = 'a', long = "average", value_name = "0-3", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) average: u8,
    /// Check every element this often before timing, and once after; 0 = never
    #[arg(short = 'c', long = "check", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) check: u32,
    /// 1 = buffers registered with the communicator, 0 = private ones
    #[arg(short = 'R', long = "local_register", value_name = "0|1", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) register: u8,
    /// Start buffers this many bytes after a cache line
    #[arg(short = 'u', long = "unalign", value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub(crate) unalign: u32,
    /// 1 = show least, greatest, p99 and spread of single calls
    #[arg(short = 'I', long = "per_iter_timing", value_name = "0|1", num_args = 0..=1, default_value_t = 0, default_missing_value = "1", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) per_iter: u8,
    /// Leave this many first iterations out of the figures of single calls
    #[arg(short = 'K', long = "per_iter_skip", value_name = "N", default_value_t = 0)]
    pub(crate) skip: u32,
    /// Show algorithm, protocol, predicted time, percentage of the physical limit, cache-line hand-over and state, and at
    /// the end what takes memory
    #[arg(long)]
    pub(crate) explain: bool,
    /// Draw time and bus bandwidth against size, with the limits of the machine, as a page of HTML
    #[arg(long, value_name = "PAGE")]
    pub(crate) report: Option<PathBuf>,
    /// Measure each row with reproducible results too, in turn with the others, and show how many times as long that takes
    #[arg(long)]
    pub(crate) reproducible: bool,
    /// Measure each row in this many parts, between which the other rows have their turn [default: 12 with -J, --report,
    /// --baseline or --reproducible and without -K, else 1]; rows appear when their last part is done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "skip")]
    pub(crate) rounds: Option<u32>,
    /// Measure every algorithm at each size, in turn, print them beside the tuner's predictions, and write the fastest to a
    /// tuning file (SOHU_COLL_TUNING_FILE); --budget is then for each algorithm and size
    #[arg(long, value_name = "FILE", conflicts_with_all = ["baseline", "report", "reproducible", "overlap"])]
    pub(crate) tune: Option<PathBuf>,
    /// Compare with this report of an earlier -J; exit with 3 if anything got slower. The more rounds both runs have (by -N, or
    /// --rounds), the less is seen as slower or missed by chance
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// How much slower is too slow, where it is surely more than that: at 95 %, for all rows together [default: 5%]
    #[arg(long, value_name = "PERCENT", value_parser = parse::percent, requires = "baseline")]
    pub(crate) fail_on: Option<f64>,
    /// The name of the library in JSON lines
    #[arg(long, value_name = "NAME", default_value = "sohu")]
    pub(crate) peer_name: String,
    /// Flags of nccl-tests that make no difference here, or are refused.
    #[command(flatten)]
    pub(crate) refused: Refused,
}

/// Flags of nccl-tests that this bench knows and takes only at the value that changes nothing.
#[derive(Args, Debug)]
#[command(next_help_heading = "Flags of nccl-tests, taken only at these values")]
pub(crate) struct Refused {
    /// Threads per process
    #[arg(short = 't', long = "nthreads", value_name = "1", value_parser = only("1", "a process is one rank; start more with --ranks"), default_value = "1")]
    nthreads: String,
    /// Ranks per thread
    #[arg(short = 'g', long = "ngpus", value_name = "1", value_parser = only("1", "a process is one rank; start more with --ranks"), default_value = "1")]
    ngpus: String,
    /// Parallel start
    #[arg(short = 'p', long = "parallel_init", value_name = "0", value_parser = only("0", "a process is one rank"), default_value = "0", hide = true)]
    parallel_init: String,
    /// Graph launches
    #[arg(short = 'G', long = "cudagraph", value_name = "0", value_parser = only("0", "there is no graph to launch"), default_value = "0", hide = true)]
    graph: String,
    /// CPU time
    #[arg(short = 'C', long = "report_cputime", value_name = "0", value_parser = only("0", "calls run on the caller's thread, so their time is CPU time"), default_value = "0", hide = true)]
    cputime: String,
    /// Null stream
    #[arg(short = 'y', long = "stream_null", value_name = "0", value_parser = only("0", "there are no streams"), default_value = "0", hide = true)]
    stream_null: String,
    /// Thread-array policy
    #[arg(short = 'x', long = "cta_policy", value_name = "0", value_parser = only("0", "there is no device"), default_value = "0", hide = true)]
    cta_policy: String,
    /// Device implementation
    #[arg(short = 'D', long = "device_implementation", value_name = "0", value_parser = only("0", "there is no device"), default_value = "0", hide = true)]
    device: String,
    /// Device thread arrays
    #[arg(short = 'V', long = "device_cta_count", value_name = "16", value_parser = only("16", "there is no device"), default_value = "16", hide = true)]
    device_arrays: String,
    /// Timestamps
    #[arg(short = 'S', long = "report_timestamps", value_name = "0", value_parser = only("0", "timestamps are not supported yet; the report of -J has start and end"), default_value = "0", hide = true)]
    timestamps: String,
    /// Memory report
    #[arg(short = 'M', long = "memory", value_name = "0", value_parser = only("0", "the memory report is not supported yet"), default_value = "0", hide = true)]
    memory: String,
}

/// A parser that takes one value and says why it takes no other.
fn only(
    value: &'static str,
    why: &'static str,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| if text == value { Ok(text.into()) } else { Err(format!("only {value} is supported: {why}")) }
}

/// How the all-to-all whose blocks have lengths of their own is measured.
#[derive(Args, Debug)]
pub(crate) struct RaggedFlags {
    /// As any collective.
    #[command(flatten)]
    pub(crate) flags: Flags,
    /// How what each rank gives is shared out: zipf:S (the k-th most popular rank gets a share of k to the minus S), uniform:F
    /// (each share even but for up to F of it), hot:K (K ranks get everything), first:W (rank 0 gets W times the share of each other), distance:D (the rule of nccl-tests)
    #[arg(long, value_name = "SPREAD", value_parser = Spread::parse, default_value = "distance:1", conflicts_with = "matrix")]
    pub(crate) spread: Spread,
    /// What decides who is popular, and all else that is drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Take the shares from this file instead: a row for each rank that gives, in it a number for each rank that gets, with
    /// spaces or commas between; # starts a comment. The busiest rank gives or gets each size
    #[arg(long, value_name = "FILE")]
    pub(crate) matrix: Option<PathBuf>,
    /// The numbers of --matrix are bytes, as in nccl-tests, and -b, -e, -f and -i make no difference
    #[arg(long, requires = "matrix")]
    pub(crate) exact: bool,
}

/// What is drawn.
#[derive(Args, Debug)]
pub(crate) struct ReportFlags {
    /// The page to write: HTML
    #[arg(value_name = "PAGE")]
    pub(crate) page: PathBuf,
    /// Reports of -J
    #[arg(value_name = "REPORT", required = true)]
    pub(crate) reports: Vec<PathBuf>,
}

/// How limits are measured.
#[derive(Args, Debug)]
pub(crate) struct LimitFlags {
    /// What every measurement needs.
    #[command(flatten)]
    pub(crate) common: Common,
    /// Seconds that each measurement takes
    #[arg(long, value_name = "SECONDS", value_parser = parse::seconds, default_value = "0.1")]
    pub(crate) seconds: f64,
}

/// How ranks reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// Shared memory
    Shm,
    /// Sockets on loopback
    Tcp,
}

impl Transport {
    /// The library's word for it.
    pub(crate) fn kind(self) -> TransportKind {
        match self {
            Self::Shm => TransportKind::Shm,
            Self::Tcp => TransportKind::Tcp,
        }
    }
}

/// The command line, with the collective put in where the program's own name gives it: `all_reduce_perf`. That none has the
/// name is left for the parser to say.
pub(crate) fn arguments(mut given: Vec<OsString>) -> Vec<OsString> {
    let name = given.first().map(PathBuf::from).and_then(|path| path.file_name().map(OsString::from));
    if let Some(name) = name.filter(|name| name.to_str().is_some_and(|name| name.ends_with("_perf"))) {
        given.insert(1, name);
    }
    given
}

#[cfg(test)]
mod tests;
