//! Checks of bids: to who takes, they are what two puts would be.

use crate::Harness;
use crate::pipes::Flow;
use crate::play::Patience;
use crate::seeded::{Seeded, differs, fill};
use sohu_coll_core::Rank;
use sohu_coll_core::link::Links;
use sohu_coll_core::pipe::{BIDS_MAX, Note, Strand};
use sohu_coll_mem::{View, ViewMut};

const NOTE_BYTES: usize = size_of::<Note>();

/// The next bytes of a flow, as what goes with a bid.
fn note(flow: &Flow) -> Note {
    let mut bytes = [0; NOTE_BYTES];
    fill(&mut bytes, flow.key, flow.put);
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    [word(0), word(8)]
}

/// What a rank says to its peer: bytes, and answers.
struct Talk {
    from: u32,
    flows: [Flow; 2],
    /// What was bid, some of which may be lent.
    said: Vec<Vec<u8>>,
    /// How many bids there were, and how many were dealt with in one go.
    bids: usize,
    deals: usize,
}

impl Talk {
    fn new(from: u32, lens: [usize; 2]) -> Self {
        let flow = |strand| Flow::new(from, 1 - from, strand, lens[strand as usize]);
        Self {
            from,
            flows: [flow(Strand::Bytes), flow(Strand::Answers)],
            said: Vec::new(),
            bids: 0,
            deals: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.flows.iter().all(|flow| flow.taken == flow.len)
    }

    /// Bids a head, an answer, and up to `len` bytes, if as much is left to say and not too much is unheard.
    fn bid(&mut self, links: &mut dyn Links, len: usize) -> usize {
        let [bytes, answers] = &mut self.flows;
        let left = [bytes.len - bytes.put, answers.len - answers.put];
        let out = answers.put - answers.taken;
        if left.iter().any(|left| *left < NOTE_BYTES) || out >= BIDS_MAX * NOTE_BYTES {
            return 0;
        }
        let mut said = vec![0; len.min(left[0] - NOTE_BYTES)];
        fill(&mut said, bytes.key, bytes.put + NOTE_BYTES);
        let copy = |from: View<'_>, into: ViewMut<'_>| from.copy_to(into);
        self.said.push(said);
        let said = View::from(&self.said[self.said.len() - 1][..]);
        let Some(put) = links.pipes().bid(Rank(bytes.to), note(bytes), note(answers), said, copy) else {
            return 0;
        };
        assert!(put <= said.len(), "{put} of {} bytes", said.len());
        bytes.put += NOTE_BYTES + put;
        answers.put += NOTE_BYTES;
        self.bids += 1;
        1
    }

    /// Takes what was bid, if it is next, and of its bytes as many as `most`.
    fn deal(&mut self, links: &mut dyn Links, most: usize) -> usize {
        let [bytes, answers] = &mut self.flows;
        let mut used = None;
        let dealt = links.pipes().deal(Rank(self.from), 1 << 20, 1, &mut |head, answer, view| {
            let mut said: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
            let start = said.len();
            said.resize(start + view.len(), 0);
            view.copy_to(ViewMut::from(&mut said[start..]));
            let answer: Vec<u8> = answer.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(differs(&said, bytes.key, bytes.taken), None, "a head and bytes out of their turn");
            assert_eq!(differs(&answer, answers.key, answers.taken), None, "an answer out of its turn");
            used = (most > 0).then(|| view.len().min(most - 1));
            used
        });
        assert_eq!(dealt, used.is_some(), "what was wanted was consumed, and nothing else");
        let Some(used) = used else { return 0 };
        bytes.taken += NOTE_BYTES + used;
        answers.taken += NOTE_BYTES;
        self.deals += 1;
        1
    }
}

/// Bids and puts in any order, taken in one go or strand by strand, arrive once and in the order of each strand.
///
/// # Panics
/// When the contract is broken.
pub fn bids_and_puts_arrive_in_their_order<H: Harness>() {
    let mut counts = [0; 2];
    for seed in 0..8 {
        let mut links = H::links(2);
        let mut random = Seeded::new(seed);
        let most = if seed % 2 == 0 { 100 } else { H::LARGE_BYTES / 16 };
        let mut talks = [0, 1].map(|from| Talk::new(from, [20 * most, 100 * NOTE_BYTES]));
        let mut patience = Patience::new();
        while !talks.iter().all(Talk::is_over) {
            let talk = &mut talks[random.below(2)];
            let (from, to) = (talk.from as usize, 1 - talk.from as usize);
            let piece = [0, 1, 24, 25, 56, 57, random.below(most)][random.below(7)];
            // Answers are whole.
            let moved = match random.below(8) {
                0 | 1 => talk.bid(&mut *links[from], piece),
                2 => talk.flows[0].put(&mut *links[from], piece),
                3 if talk.flows[1].put - talk.flows[1].taken < 8 * NOTE_BYTES => {
                    talk.flows[1].put(&mut *links[from], NOTE_BYTES)
                }
                4 => talk.flows[0].take(&mut *links[to], piece),
                5 => talk.flows[1].take(&mut *links[to], 1 + random.below(20)),
                6 => talk.deal(&mut *links[to], piece),
                _ => usize::from(links[to].pipes().flush(Rank(from as u32)).expect("flush")),
            };
            patience.note(moved > 0, &|| format!("bidding, seed {seed}"));
        }
        for talk in talks {
            counts[0] += talk.bids;
            counts[1] += talk.deals;
        }
    }
    assert_eq!(counts.map(|count| count > 0), [H::BIDS; 2], "{counts:?} bids and deals");
}
