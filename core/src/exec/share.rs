//! A long send of registered memory by one of two ranks that has less to do than the other: the receiver reads the first part where
//! it lies, and meanwhile the sender writes the rest to where the receiver wants it, if that is registered too. So both cores copy.

use super::bind::{BoundPass, Kind};

/// From this length on a send is shared: below, a part takes less time than it takes to agree on it.
const SHARED_MIN: usize = 16 << 10;

/// Bytes more that the receiver has: it begins at once, and the sender after a hand-over.
const LEAD: usize = 2 << 10;

/// Where the one send among the passes of one of two ranks is cut, if it is shared: the bytes before are lent.
pub(super) fn find(passes: &[BoundPass], ranks: u32) -> Option<usize> {
    let is_own = |pass: &BoundPass| pass.kind == Kind::Fold && pass.from.is_empty() && pass.to.is_empty();
    let (mut sent, mut taken, mut own) = (None, 0, 0);
    for pass in passes {
        match pass.kind {
            Kind::Send if sent.is_none() && pass.lends && pass.after.is_empty() => sent = Some(pass.len),
            Kind::Recv => taken += pass.len,
            _ if is_own(pass) => own += pass.len,
            _ => return None,
        }
    }
    let sent = sent.filter(|sent| ranks == 2 && *sent >= SHARED_MIN)?;
    let writes = spare(sent, taken, own);
    if writes * 2 < SHARED_MIN {
        return None;
    }
    Some((sent - writes + LEAD).next_multiple_of(64)).filter(|at| *at < sent)
}

/// How much of what is `sent` the sender writes so that both ranks have as much to do. It knows what it has to take and to copy of its own
/// itself, but not how much its peer has of its own.
fn spare(sent: usize, taken: usize, own: usize) -> usize {
    match (taken, own) {
        // It is the one that gives, so its peer has nothing of its own.
        (0, _) => sent.saturating_sub(own) / 2,
        // Neither has.
        (_, 0) => sent.saturating_sub(taken) / 2,
        // Where one rank gets more from the other than it gives, either it gets more from itself as well, or the other gives itself more.
        // Then both together have as much of their own as goes between them.
        _ if taken < sent => sent.saturating_sub(own),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::spare;

    /// How much the busier rank has to do of blocks `[a to a, a to b, b to a, b to b]`, where each writes what it can spare.
    fn busier([aa, ab, ba, bb]: [usize; 4]) -> usize {
        let (a, b) = (spare(ab, ba, aa), spare(ba, ab, bb));
        (aa + (ba - b) + a).max(bb + (ab - a) + b)
    }

    #[test]
    fn both_have_as_much_to_do() {
        // One rank gives, alone or beside its own block; neither has an own one; one gets more of both; one gives more to both.
        for blocks in [[0, 64, 0, 0], [32, 64, 0, 0], [0, 64, 16, 0], [16, 64, 16, 64], [64, 64, 16, 16]] {
            assert_eq!(busier(blocks) * 2, blocks.iter().sum::<usize>(), "{blocks:?}");
            let [aa, ab, ba, bb] = blocks;
            assert_eq!(busier([bb, ba, ab, aa]), busier(blocks), "{blocks:?}, the other way round");
        }
    }

    #[test]
    fn equal_blocks_are_not_shared() {
        for (taken, own) in [(64, 64), (64, 0), (64, 7), (64, 1000)] {
            assert_eq!(spare(64, taken, own), 0, "{taken}, {own}");
        }
        assert_eq!(spare(64, 0, 64), 0, "as much of its own as it sends");
    }
}
