//! Reproducible communicators: an element has the same bits wherever a tensor is cut.

use crate::TIMEOUT_MS;
use crate::ranks::{Group, Member, Post, TRANSPORTS};
use sohu_coll::{Communicator, Element, ReduceOp, bf16};

const WELL: &str = "well";
/// Elements of the tensor: one-shot and two-shot are both chosen for parts of it.
const COUNT: usize = 200_000;
const CUTS: u64 = 120;

pub(crate) fn strict_results() {
    for transport in TRANSPORTS {
        for size in [2, 3, 5, 8] {
            let mut group = Group::start("strict", size);
            for post in Post::all(size, transport, TIMEOUT_MS, "-") {
                group.tell(post.rank as usize, &post.line());
            }
            group.all_say(WELL);
            group.end();
        }
    }
}

/// The finisher of splitmix64: the same numbers on every rank.
fn mixed(seed: u64) -> u64 {
    let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ (c >> 31)
}

pub(crate) fn play_strict(member: &mut Member) {
    let mut comm =
        Post::read(&member.hear()).builder().reproducible(true).build().expect("all ranks are here");
    // All digits, and magnitudes far apart: every order of folding gives other bits.
    let value = |rank: u32, index: usize| {
        let bits = mixed((u64::from(rank) << 32) | index as u64);
        let exponent = (bits >> 60) as i32 - 8;
        ((bits & 0xff_ffff) as f32 / 8_388_608.0 - 1.0) * 2f32.powi(exponent)
    };
    let rank = comm.rank();
    if comm.size() > 2 {
        // The tensor is such that order matters: else the test could not fail.
        let differs = (0..100).any(|index| {
            let [a, b, c] = [0, 1, 2].map(|rank| value(rank, index));
            (a + b) + c != a + (b + c)
        });
        assert!(differs, "the numbers are too alike");
    }
    cut_everywhere::<f32>(&mut comm, |index| value(rank, index));
    cut_everywhere::<bf16>(&mut comm, |index| bf16::from_f32(value(rank, index)));
    member.say(WELL);
}

/// Reduces the whole tensor, and then parts of it, and compares bits.
fn cut_everywhere<T: Element>(comm: &mut Communicator, value: impl Fn(usize) -> T) {
    let own: Vec<T> = (0..COUNT).map(value).collect();
    let mut whole = vec![T::zeroed(); COUNT];
    comm.all_reduce(&own, &mut whole, ReduceOp::Sum).expect("a good call");
    let bytes = |elements: &[T]| bytemuck::cast_slice::<T, u8>(elements).to_vec();
    for cut in 0..CUTS {
        let most = [8, 100, 5_000, COUNT][cut as usize % 4];
        let len = 1 + (mixed(cut) % most as u64) as usize;
        let start = (mixed(cut + 1000) % (COUNT - len + 1) as u64) as usize;
        let part = &own[start..start + len];
        let expected = bytes(&whole[start..start + len]);
        let mut output = vec![T::zeroed(); len];
        comm.all_reduce(part, &mut output, ReduceOp::Sum).expect("a good call");
        assert!(bytes(&output) == expected, "{} elements from {start}", output.len());
        let root = cut as u32 % comm.size();
        comm.reduce(part, &mut output, ReduceOp::Sum, root).expect("a good call");
        assert!(bytes(&output) == expected, "{len} elements from {start} at root {root}");
    }
}
