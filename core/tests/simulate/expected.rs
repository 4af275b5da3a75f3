//! What ranks give to a simulated call, and what it must give back, element by element.
//!
//! Floats are small whole numbers, so that every order of folding gives the same bits; averages divide once.

use super::Call;
use half::bf16;
use sohu_coll_conformance::Seeded;
use sohu_coll_core::{Collective, DType, Rank, ReduceOp};

/// What element `index` of rank `rank`'s part is.
fn element(call: &Call<'_>, rank: Rank, index: usize, seed: u64) -> i64 {
    let bits = Seeded::new(seed ^ u64::from(rank.0) << 40 ^ index as u64).next();
    match (call.dtype, call.op) {
        (DType::I64, _) => bits.cast_signed(),
        (_, ReduceOp::Prod) => 1 + (bits % 2).cast_signed(),
        _ => (bits % 8).cast_signed(),
    }
}

fn store(call: &Call<'_>, value: f64, exact: i64) -> Vec<u8> {
    match call.dtype {
        DType::I64 => exact.to_ne_bytes().to_vec(),
        DType::F32 => (value as f32).to_ne_bytes().to_vec(),
        DType::Bf16 => bf16::from_f32(value as f32).to_ne_bytes().to_vec(),
        other => panic!("no reference for {other}"),
    }
}

fn stored(call: &Call<'_>, value: i64) -> Vec<u8> {
    store(call, value as f64, value)
}

/// The input of `rank`.
pub(super) fn given(call: &Call<'_>, rank: Rank, seed: u64) -> Vec<u8> {
    let count = call.held_bytes(rank)[0] / call.dtype.size();
    (0..count).flat_map(|index| stored(call, element(call, rank, index, seed))).collect()
}

/// The output of `rank`.
pub(super) fn result(call: &Call<'_>, rank: Rank, seed: u64) -> Vec<u8> {
    let ranks = || (0..call.job.size).map(Rank);
    let all = |range: core::ops::Range<usize>| range.flat_map(|index| reduced(call, index, seed)).collect();
    let own = rank.index() * call.count..(rank.index() + 1) * call.count;
    let own_bytes = rank.index() * call.block()..(rank.index() + 1) * call.block();
    let is_root = rank == call.job.root;
    match call.job.collective {
        Collective::AllGather => ranks().flat_map(|rank| given(call, rank, seed)).collect(),
        Collective::Gather if is_root => ranks().flat_map(|rank| given(call, rank, seed)).collect(),
        Collective::Broadcast => given(call, call.job.root, seed),
        Collective::AllReduce => all(0..call.count),
        Collective::Reduce if is_root => all(0..call.count),
        Collective::ReduceScatter => all(own),
        Collective::Scatter => given(call, call.job.root, seed)[own_bytes].to_vec(),
        Collective::AllToAll => {
            ranks().flat_map(|rank| given(call, rank, seed)[own_bytes.clone()].to_vec()).collect()
        }
        Collective::Reduce | Collective::Gather => Vec::new(),
    }
}

fn reduced(call: &Call<'_>, index: usize, seed: u64) -> Vec<u8> {
    let values = (0..call.job.size).map(|rank| element(call, Rank(rank), index, seed));
    let total = values.reduce(|a, b| match call.op {
        ReduceOp::Sum | ReduceOp::Avg => a.wrapping_add(b),
        ReduceOp::Prod => a.wrapping_mul(b),
        ReduceOp::Min => a.min(b),
        ReduceOp::Max => a.max(b),
        ReduceOp::PreMulSum | ReduceOp::User => panic!("{} is not simulated", call.op),
    });
    let total = total.expect("there is a rank");
    if call.op == ReduceOp::Avg {
        let ranks = call.job.size;
        return store(call, f64::from(total as f32 / ranks as f32), total.wrapping_div(i64::from(ranks)));
    }
    stored(call, total)
}
