//! What this rank's core can do with memory: the rates that bound every collective.
//!
//! Each function works for about the time it is given, in private memory, on the calling thread. To know what ranks can do
//! at once, call it on all of them at once (after a barrier), each on its own core, and add up.

pub use sohu_coll_core::kernel::Store;

use sohu_coll_core::kernel::{self, Kernel};
use sohu_coll_core::{DType, ReduceOp};
use sohu_coll_mem::{View, ViewMut};
use std::time::{Duration, Instant};

/// Batches that the time is cut into. The median of their rates is taken, so that neither a disturbance nor
/// the moments when a peer has not begun or is done shows.
const BATCHES: u32 = 7;

/// The page size of every machine this runs on, and the start of every buffer, as an allocator gives large ones.
const PAGE: usize = 4096;

/// Copies `bytes` from one buffer to another, again and again for `seconds`; returns the bytes copied per nanosecond
/// (GB/s, payload counted once). 0 when there is nothing to copy.
pub fn copy_gbps(bytes: usize, store: Store, seconds: f64) -> f64 {
    let (mut from, mut into) = (Pages::new(bytes), Pages::new(bytes));
    let (from, into) = (from.bytes(), into.bytes());
    rate(bytes, seconds, || kernel::copy(View::from(&*from), ViewMut::from(&mut *into), None, store))
}

/// Adds two buffers of `bytes` of `f32` into a third, again and again for `seconds`; returns the bytes of one input per
/// nanosecond (GB/s). 0 when there is not one element.
pub fn reduce_gbps(bytes: usize, store: Store, seconds: f64) -> f64 {
    let bytes = bytes / DType::F32.size() * DType::F32.size();
    let (mut one, mut two, mut sum) = (Pages::new(bytes), Pages::new(bytes), Pages::new(bytes));
    let (one, two, sum) = (one.bytes(), two.bytes(), sum.bytes());
    let add = Kernel::new(DType::F32, ReduceOp::Sum);
    rate(bytes, seconds, || {
        let sources = [View::from(&*one), View::from(&*two)];
        add.fold(ViewMut::from(&mut *sum), &sources, None, None, store);
    })
}

/// The median rate of `work`, which moves `bytes`.
fn rate(bytes: usize, seconds: f64, mut work: impl FnMut()) -> f64 {
    if bytes == 0 {
        return 0.0;
    }
    let batch = Duration::from_secs_f64(seconds.max(0.0) / f64::from(BATCHES));
    // Once untimed, to bring the buffers where they will be; timed, to know how much to do between looks at the clock.
    let start = Instant::now();
    work();
    let often = (1e5 / start.elapsed().as_nanos().max(1) as f64).clamp(1.0, 1e4) as u32;
    let end = Instant::now() + 2 * BATCHES * batch;
    let mut rates = Vec::with_capacity(BATCHES as usize);
    // Where one trip takes longer than a batch should, fewer batches must do.
    while rates.is_empty() || rates.len() < BATCHES as usize && Instant::now() < end {
        let (start, mut done) = (Instant::now(), 0_u64);
        let passed = loop {
            (0..often).for_each(|_| work());
            done += u64::from(often);
            let passed = start.elapsed();
            if passed >= batch {
                break passed;
            }
        };
        rates.push(done as f64 * bytes as f64 / passed.as_nanos().max(1) as f64);
    }
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A buffer that starts on a page, each page touched. Its bytes are a small number in every type.
struct Pages {
    room: Vec<u8>,
    len: usize,
}

impl Pages {
    fn new(len: usize) -> Self {
        // Zeros could be had from the kernel without touching a page; 0x01010101 is a small normal `f32`.
        Self { room: vec![1; len + PAGE], len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.room.as_ptr().align_offset(PAGE);
        &mut self.room[start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_positive_for_every_size_and_store() {
        for bytes in [4, 7, 4095, 4096, 1 << 20] {
            for store in [Store::Cached, Store::Streaming] {
                assert!(copy_gbps(bytes, store, 1e-4) > 0.0, "copy of {bytes}");
                assert!(reduce_gbps(bytes, store, 1e-4) > 0.0, "reduction of {bytes}");
            }
        }
    }

    #[test]
    fn nothing_moves_at_no_rate() {
        assert_eq!(copy_gbps(0, Store::Cached, 1e-4), 0.0);
        assert_eq!(reduce_gbps(3, Store::Cached, 1e-4), 0.0);
    }
}
