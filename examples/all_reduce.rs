//! The example of README.md. Start it on two ranks:
//! `cargo run --bin sohu-coll -- run -n 2 -- cargo run --example all_reduce`

use sohu_coll::{Communicator, Error, ReduceOp};

fn main() -> Result<(), Error> {
    // Rank, size and job come from the launcher.
    let mut comm = Communicator::from_env()?;

    // Any memory will do.
    let mine = vec![comm.rank() as f32; 1000];
    let mut sum = vec![0.0; 1000];
    comm.all_reduce(&mine, &mut sum, ReduceOp::Sum)?;

    // Memory that every rank of the host has mapped saves a copy.
    let mut shared = comm.alloc::<f32>(1 << 20)?;
    shared.fill(1.0);
    comm.all_reduce_in_place(&mut shared, ReduceOp::Sum)?;

    println!("rank {} of {}: {} and {}", comm.rank(), comm.size(), sum[0], shared[0]);
    Ok(())
}
