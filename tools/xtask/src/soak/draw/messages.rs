//! Messages between the ranks of a group: who sends what to whom, in an order that all know.
//!
//! Invariant: each rank takes its parts of the messages in the order of the list, cut into groups as it likes. So the first message
//! that is not over has both of its ranks at it, and no cut can deadlock.

use super::{BYTES_MAX, Home, How, Rng, Script};
use sohu_coll::DType;

/// The most messages of one step.
pub(in crate::soak) const COUNT_MAX: usize = 64;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::soak) struct Message {
    /// Ranks of the group.
    pub(in crate::soak) from: u32,
    pub(in crate::soak) to: u32,
    /// Elements.
    pub(in crate::soak) count: usize,
}

/// Messages that are made in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::soak) struct Messages {
    /// The name of the group that makes them.
    pub(in crate::soak) group: u32,
    pub(in crate::soak) dtype: DType,
    /// In the order in which those of a pair meet.
    pub(in crate::soak) list: Vec<Message>,
    /// Of what is sent and of what is received.
    pub(in crate::soak) homes: [Home; 2],
    /// Blocking, or started.
    pub(in crate::soak) how: How,
    pub(in crate::soak) salt: u64,
    /// Bytes between the start of the memory and the first guard.
    pub(in crate::soak) offset: usize,
    /// A rank of the group that comes late, and by how much work.
    pub(in crate::soak) late: Option<(u32, u64)>,
}

/// One rank's part in the messages that it makes as one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::soak) struct Part {
    /// Numbers of messages in the list, and whether this rank's half is the sending one, in the order in which they are added.
    pub(in crate::soak) halves: Vec<(usize, bool)>,
    /// Whether it is made as a group; else it is one send or receive.
    pub(in crate::soak) grouped: bool,
}

impl Messages {
    /// The calls of `rank`, one after the other.
    pub(in crate::soak) fn parts(&self, rank: u32) -> Vec<Part> {
        let mut rng = Rng::new(self.salt, rank.into());
        // All at once, one by one, or anything between.
        let last_in = rng.one_of(&[u64::MAX, 1, 3]);
        let mut parts = Vec::new();
        let mut halves = Vec::new();
        for (number, message) in self.list.iter().enumerate() {
            let before = halves.len();
            halves.extend((message.from == rank).then_some((number, true)));
            halves.extend((message.to == rank).then_some((number, false)));
            if halves.len() > before && rng.once_in(last_in) {
                parts.push(self.part(std::mem::take(&mut halves), &mut rng));
            }
        }
        if !halves.is_empty() {
            parts.push(self.part(halves, &mut rng));
        }
        parts
    }

    /// Adds the halves in any order, but those of one pair and direction in theirs.
    fn part(&self, halves: Vec<(usize, bool)>, rng: &mut Rng) -> Part {
        let lane = |&(number, sends): &(usize, bool)| {
            let message = self.list[number];
            (sends, if sends { message.to } else { message.from })
        };
        let mut shuffled = halves.clone();
        rng.shuffle(&mut shuffled);
        // Each place stays with the lane that it fell to, and gets the next of that lane.
        let mut taken = vec![false; halves.len()];
        let in_order = shuffled.iter().map(|place| {
            let next = (0..halves.len()).find(|&at| !taken[at] && lane(&halves[at]) == lane(place));
            let next = next.expect("a lane has as many places as halves");
            taken[next] = true;
            halves[next]
        });
        let halves: Vec<(usize, bool)> = in_order.collect();
        let grouped = halves.len() > 1 || rng.once_in(2);
        Part { halves, grouped }
    }
}

impl Script {
    /// Messages in one of the shapes that programs have.
    pub(super) fn messages(&mut self) -> Messages {
        let group = self.parent();
        let size = group.members.len() as u32;
        let dtype = self.rng.one_of(&DType::ALL);
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        match self.rng.below(5) {
            // Rings, each some ranks on; to itself where that is a multiple of the size.
            0 | 1 => {
                for _ in 0..1 + self.rng.below(3) {
                    let on = self.rng.below(u64::from(size) + 1) as u32;
                    pairs.extend((0..size).map(|from| (from, (from + on) % size)));
                }
            }
            // All to all, in any order.
            2 => {
                pairs.extend((0..size).flat_map(|from| (0..size).map(move |to| (from, to))));
                self.rng.shuffle(&mut pairs);
            }
            // Pairs, some of which come again.
            _ => {
                for _ in 0..1 + self.rng.below(12) {
                    let pair = (self.rng.below(size.into()) as u32, self.rng.below(size.into()) as u32);
                    let again = if self.rng.once_in(3) { 1 + self.rng.index(3) } else { 1 };
                    pairs.extend(std::iter::repeat_n(pair, again));
                }
            }
        }
        pairs.truncate(COUNT_MAX);
        let list = self.lengths(&pairs, size, dtype.size());
        let how = self.fate(list.iter().map(|message| message.count).sum::<usize>() * dtype.size());
        Messages {
            group: group.name,
            dtype,
            list,
            homes: self.homes(),
            how,
            salt: self.rng.next(),
            offset: self.offset(),
            late: self.late(size),
        }
    }

    /// Messages of these pairs, none longer than what its ranks have room for.
    fn lengths(&mut self, pairs: &[(u32, u32)], size: u32, element: usize) -> Vec<Message> {
        let mut left = vec![[BYTES_MAX; 2]; size as usize];
        let equal = self.rng.once_in(3).then(|| self.bytes());
        let message = |&(from, to): &(u32, u32)| {
            let bytes = equal.unwrap_or_else(|| self.bytes());
            let bytes = bytes.min(left[from as usize][0]).min(left[to as usize][1]);
            let count = bytes / element;
            left[from as usize][0] -= count * element;
            left[to as usize][1] -= count * element;
            Message { from, to, count }
        };
        pairs.iter().map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_made_once_and_those_of_a_lane_in_their_order() {
        let mut script = Script::new(5, 4, 0);
        let mut cuts = [0; 2];
        for _ in 0..500 {
            let messages = script.messages();
            for rank in 0..4 {
                let parts = messages.parts(rank);
                assert!(parts.iter().all(|part| part.grouped || part.halves.len() == 1), "{parts:?}");
                cuts[usize::from(parts.len() > 1)] += 1;
                let made: Vec<(usize, bool)> = parts.iter().flat_map(|part| part.halves.clone()).collect();
                let mut sorted = made.clone();
                sorted.sort_unstable();
                let mut wanted = Vec::new();
                for (number, message) in messages.list.iter().enumerate() {
                    wanted.extend((message.to == rank).then_some((number, false)));
                    wanted.extend((message.from == rank).then_some((number, true)));
                }
                assert_eq!(sorted, wanted);
                for (sends, peer) in (0..4).flat_map(|peer| [(true, peer), (false, peer)]) {
                    let of_lane = made.iter().filter(|&&(number, half)| {
                        let message = messages.list[number];
                        half == sends && peer == if sends { message.to } else { message.from }
                    });
                    assert!(of_lane.is_sorted(), "{made:?}");
                }
                // What comes later in the list is in no earlier part.
                let first = |part: &Part| part.halves.iter().map(|half| half.0).min();
                let last = |part: &Part| part.halves.iter().map(|half| half.0).max();
                assert!(parts.windows(2).all(|pair| last(&pair[0]) < first(&pair[1])), "{parts:?}");
            }
        }
        assert!(cuts.iter().all(|count| *count > 100), "{cuts:?}");
    }
}
