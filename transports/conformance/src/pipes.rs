//! Checks of pipes: two strands for each ordered pair of ranks, apart from everything else.

use crate::Harness;
use crate::calls::failures;
use crate::play::{FITS_MAX, Patience, begin_all, call, end_all, recv_all, send_all, until};
use crate::seeded::{Seeded, differs, fill, stream};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::Links;
use sohu_coll_core::pipe::{STRAND_BYTES_MIN, Strand, WHOLE_BYTES};
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::{View, ViewMut};

const STRANDS: [Strand; 2] = [Strand::Bytes, Strand::Answers];

/// How often in a row a strand has to refuse before a check believes that it is full or empty.
const REFUSALS: u32 = 2_000;

/// One strand in use: who puts, who takes, and how far they are.
pub(crate) struct Flow {
    from: u32,
    pub(crate) to: u32,
    strand: Strand,
    pub(crate) key: u64,
    pub(crate) len: usize,
    pub(crate) put: usize,
    pub(crate) taken: usize,
}

impl Flow {
    /// The strand that `from` puts into and `to` takes out of.
    pub(crate) fn new(from: u32, to: u32, strand: Strand, len: usize) -> Self {
        let key = 1000 * u64::from(from) + 10 * u64::from(to) + strand as u64;
        Self { from, to, strand, key, len, put: 0, taken: 0 }
    }

    /// Puts up to `piece` bytes.
    pub(crate) fn put(&mut self, links: &mut dyn Links, piece: usize) -> usize {
        let most = if self.strand == Strand::Answers { WHOLE_BYTES } else { usize::MAX };
        let limit = piece.min(most).min(self.len - self.put);
        let mut shown = 0;
        let put = links.pipes().put(Rank(self.to), self.strand, limit, &mut |room| {
            shown = room.len();
            let mut bytes = vec![0; room.len()];
            fill(&mut bytes, self.key, self.put);
            View::from(&bytes[..]).copy_to(room);
        });
        let put = put.unwrap_or_else(|error| panic!("{} puts to {}: {error}", self.from, self.to));
        assert_eq!(put, shown, "what was shown is what was put");
        assert!(put <= limit && (put == 0 || put >= limit.min(WHOLE_BYTES)), "{put} of {limit} bytes");
        self.put += put;
        put
    }

    /// Takes up to `piece` bytes and looks at each.
    pub(crate) fn take(&mut self, links: &mut dyn Links, piece: usize) -> usize {
        let mut seen = 0;
        let taken = links.pipes().take(Rank(self.from), self.strand, piece, &mut |view| {
            let mut bytes = vec![0; view.len()];
            view.copy_to(ViewMut::from(&mut bytes[..]));
            seen = bytes.len();
            if let Some(at) = differs(&bytes, self.key, self.taken) {
                panic!("byte {} of {:?} from {} to {}", self.taken + at, self.strand, self.from, self.to);
            }
            seen
        });
        let taken = taken.unwrap_or_else(|error| panic!("{} takes from {}: {error}", self.to, self.from));
        assert_eq!(taken, seen, "what was seen is what was taken");
        assert!(taken <= piece && self.taken + taken <= self.len, "{taken} bytes from nowhere");
        self.taken += taken;
        taken
    }
}

/// Moves all bytes of all flows, in pieces and an order that the seed decides.
fn carry(links: &mut [Box<dyn Links>], flows: &mut [Flow], seed: u64) {
    let mut random = Seeded::new(seed);
    let mut patience = Patience::new();
    while flows.iter().any(|flow| flow.taken < flow.len) {
        let mut moved = 0;
        for _ in 0..flows.len() {
            let flow = &mut flows[random.below(flows.len())];
            let piece = random.piece(usize::MAX);
            moved += flow.put(&mut *links[flow.from as usize], piece);
            let piece = random.piece(usize::MAX);
            moved += flow.take(&mut *links[flow.to as usize], piece);
        }
        flush_all(links);
        patience.note(moved > 0, &|| format!("carrying, seed {seed}"));
    }
}

fn flush_all(links: &mut [Box<dyn Links>]) {
    let size = links.len() as u32;
    for (rank, link) in (0..).zip(links) {
        for peer in (0..size).filter(|peer| *peer != rank) {
            link.pipes().flush(Rank(peer)).expect("flush");
        }
    }
}

/// Puts `flow` until it is full, flushing meanwhile; says how much it held.
fn fill_up(links: &mut [Box<dyn Links>], flow: &mut Flow) -> usize {
    let mut refused = 0;
    while refused < REFUSALS {
        let put = flow.put(&mut *links[flow.from as usize], 4096);
        refused = if put == 0 { refused + 1 } else { 0 };
        links[flow.from as usize].pipes().flush(Rank(flow.to)).expect("flush");
    }
    flow.put
}

/// Flows of all strands between `size` ranks.
fn all_strands(size: u32, mut len: impl FnMut(Strand) -> usize) -> Vec<Flow> {
    let mut flows = Vec::new();
    for from in 0..size {
        for to in (0..size).filter(|to| *to != from) {
            flows.extend(STRANDS.map(|strand| Flow::new(from, to, strand, len(strand))));
        }
    }
    flows
}

/// Every rank puts and takes in both strands of all its pipes at once, in random pieces.
///
/// # Panics
/// When the contract is broken.
pub fn both_strands_of_all_pipes_deliver_once_and_in_order<H: Harness>() {
    for (size, seed) in [(2, 1), (3, 2), (4, 3)] {
        let mut links = H::links(size);
        let mut random = Seeded::new(seed);
        let mut len = |strand| match strand {
            Strand::Bytes => [0, 1, 16, 57, 4097, H::LARGE_BYTES / 32 + 1][random.below(6)],
            Strand::Answers => [0, 1, 16, 5000][random.below(4)],
        };
        let mut flows = all_strands(size, &mut len);
        carry(&mut links, &mut flows, seed);
    }
}

/// One thread puts while another takes, both ways.
///
/// # Panics
/// When the contract is broken.
pub fn pipes_work_across_threads<H: Harness>() {
    let links = H::links(2);
    std::thread::scope(|scope| {
        let play = |(rank, mut link): (u32, Box<dyn Links>)| {
            scope.spawn(move || {
                let peer = 1 - rank;
                let mut out = Flow::new(rank, peer, Strand::Bytes, H::LARGE_BYTES / 8 + 1);
                let mut back = Flow::new(rank, peer, Strand::Answers, 3 * WHOLE_BYTES * 100);
                let mut from = Flow::new(peer, rank, Strand::Bytes, out.len);
                let mut heard = Flow::new(peer, rank, Strand::Answers, back.len);
                let mut patience = Patience::new();
                let mut clear = false;
                while !clear || from.taken < from.len || heard.taken < heard.len {
                    let mut moved = out.put(&mut *link, 50_000) + back.put(&mut *link, 16);
                    moved += from.take(&mut *link, 30_000) + heard.take(&mut *link, 50);
                    let flushed = link.pipes().flush(Rank(peer)).expect("flush");
                    link.ring();
                    clear = out.put == out.len
                        && back.put == back.len
                        && link.pipes().is_clear(Rank(peer)).expect("is_clear");
                    patience.note(moved > 0 || flushed, &|| format!("{rank} and {peer}"));
                }
                // Dropped when both are through: the other may still need what this one has told it.
                link
            })
        };
        let threads: Vec<_> = (0..2).zip(links).map(play).collect();
        let _links: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("a rank does not panic")).collect();
    });
}

/// A put of up to a line's bytes is taken whole, and so is the start of a longer one.
///
/// # Panics
/// When the contract is broken.
pub fn puts_are_whole_up_to_a_line<H: Harness>() {
    for limit in [1, 15, 16, WHOLE_BYTES - 1, WHOLE_BYTES, WHOLE_BYTES + 1, 1000] {
        let mut links = H::links(2);
        // As often as the strand is sure to have room for.
        for _ in 0..STRAND_BYTES_MIN / limit.max(16) {
            let mut flow = Flow::new(0, 1, Strand::Bytes, limit);
            until("putting", &mut links, |links| flow.put(&mut *links[0], limit) > 0);
            assert!(flow.put >= limit.min(WHOLE_BYTES), "{} of {limit}", flow.put);
        }
    }
}

/// Puts and takes of nothing, and takes where nothing was put, do nothing.
///
/// # Panics
/// When the contract is broken.
pub fn nothing_is_put_or_taken_where_nothing_can_be<H: Harness>() {
    let mut links = H::links(3);
    for strand in STRANDS {
        for _ in 0..3 {
            let put = links[0].pipes().put(Rank(1), strand, 0, &mut |_| panic!("room for nothing"));
            assert_eq!(put, Ok(0));
            let taken = links[1].pipes().take(Rank(0), strand, 100, &mut |_| panic!("bytes from nowhere"));
            assert_eq!(taken, Ok(0));
        }
        let mut flow = Flow::new(0, 1, strand, 20);
        until("putting", &mut links, |links| flow.put(&mut *links[0], 20) > 0);
        for _ in 0..REFUSALS {
            let taken = links[2].pipes().take(Rank(0), strand, 100, &mut |_| panic!("bytes for another"));
            assert_eq!(taken, Ok(0));
            assert_eq!(links[1].pipes().take(Rank(2), strand, 100, &mut |_| panic!("of another")), Ok(0));
            let taken = links[1].pipes().take(Rank(0), strand, 0, &mut |_| panic!("a view of nothing"));
            assert_eq!(taken, Ok(0));
        }
        carry(&mut links, std::slice::from_mut(&mut flow), 7);
    }
}

/// A pipe whose bytes nobody takes holds up no answers, no other pipe, and not the one the other way.
///
/// # Panics
/// When the contract is broken.
pub fn full_bytes_hold_up_neither_answers_nor_others<H: Harness>() {
    let mut links = H::links(3);
    let mut full = Flow::new(0, 1, Strand::Bytes, usize::MAX);
    let held = fill_up(&mut links, &mut full);
    assert!(held >= STRAND_BYTES_MIN, "a pipe held {held} bytes");
    let mut others = all_strands(3, |_| 20_000);
    others.retain(|flow| (flow.from, flow.to, flow.strand) != (0, 1, Strand::Bytes));
    carry(&mut links, &mut others, 11);
    full.len = held + 50_000;
    carry(&mut links, std::slice::from_mut(&mut full), 12);
}

/// Answers that nobody takes hold up nothing else, and as many fit as are promised.
///
/// # Panics
/// When the contract is broken.
pub fn full_answers_hold_up_no_bytes<H: Harness>() {
    let mut links = H::links(2);
    let mut promised = Flow::new(0, 1, Strand::Answers, STRAND_BYTES_MIN);
    until("answering", &mut links, |links| {
        promised.put(&mut *links[0], 16);
        promised.put == promised.len
    });
    promised.len = usize::MAX;
    let held = fill_up(&mut links, &mut promised);
    let mut others = all_strands(2, |_| 20_000);
    others.retain(|flow| (flow.from, flow.strand) != (0, Strand::Answers));
    carry(&mut links, &mut others, 13);
    promised.len = held;
    carry(&mut links, std::slice::from_mut(&mut promised), 14);
}

/// Bytes of a call and bytes in pipes between the same ranks at the same time stay apart.
///
/// # Panics
/// When the contract is broken.
pub fn pipes_and_calls_do_not_meet<H: Harness>() {
    let bytes = stream(61, FITS_MAX);
    let mut links = H::links(3);
    let mut flows = all_strands(3, |_| 9_000);
    for flow in &mut flows {
        until("putting", &mut links, |links| flow.put(&mut *links[flow.from as usize], 100) > 0);
    }
    begin_all(&mut links, &call(0));
    send_all(&mut links, 0, &[Rank(1), Rank(2)], &bytes);
    carry(&mut links, &mut flows, 15);
    for rank in [1, 2] {
        assert_eq!(recv_all(&mut links, rank, 0, FITS_MAX), bytes);
    }
    end_all(&mut links);
    let mut flows = all_strands(3, |_| 100);
    carry(&mut links, &mut flows, 16);
    begin_all(&mut links, &call(1));
    end_all(&mut links);
}

/// Once a pipe is clear its sender may go, and all that it put still comes.
///
/// # Panics
/// When the contract is broken.
pub fn what_is_clear_arrives_without_its_sender<H: Harness>() {
    let mut links = H::links(2);
    let mut flows = STRANDS.map(|strand| Flow::new(1, 0, strand, STRAND_BYTES_MIN));
    until("putting", &mut links, |links| {
        for flow in &mut flows {
            flow.put(&mut *links[1], 16);
        }
        flows.iter().all(|flow| flow.put == flow.len) && links[1].pipes().is_clear(Rank(0)).expect("is_clear")
    });
    drop(links.pop());
    let mut patience = Patience::new();
    for flow in &mut flows {
        while flow.taken < flow.len {
            let taken = flow.take(&mut *links[0], 100);
            patience.note(taken > 0, &|| "taking what the dropped rank put".into());
        }
    }
}

/// Memory that is lent is read where it lies; its pipe is clear when all of it was.
///
/// # Panics
/// When the contract is broken.
pub fn what_is_lent_is_clear_when_it_was_taken<H: Harness>() {
    let len = 50_000;
    let (mut links, mut memory) = H::lending(2, len);
    fill(&mut memory[0], 77, 0);
    let lends = links[0].pipes().lends(Rank(1), View::from(&memory[0][..]));
    assert_eq!(lends, links[0].caps(Rank(1)).lends, "pipes lend what links do");
    let lends_private = links[0].pipes().lends(Rank(1), View::from(&vec![0; len][..]));
    assert_eq!(lends_private, H::LENDS_PRIVATE, "private memory");
    if !lends {
        assert_eq!(links[0].pipes().lend(Rank(1), View::from(&memory[0][..])), Ok(false));
        return;
    }
    until("lending", &mut links, |links| {
        links[0].pipes().lend(Rank(1), View::from(&memory[0][..])).expect("lend")
    });
    let mut taken = 0;
    while taken < len {
        assert_eq!(links[0].pipes().is_clear(Rank(1)), Ok(false), "{taken} of {len} bytes were taken");
        // Some links move what is lent themselves: of one stream with what is taken.
        let mut fetched = [0; 1000];
        let moved = links[1].pipes().fetch(Rank(0), ViewMut::from(&mut fetched[..])).expect("fetch");
        assert_eq!(differs(&fetched[..moved], 77, taken), None);
        taken += moved;
        taken += links[1]
            .pipes()
            .take(Rank(0), Strand::Bytes, 3000, &mut |view| {
                let mut bytes = vec![0; view.len()];
                view.copy_to(ViewMut::from(&mut bytes[..]));
                assert_eq!(differs(&bytes, 77, taken), None);
                view.len()
            })
            .expect("take");
    }
    until("giving back", &mut links, |links| {
        links[1].pipes().flush(Rank(0)).expect("flush");
        links[0].pipes().is_clear(Rank(1)).expect("is_clear")
    });
}

/// When the links have failed, so have the pipes.
///
/// # Panics
/// When the contract is broken.
pub fn pipes_of_failed_links_fail<H: Harness>() {
    let mut links = H::links(2);
    links[0].begin(&call(0)).expect("begin");
    links[1].begin(&Signature { count: 1, ..call(0) }).expect("begin");
    failures(&mut links, &[0, 1], |link| link.verify().map(|_| ()));
    for (rank, link) in links.iter_mut().enumerate() {
        let (peer, pipes) = (Rank(1 - rank as u32), link.pipes());
        for strand in STRANDS {
            assert!(pipes.put(peer, strand, 8, &mut |_| panic!("room on failed links")).is_err());
            assert!(pipes.take(peer, strand, 8, &mut |_| panic!("bytes of failed links")).is_err());
        }
        assert!(pipes.flush(peer).is_err());
        assert!(pipes.is_clear(peer).is_err());
    }
}

/// A transport that sees a peer go says so, in both strands, once what came was taken.
///
/// # Panics
/// When the contract is broken.
pub fn pipes_of_a_dropped_peer_are_closed<H: Harness>() {
    for strand in STRANDS {
        let mut links = H::links(2);
        let mut flow = Flow::new(1, 0, strand, 40);
        until("putting", &mut links, |links| {
            flow.put(&mut *links[1], 40);
            flow.put == 40 && links[1].pipes().is_clear(Rank(0)).expect("is_clear")
        });
        drop(links.pop());
        let mut patience = Patience::new();
        while flow.taken < flow.len {
            let taken = flow.take(&mut *links[0], 7);
            patience.note(taken > 0, &|| "taking what the dropped rank put".into());
        }
        let errors = failures(&mut links, &[0], |link| {
            let taken = link.pipes().take(Rank(1), strand, 8, &mut |_| panic!("bytes from nowhere"))?;
            assert_eq!(taken, 0);
            Ok(())
        });
        assert_eq!(errors, [LinkError::Closed { peer: Rank(1) }]);
    }
}
