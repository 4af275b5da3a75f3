//! Numbers and bytes that a seed decides, so that a failure comes again.

/// A small generator (SplitMix64): good enough to mix orders and sizes, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The generator that `seed` starts.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// A size of `1..=most`, about as often tiny as small as large; 0 when `most` is.
    pub fn piece(&mut self, most: usize) -> usize {
        let scale = [8, 200, 5_000, 300_000, usize::MAX][self.below(5)];
        if most == 0 { 0 } else { 1 + self.below(most.min(scale)) }
    }
}

/// Fills `bytes` with the stream named `key`, from position `at` on.
pub(crate) fn fill(bytes: &mut [u8], key: u64, at: usize) {
    for (offset, byte) in bytes.iter_mut().enumerate() {
        *byte = stream_byte(key, at + offset);
    }
}

/// The first `len` bytes of the stream named `key`.
pub(crate) fn stream(key: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, key, 0);
    bytes
}

/// The byte at `at` of the stream named `key`: neighbours, other streams and repeats of 256 all differ.
#[inline]
pub(crate) fn stream_byte(key: u64, at: usize) -> u8 {
    let mixed = (at as u32 ^ key as u32).wrapping_mul(0x9e37_79b1).wrapping_add((key >> 32) as u32);
    (mixed >> 24) as u8
}

/// Where `bytes` first differ from the stream named `key` at position `at`.
pub(crate) fn differs(bytes: &[u8], key: u64, at: usize) -> Option<usize> {
    bytes.iter().enumerate().position(|(offset, byte)| *byte != stream_byte(key, at + offset))
}
