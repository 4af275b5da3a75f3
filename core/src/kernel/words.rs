//! The ends of a buffer, seldom a whole register, as words: for machines without masked loads and stores.
//! Not inlined: hundreds of loops end here, once a call.

/// Reads `len` bytes into the low end of the words; the other bytes are zero. Each byte is read once.
///
/// # Safety
/// `len <= 8 * N` bytes at `from` are readable.
#[inline(never)]
pub(super) unsafe fn load_part<const N: usize>(from: *const u8, len: usize) -> [u64; N] {
    debug_assert!(len <= 8 * N);
    let mut words = [0; N];
    for (index, word) in words.iter_mut().enumerate() {
        let at = 8 * index;
        if len >= at + 8 {
            // SAFETY: the 8 bytes at `at` lie inside the `len` bytes that the caller lends.
            *word = unsafe { read::<8>(from, at) };
        } else if len > at {
            // SAFETY: the `len - at` bytes at `at` lie inside the `len` bytes that the caller lends.
            *word = unsafe { load_short(from.wrapping_add(at), len - at) };
        }
    }
    words
}

/// Writes the first `len` bytes of the words.
///
/// # Safety
/// `len <= 8 * N` bytes at `into` are writable.
#[inline(never)]
pub(super) unsafe fn store_part<const N: usize>(into: *mut u8, words: [u64; N], len: usize) {
    debug_assert!(len <= 8 * N);
    for (index, &word) in words.iter().enumerate() {
        let at = 8 * index;
        if len >= at + 8 {
            // SAFETY: the 8 bytes at `at` lie inside the `len` bytes that the caller lends.
            unsafe { write::<8>(into, at, word) };
        } else if len > at {
            // SAFETY: the `len - at` bytes at `at` lie inside the `len` bytes that the caller lends.
            unsafe { store_short(into.wrapping_add(at), word, len - at) };
        }
    }
}

/// # Safety
/// `len < 8` bytes at `from` are readable.
#[inline(always)]
unsafe fn load_short(from: *const u8, len: usize) -> u64 {
    let mut word = 0;
    let mut at = 0;
    if len & 4 != 0 {
        // SAFETY: `len` has its bit 4, so 4 bytes are readable.
        word = unsafe { read::<4>(from, 0) };
        at = 4;
    }
    if len & 2 != 0 {
        // SAFETY: `at` counts the greater bits of `len`, so 2 more bytes are readable.
        word |= unsafe { read::<2>(from, at) } << (8 * at);
        at += 2;
    }
    if len & 1 != 0 {
        // SAFETY: `at` counts the greater bits of `len`, so 1 more byte is readable.
        word |= unsafe { read::<1>(from, at) } << (8 * at);
    }
    word
}

/// # Safety
/// `len < 8` bytes at `into` are writable.
#[inline(always)]
unsafe fn store_short(into: *mut u8, word: u64, len: usize) {
    let mut at = 0;
    if len & 4 != 0 {
        // SAFETY: `len` has its bit 4, so 4 bytes are writable.
        unsafe { write::<4>(into, 0, word) };
        at = 4;
    }
    if len & 2 != 0 {
        // SAFETY: `at` counts the greater bits of `len`, so 2 more bytes are writable.
        unsafe { write::<2>(into, at, word >> (8 * at)) };
        at += 2;
    }
    if len & 1 != 0 {
        // SAFETY: `at` counts the greater bits of `len`, so 1 more byte is writable.
        unsafe { write::<1>(into, at, word >> (8 * at)) };
    }
}

/// # Safety
/// `N <= 8` bytes at `from + at` are readable.
#[inline(always)]
unsafe fn read<const N: usize>(from: *const u8, at: usize) -> u64 {
    // SAFETY: the caller lends the bytes, and an array of bytes has no alignment.
    let bytes: [u8; N] = unsafe { from.wrapping_add(at).cast::<[u8; N]>().read() };
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes);
    u64::from_le_bytes(word)
}

/// # Safety
/// `N <= 8` bytes at `into + at` are writable.
#[inline(always)]
unsafe fn write<const N: usize>(into: *mut u8, at: usize, word: u64) {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&word.to_le_bytes()[..N]);
    // SAFETY: the caller lends the bytes, and an array of bytes has no alignment.
    unsafe { into.wrapping_add(at).cast::<[u8; N]>().write(bytes) };
}
