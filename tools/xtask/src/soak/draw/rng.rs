//! Random numbers that a seed decides.

/// Random numbers from a seed: splitmix64.
#[derive(Clone, Debug)]
pub(in crate::soak) struct Rng(u64);

impl Rng {
    /// The numbers of a seed and a part of what is drawn from it.
    pub(in crate::soak) fn new(seed: u64, part: u64) -> Self {
        Self(mix(mix(seed) ^ part))
    }

    /// Any number.
    pub(in crate::soak) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number less than `bound`.
    pub(in crate::soak) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// The same, for places in lists.
    pub(in crate::soak) fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// True once in `times`.
    pub(in crate::soak) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Any of them.
    pub(in crate::soak) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    /// Puts them into any order.
    pub(in crate::soak) fn shuffle<T>(&mut self, all: &mut [T]) {
        for end in (1..all.len()).rev() {
            let other = self.index(end + 1);
            all.swap(end, other);
        }
    }
}

/// The finisher of splitmix64.
pub(in crate::soak) fn mix(seed: u64) -> u64 {
    let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ a >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ b >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ c >> 31
}
