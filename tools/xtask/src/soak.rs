//! `cargo xtask soak`: real processes make random calls for as long as they are told, and check every result.
//!
//! Invariant: what is called is a function of the seed, the number of ranks and the call's number alone, never of time,
//! so a failure comes again from what is printed with it. Time decides only after which chapter the calls end.

mod cycles;
mod draw;
mod flight;
mod options;
mod play;
mod sheet;
mod usage;
mod values;

use options::{Options, Task};
use play::Player;
use sohu_coll::launch::{Ended, Launch, Output};
use sohu_coll::{Communicator, Error};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use usage::{Usage, judged};

pub(crate) use options::HELP;

/// How long one call may take: the machine may be busy with other things, or stand still for a while.
const CALL_MAX: Duration = Duration::from_secs(60);

/// How much longer than its calls a job may take, so that the error that names a rank comes first.
const SLACK: Duration = Duration::from_secs(180);

/// Starts the ranks, or is one of them.
pub(crate) fn main(arguments: &[&str]) -> Result<ExitCode, String> {
    let options = Options::read(arguments)?;
    if options.launched {
        sohu_coll::launch::die_with_parent();
        return rank(&options).map(ExitCode::from);
    }
    let program = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let again = ["soak"].into_iter().chain(arguments.iter().copied()).chain(["--launched"]);
    let mut launch = Launch::new(program, again).ranks(options.ranks).output(Output::Prefixed);
    // Else glibc keeps tens of MiB of large pieces that were given back, and one can not tell them from a leak.
    launch = launch.env("MALLOC_MMAP_THRESHOLD_", "131072");
    if let Task::Seconds(seconds) = options.task {
        launch = launch.timeout(Duration::from_secs(seconds) + SLACK);
    }
    eprintln!("xtask: {}", options.again());
    let ended = launch.run().map_err(|error| error.to_string())?;
    if ended != Ended::Well {
        eprintln!("xtask: soak: {ended}");
    }
    Ok(ExitCode::from(ended.code()))
}

/// One rank's life; its exit code.
fn rank(options: &Options) -> Result<u8, String> {
    let text = |error: Error| error.to_string();
    let builder = Communicator::builder().from_env().map_err(text)?;
    let mut world = builder
        .transport(options.transport)
        .proxy(options.proxy())
        .timeout(CALL_MAX)
        .build()
        .map_err(|e| format!("start: {e}"))?;
    // What ranks have to tell each other does not go between the calls that are tried.
    let mut own = world.duplicate().map_err(|error| format!("the second communicator: {error}"))?;
    if let Task::Cycles(cycles) = options.task {
        return cycles::run(&mut own, options, cycles).map_err(|why| blame(&own, options, &why));
    }
    if options.proxy() {
        warm_threads(draw::LIVE_MAX);
    }
    let before = Instant::now();
    let mut player = Player::new(world);
    let (mut first, mut made) = (None, 0);
    let mut drawn = DefaultHasher::new();
    for (number, step) in draw::Script::new(options.seed, options.ranks, options.from) {
        if options.until.is_some_and(|until| number >= until) {
            break;
        }
        let rest = matches!(step, draw::Step::Rest);
        drawn.write(format!("{step:?}").as_bytes());
        if let Err(why) = player.play(&step) {
            let again = Options { until: Some(number + 1), ..*options }.again();
            return Err(format!(
                "rank {}: call {number}: {why}\n  {step:?}\n  wrong: 1 of {} calls; again: {again}",
                own.rank(),
                made + 1
            ));
        }
        made += 1;
        if rest {
            agreed(&mut own, drawn.finish())?;
            match meet(&mut own, options, before, first.is_some()).map_err(text)? {
                Word::On => {}
                Word::Count => first = Some(Usage::now()?),
                Word::End => break,
            }
        }
    }
    player.rest()?;
    agreed(&mut own, drawn.finish())?;
    // Nobody counts what is open before everybody has closed what was.
    own.barrier().map_err(text)?;
    let last = Usage::now()?;
    let bytes = player.bytes();
    // Without a count on the way, as with `--until`, there is nothing to compare with.
    finish(&mut own, options, (made, bytes), (first.unwrap_or(last), last)).map_err(text)
}

/// As many threads at once as there will be of those that drive: the allocator and the C library keep memory for each that
/// there ever was, and that is no growth later.
fn warm_threads(count: usize) {
    let all_there = Barrier::new(count);
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                black_box(vec![0u8; 100]);
                all_there.wait()
            });
        }
    });
}

/// Whether all ranks drew the same steps until here: what they are is hashed.
fn agreed(own: &mut Communicator, drawn: u64) -> Result<(), String> {
    let mut all = vec![0; own.size() as usize];
    own.all_gather(&[drawn], &mut all).map_err(|error| error.to_string())?;
    match all.iter().position(|other| *other != drawn) {
        Some(other) => Err(format!("rank {} drew other steps than rank {other}", own.rank())),
        None => Ok(()),
    }
}

/// What rank 0 tells all at the end of a chapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    On,
    Count,
    End,
}

/// Where all ranks hear from rank 0, which has the clock, how it goes on.
fn meet(own: &mut Communicator, options: &Options, begun: Instant, counted: bool) -> Result<Word, Error> {
    let word = match options.task {
        Task::Seconds(seconds) => spoken(begun.elapsed(), Duration::from_secs(seconds), counted),
        Task::Calls | Task::Cycles(_) => Word::On,
    };
    let mut byte = [word as u8];
    own.broadcast_in_place(&mut byte, 0)?;
    // Nobody counts what is open before everybody has closed what was.
    own.barrier()?;
    Ok([Word::On, Word::Count, Word::End][usize::from(byte[0] % 3)])
}

/// After a third of the time all is counted, and at the end again: never at the same chapter.
fn spoken(elapsed: Duration, all: Duration, counted: bool) -> Word {
    match counted {
        false if elapsed >= all / 3 => Word::Count,
        true if elapsed >= all => Word::End,
        _ => Word::On,
    }
}

/// Prints what was done and what is left of it, on rank 0, and judges: the exit code of every rank.
fn finish(
    own: &mut Communicator,
    options: &Options,
    (made, bytes): (u64, u64),
    (first, last): (Usage, Usage),
) -> Result<u8, Error> {
    let size = own.size() as usize;
    let row = [made, bytes].into_iter().chain(first.words()).chain(last.words());
    let row: Vec<u64> = row.collect();
    let mut rows = vec![0u64; row.len() * size];
    own.all_gather(&row, &mut rows)?;
    let prints = own.rank() == 0;
    let moved: u64 = rows.chunks_exact(row.len()).map(|row| row[1]).sum();
    if prints {
        println!("{}", options.again());
        println!("calls {made}, bytes given and got by all ranks {moved}, wrong 0");
    }
    let mut held = true;
    for (rank, row) in rows.chunks_exact(row.len()).enumerate() {
        let (first, last) = (Usage::of(&row[2..6]), Usage::of(&row[6..10]));
        let complaint = judged(&first, &last);
        held &= complaint.is_none();
        if prints {
            println!("rank {rank} at first: {first}");
            println!(
                "rank {rank} at last:  {last}{}",
                complaint.map(|c| format!(": {c}")).unwrap_or_default()
            );
        }
    }
    Ok(u8::from(!held))
}

/// What failed, on whom, and how it is made again.
fn blame(own: &Communicator, options: &Options, why: &str) -> String {
    format!("rank {}: {why}; again: {}", own.rank(), options.again())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_counted_after_a_third_and_at_the_end_of_the_time_and_never_at_once() {
        let spoken =
            |elapsed, counted| spoken(Duration::from_secs(elapsed), Duration::from_secs(30), counted);
        assert_eq!(
            [spoken(9, false), spoken(10, false), spoken(99, false)],
            [Word::On, Word::Count, Word::Count]
        );
        assert_eq!([spoken(10, true), spoken(29, true), spoken(30, true)], [Word::On, Word::On, Word::End]);
    }
}
