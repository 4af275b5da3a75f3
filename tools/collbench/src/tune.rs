//! `--tune`: measures every algorithm at every size, in turn, and writes a tuning file of the fastest.
//!
//! Invariant: algorithms take turns within each round, so that what disturbs the machine for a while disturbs all of them; and
//! every rank makes the same calls, whose number is agreed on first.

use crate::cli::Flags;
use crate::failure::Failure;
use crate::geometry::Shape;
use crate::json;
use crate::memory::Memory;
use crate::pattern;
use crate::team::Team;
use sohu_coll::{Buffers, Communicator, Error, Misuse, ReduceOp, Request};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// How often each algorithm has its turn. Turns are short, and the least counts: what else the machine does only adds.
const ROUNDS: usize = 21;

/// The most calls of one turn.
const CALLS_MAX: f64 = 2000.0;

/// One algorithm at one size.
#[derive(Clone, Debug)]
struct Measured {
    algorithm: &'static str,
    predicted_us: f64,
    /// Whether the tuner would choose it.
    chosen: bool,
    /// Calls of one turn.
    calls: u32,
    /// Time of a call in each turn, of the slowest rank, in microseconds.
    turns_us: Vec<f64>,
}

impl Measured {
    fn time_us(&self) -> f64 {
        self.turns_us.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Measures all shapes and writes the file, on rank 0. Returns the exit code.
pub(crate) fn run(team: &mut Team, flags: &Flags, shapes: &[Shape], path: &Path) -> Result<u8, Failure> {
    let most = |bytes: fn(&Shape) -> usize| shapes.iter().map(bytes).max().unwrap_or(0);
    let (unalign, registered) = (flags.unalign as usize, flags.register == 1);
    let mut input = Memory::new(team.measured(), most(Shape::input_bytes), unalign, registered)?;
    let mut output = Memory::new(team.measured(), most(Shape::output_bytes), unalign, registered)?;
    let says = team.rank() == 0;
    if says {
        println!(
            "#       size    type           algorithm   measured  predicted   (us; * fastest, > the tuner's choice)"
        );
    }
    let mut table = Vec::new();
    for shape in shapes {
        let buffers = (input.first(shape.input_bytes()), output.first(shape.output_bytes()));
        let mut measured = measure(team, flags, shape, buffers)?;
        measured.sort_by(|a, b| a.time_us().total_cmp(&b.time_us()));
        for (place, one) in measured.iter().enumerate().filter(|_| says) {
            let marks = [if place == 0 { '*' } else { ' ' }, if one.chosen { '>' } else { ' ' }];
            println!(
                "{:12} {:>7} {}{}{:>18} {:10.2} {:10.2}",
                shape.bytes(),
                shape.dtype.name(),
                marks[0],
                marks[1],
                one.algorithm,
                one.time_us(),
                one.predicted_us
            );
        }
        table.push((*shape, measured));
    }
    // Ranks that have nothing to write need not complain that rank 0 could not.
    let wrote = if says { write(team, flags, &table, path) } else { Ok(()) };
    let code = team.first_says(wrote.as_ref().map_or_else(Failure::code, |()| 0))?;
    wrote.map(|()| code)
}

/// The times of all algorithms that do a call.
fn measure(
    team: &mut Team,
    flags: &Flags,
    shape: &Shape,
    (input, output): (&mut [u8], &mut [u8]),
) -> Result<Vec<Measured>, Error> {
    let Shape { collective, dtype, op, root, .. } = *shape;
    let explained =
        team.measured().explain(collective, dtype, op, shape.count, false, flags.register == 1)?;
    let scalar = pattern::scalar(dtype, team.rank());
    let mut call = |comm: &mut Communicator| {
        let buffers = Buffers::Apart { input: &*input, output: &mut *output };
        let request = Request { collective, dtype, op, root, buffers };
        match op {
            ReduceOp::PreMulSum => comm.run_scaled(request, scalar),
            _ => comm.run(request),
        }
    };
    let mut all = Vec::new();
    for candidate in explained.candidates.iter().filter(|candidate| candidate.predicted_us.is_finite()) {
        let algorithm = candidate.algorithm;
        match call(&mut *team.measured().using(algorithm)?) {
            // It may do the call, but not as the settings want it done.
            Err(Error::Misuse(Misuse::Algorithm { .. })) => continue,
            made => made?,
        }
        let once = turn(team, algorithm, 2, &mut call)?;
        let calls = (flags.budget * 1e6 / ROUNDS as f64 / once.max(0.05)).clamp(2.0, CALLS_MAX);
        all.push(Measured {
            algorithm,
            predicted_us: candidate.predicted_us,
            chosen: algorithm == explained.algorithm,
            calls: calls as u32,
            turns_us: Vec::new(),
        });
    }
    for _ in 0..ROUNDS {
        for one in &mut all {
            let time = turn(team, one.algorithm, one.calls, &mut call)?;
            one.turns_us.push(time);
        }
    }
    Ok(all)
}

/// The time of a call among `calls`, of the slowest rank, in microseconds: the same on every rank.
fn turn(
    team: &mut Team,
    algorithm: &str,
    calls: u32,
    call: &mut impl FnMut(&mut Communicator) -> Result<(), Error>,
) -> Result<f64, Error> {
    team.own().barrier()?;
    let mut comm = team.measured().using(algorithm)?;
    let start = Instant::now();
    for _ in 0..calls {
        call(&mut comm)?;
    }
    let mut mine = [start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)];
    drop(comm);
    team.own().all_reduce_in_place(&mut mine, ReduceOp::Max)?;
    Ok(mine[0])
}

/// Writes the table: a line for each run of sizes with the same fastest algorithm.
fn write(team: &Team, flags: &Flags, table: &[(Shape, Vec<Measured>)], path: &Path) -> Result<(), Failure> {
    let text = lines(team.size(), flags.register == 1, table);
    let written = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| json::unwritable(Some(path), &error))
}

fn lines(ranks: u32, registered: bool, table: &[(Shape, Vec<Measured>)]) -> String {
    let buffers = if registered { "registered" } else { "private" };
    let mut text = String::from("# written by sohu-collbench --tune\n");
    text += "# collective ranks bytes type buffers algorithm\n";
    let mut from = 0;
    for (at, (shape, measured)) in table.iter().enumerate() {
        let Some(best) = measured.first() else { continue };
        // A series begins anew where the type does.
        let next = table[at + 1..].iter().find(|(_, measured)| !measured.is_empty());
        let next = next.filter(|(next, _)| next.dtype == shape.dtype);
        if next.is_some_and(|(_, measured)| measured[0].algorithm == best.algorithm) {
            continue;
        }
        let until = next.map(|(next, _)| next.count * next.dtype.size());
        let end = until.map_or_else(String::new, |until| until.to_string());
        let (collective, dtype, name, time) = (shape.collective, shape.dtype, best.algorithm, best.time_us());
        let _ = write!(text, "{collective} {ranks} {from}..{end} {dtype} {buffers} {name} # {time:.2} us");
        if let Some(chosen) = measured.iter().find(|one| one.chosen && one.algorithm != name) {
            let _ = write!(text, ", {} {:.2}", chosen.algorithm, chosen.time_us());
        }
        text.push('\n');
        from = until.unwrap_or(0);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sohu_coll::{Collective, DType};

    fn measured(algorithm: &'static str, chosen: bool, time_us: f64) -> Measured {
        let turns_us = vec![100.0 * time_us, time_us, 2.0 * time_us];
        Measured { algorithm, predicted_us: 1.0, chosen, calls: 1, turns_us }
    }

    #[test]
    fn sizes_with_the_same_fastest_algorithm_share_a_line_and_types_do_not() {
        let shape = |dtype, size| Shape::new((Collective::AllGather, dtype, ReduceOp::Sum, 0), 2, size);
        let ring = || vec![measured("ring", false, 2.0), measured("one_shot", true, 3.0)];
        let one_shot = || vec![measured("one_shot", true, 1.0), measured("ring", false, 2.0)];
        let table = [
            (shape(DType::F32, 8), one_shot()),
            (shape(DType::F32, 64), one_shot()),
            (shape(DType::F32, 512), ring()),
            (shape(DType::F64, 16), ring()),
        ];
        let text = lines(2, false, &table);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "all_gather 2 0..256 float private one_shot # 1.00 us",
                "all_gather 2 256.. float private ring # 2.00 us, one_shot 3.00",
                "all_gather 2 0.. double private ring # 2.00 us, one_shot 3.00",
            ]
        );
    }
}
