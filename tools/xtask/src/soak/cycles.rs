//! Communicators that come and go, and what is left of them.

use super::options::Options;
use super::usage::Usage;
use sohu_coll::{Communicator, Error, ReduceOp};

/// Elements of the one call of each communicator: enough to be lent where it is registered.
const COUNT: usize = 5_003;

/// Makes, uses and drops a communicator `cycles` times. What is held is counted after a tenth of them, until when caches
/// fill, and after all.
///
/// # Errors
/// Says what failed in which cycle.
pub(super) fn run(own: &mut Communicator, options: &Options, cycles: u64) -> Result<u8, String> {
    let warm = (cycles / 10).max(1);
    let mut first = None;
    for cycle in 0..cycles {
        one(own, options.seed.wrapping_add(cycle)).map_err(|why| format!("cycle {cycle}: {why}"))?;
        if cycle + 1 == warm {
            own.barrier().map_err(|error| error.to_string())?;
            first = Some(Usage::now()?);
        }
    }
    own.barrier().map_err(|error| error.to_string())?;
    let last = Usage::now()?;
    let bytes = cycles * (COUNT * size_of::<u64>()) as u64;
    super::finish(own, options, (cycles, bytes), (first.unwrap_or(last), last)).map_err(|e| e.to_string())
}

fn one(own: &mut Communicator, salt: u64) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let mut comm = own.duplicate().map_err(text)?;
    let (rank, size) = (u64::from(comm.rank()), u64::from(comm.size()));
    let value = |rank: u64, index: u64| (salt ^ index).wrapping_mul(rank + 1);
    // Every second one on registered memory.
    let mut private = vec![0; if salt.is_multiple_of(2) { COUNT } else { 0 }];
    let mut registered = comm.alloc::<u64>(COUNT).map_err(text)?;
    let data: &mut [u64] = if private.is_empty() { &mut registered } else { &mut private };
    (0..).zip(&mut *data).for_each(|(index, element)| *element = value(rank, index));
    comm.all_reduce_in_place(data, ReduceOp::Sum).map_err(text)?;
    let sum = |index| (0..size).fold(0u64, |sum, rank| sum.wrapping_add(value(rank, index)));
    match (0..).zip(&*data).find(|(index, element)| **element != sum(*index)) {
        Some((index, element)) => Err(format!("element {index} is {element}, not {}", sum(index))),
        None => Ok(()),
    }
}
