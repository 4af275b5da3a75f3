//! A long send of registered memory by a rank that does nothing else: the receiver reads the first part where it lies, and meanwhile the
//! sender writes the rest to where the receiver wants it, if that is registered too. So both cores copy.

use super::bind::{BoundPass, Kind};

/// From this length on a send is shared: below, a part takes less time than it takes to agree on it.
const SHARED_MIN: usize = 16 << 10;

/// Bytes more that the receiver has: it begins at once, and the sender after a hand-over.
const LEAD: usize = 2 << 10;

/// Where the one pass of one of two ranks is cut, if it is a send that is shared: the bytes before are lent.
pub(super) fn find(passes: &[BoundPass], ranks: u32) -> Option<usize> {
    match passes {
        [pass] if ranks == 2 && pass.kind == Kind::Send && pass.lends && pass.len >= SHARED_MIN => {
            Some((pass.len / 2 + LEAD).next_multiple_of(64))
        }
        _ => None,
    }
}
