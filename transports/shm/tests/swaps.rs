//! Two ranks that swap halves over shared memory: right whether both do, or one goes by the ordinary methods, or the
//! other comes late; and a peer that writes what it likes ends the call in an error that names it.
#![expect(unsafe_code, reason = "a hostile peer maps its segment itself")]

#[allow(dead_code, reason = "the first call is begun here as a swap")]
mod join;
#[path = "../../../core/tests/simulate/mod.rs"]
mod simulate;
#[allow(dead_code, reason = "lines of other kinds are the matter of other files")]
mod villain;

use simulate::{Call, run};
use sohu_coll_algorithms::by_name;
use sohu_coll_conformance::Seeded;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::kernel::Store;
use sohu_coll_core::link::{Half, LinkCaps, Links, Met, Refused, Window};
use sohu_coll_core::plan::{Job, Room};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, ReadSpan, Regions, View, ViewMut, WriteSpan};
use sohu_coll_shm::{HeapBytes, ShmLinks};
use std::cell::Cell;
use villain::{CHUNK, FIRST, HEAP, SWAP, Villain};

thread_local! {
    /// Swaps that were begun, were turned down, ended by meeting the peer, and by other means.
    static SWAPS: [Cell<u32>; 4] = const { [const { Cell::new(0) }; 4] };
}

fn note(what: usize) {
    SWAPS.with(|swaps| swaps[what].set(swaps[what].get() + 1));
}

/// Links that turn some swaps down, so that the call goes by the ordinary methods.
struct Shy {
    links: ShmLinks,
    random: Seeded,
    shy_percent: usize,
}

impl Links for Shy {
    fn transport(&self) -> &'static str {
        self.links.transport()
    }
    fn rank(&self) -> Rank {
        self.links.rank()
    }
    fn size(&self) -> u32 {
        self.links.size()
    }
    fn caps(&self, peer: Rank) -> LinkCaps {
        self.links.caps(peer)
    }
    fn begin(&mut self, call: &Signature) -> Result<(), LinkError> {
        self.links.begin(call)
    }
    fn swap(
        &mut self,
        call: &Signature,
        half: Half<'_>,
        looks: u32,
        work: &mut dyn FnMut(View<'_>, ViewMut<'_>),
    ) -> Option<Met> {
        if self.random.below(100) < self.shy_percent {
            note(1);
            return None;
        }
        let met = self.links.swap(call, half, looks, work)?;
        note(0);
        match met {
            Met::NotYet => {}
            Met::Everybody | Met::Settled => note(2),
            Met::Otherwise => note(3),
        }
        Some(met)
    }
    fn meet_swap(&mut self, len: usize, looks: u32, work: &mut dyn FnMut(View<'_>, ViewMut<'_>)) -> Met {
        let met = self.links.meet_swap(len, looks, work);
        match met {
            Met::NotYet => {}
            Met::Everybody | Met::Settled => note(2),
            Met::Otherwise => note(3),
        }
        met
    }
    fn verify(&mut self) -> Result<bool, LinkError> {
        self.links.verify()
    }
    fn send(&mut self, to: &[Rank], bytes: View<'_>) -> Result<usize, LinkError> {
        self.links.send(to, bytes)
    }
    fn recv(&mut self, from: Rank, into: ViewMut<'_>) -> Result<usize, LinkError> {
        self.links.recv(from, into)
    }
    fn pass(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        self.links.pass(from, to, limit, granule, work)
    }
    fn lend(&mut self, to: &[Rank], span: ReadSpan) -> Result<(), Refused<ReadSpan>> {
        self.links.lend(to, span)
    }
    fn post(&mut self, from: Rank, at: u64, span: WriteSpan) -> Result<(), Refused<WriteSpan>> {
        self.links.post(from, at, span)
    }
    fn posted(&self, to: Rank) -> usize {
        self.links.posted(to)
    }
    fn is_unverified(&self, peer: Rank) -> bool {
        self.links.is_unverified(peer)
    }
    fn abandon(&mut self) {
        self.links.abandon();
    }
    fn poll(&mut self) -> Result<bool, LinkError> {
        self.links.poll()
    }
    fn settled(&mut self) -> Result<bool, LinkError> {
        self.links.settled()
    }
    fn pipes(&mut self) -> &mut dyn sohu_coll_core::pipe::Pipes {
        self.links.pipes()
    }
    fn check(&mut self) -> Result<(), LinkError> {
        self.links.check()
    }
}

/// Runs rows of swaps, of every length about a limit, in place and not; `[begun, turned down, met, otherwise]`.
fn swaps(shy_percent: usize) -> [u32; 4] {
    SWAPS.with(|swaps| swaps.iter().for_each(|count| count.set(0)));
    for seed in 0..80 {
        let mut random = Seeded::new(seed);
        let calls: Vec<Vec<Call<'_>>> = (0..4)
            .map(|_| {
                let in_place = random.below(2) == 0;
                let call = Call {
                    algorithm: by_name("two_shot").expect("there is one"),
                    job: Job { in_place, ..Job::new(Collective::AllReduce, 2) },
                    dtype: [DType::F32, DType::I64, DType::Bf16][random.below(3)],
                    op: ReduceOp::ALL[random.below(ReduceOp::ALL.len())],
                    count: [1000, 1024, 2048, 2049, 40_001][random.below(5)],
                    slice: [64, 4096][random.below(2)],
                    room: Room::Chunk,
                    registered: true,
                    store: [Store::Cached, Store::Streaming][random.below(2)],
                };
                vec![call; 2]
            })
            .collect();
        // Staging that holds less than a half, for who has to copy.
        let links = join::links(2, 4096, 8 << 20).into_iter();
        let shy = |links| Shy { links, random: Seeded::new(random.next()), shy_percent };
        let links = links.map(shy).collect();
        let alloc = |shy: &Shy, len| -> HeapBytes { shy.links.alloc(len).expect("the heap has room") };
        for ending in run(seed, links, &calls, alloc).iter().flatten() {
            assert_eq!(ending.result, Some(Ok(())), "seed {seed}");
        }
    }
    SWAPS.with(|swaps| swaps.each_ref().map(Cell::get))
}

#[test]
fn calls_end_right_where_both_ranks_swap() {
    let [begun, shy, met, otherwise] = swaps(0);
    assert!(begun > 300, "{begun} swaps");
    assert_eq!((shy, met, otherwise), (0, begun, 0));
}

#[test]
fn calls_end_right_where_one_rank_swaps_and_the_other_does_not() {
    let [begun, shy, met, otherwise] = swaps(50);
    assert!(
        shy > 60 && met > 50 && otherwise > 50,
        "{begun} begun, {shy} not, {met} met, {otherwise} did not"
    );
}

#[test]
fn calls_end_right_where_no_rank_swaps() {
    let [begun, shy, ..] = swaps(100);
    assert!(begun == 0 && shy > 300, "{begun} begun, {shy} not");
}

const LEN: usize = 5000;

/// The victim of `attack` swaps, meets nobody, and is told of rank 1 by the ordinary methods.
fn told(attack: impl Fn(&mut Villain)) -> Result<usize, LinkError> {
    let (mut villain, mut victim) = Villain::idle();
    attack(&mut villain);
    swapped(&mut victim)
}

/// A half of `LEN` bytes, the input for the output, and what has become of it.
fn swap(
    link: &mut ShmLinks,
    regions: &Regions<'_>,
    looks: u32,
    work: &mut dyn FnMut(View<'_>, ViewMut<'_>),
) -> Option<Met> {
    let spans = || (regions.input.lend(0..LEN), regions.output.post(0..LEN).expect("free"));
    let (bytes, answer) = (regions.input.read(0..LEN), regions.output.write(0..LEN));
    let half = Half { bytes, answer, at: LEN as u64, theirs: LEN, spans: &spans };
    link.swap(&villain::call(0), half, looks, work)
}

fn swapped(victim: &mut ShmLinks) -> Result<usize, LinkError> {
    let mut told = Ok(0);
    // The buffers outlive the links' use of them, not the other way round.
    let (input, mut output) = (victim.alloc(LEN).expect("empty"), victim.alloc(LEN).expect("there is room"));
    let ledger = Ledger::new();
    scope(&ledger, Loan::Apart { input: &input, output: &mut output }, &mut [], |regions| {
        let met = swap(victim, regions, 3, &mut |_, _| panic!("work saw bytes of a swap that is none"));
        assert_eq!(met, Some(Met::Otherwise));
        assert_eq!(ledger.out(), 2, "what was lent and posted is still out");
        let mut bytes = vec![0; LEN];
        told = victim.recv(Rank(1), ViewMut::from(&mut bytes[..]));
        victim.abandon();
        assert_eq!(ledger.out(), 0, "spans are out with links that were abandoned");
    });
    told
}

#[test]
fn swaps_of_memory_that_is_not_there_are_corrupt() {
    let layout = Villain::idle().0.layout;
    let (heap, len) = (layout.heap(), LEN as u64);
    let start = heap.start as u64;
    let end = (heap.start + HEAP) as u64;
    for words in [
        [start, 0, start, len],
        [end, len, start, len],
        [end - len + 1, len, start, len],
        [0, len, start, len],
        [u64::MAX, len, start, len],
        [start, len, 0, len],
        [start, len, layout.staging().start as u64, len],
        [start, len, end - len + 1, len],
        [start, len, u64::MAX - 1, len],
        [start, u64::MAX, start, len],
    ] {
        let told = told(|villain| {
            villain.put(FIRST | SWAP, 0, &words);
        });
        assert!(matches!(told, Err(LinkError::Corrupt { peer: Rank(1), .. })), "{words:?}: {told:?}");
    }
    let told = told(|villain| {
        villain.open().put(SWAP, 0, &[start, len, start, len]);
    });
    assert!(matches!(told, Err(LinkError::Corrupt { peer: Rank(1), .. })), "after the signature: {told:?}");
}

#[test]
fn a_peer_that_does_not_swap_is_heard_by_the_ordinary_methods() {
    let start = Villain::idle().0.layout.heap().start as u64;
    let told = told(|villain| {
        villain.put(FIRST | CHUNK, 0, &[start, LEN as u64]);
    });
    assert_eq!(told, Ok(LEN));
}

#[test]
fn spans_of_a_swap_are_out_until_the_peer_returns_them_and_not_longer() {
    let mut links = join::links(2, 4096, 1 << 20);
    let (mut late, mut early) = (links.remove(1), links.remove(0));
    let answers = |fill: u8| {
        move |lent: View<'_>, answer: ViewMut<'_>| {
            let mut theirs = vec![0; LEN];
            lent.copy_to(ViewMut::from(&mut theirs[..]));
            assert_eq!(theirs, vec![fill; LEN]);
            View::from(&vec![fill + 10; LEN][..]).copy_to(answer);
        }
    };
    let bytes = |view: View<'_>| {
        let mut bytes = vec![0; LEN];
        view.copy_to(ViewMut::from(&mut bytes[..]));
        bytes
    };
    let buffers = |link: &ShmLinks, fill: u8| {
        let mut memory = link.alloc(2 * LEN).expect("the heap is empty");
        memory[..LEN].fill(fill);
        memory
    };
    let (mut home, mut away) = (buffers(&early, 1), buffers(&late, 2));
    let ledgers = [Ledger::new(), Ledger::new()];
    let (input, output) = home.split_at_mut(LEN);
    scope(&ledgers[0], Loan::Apart { input, output }, &mut [], |ours| {
        assert_eq!(swap(&mut early, ours, 5, &mut |_, _| panic!("nobody came")), Some(Met::NotYet));
        assert_eq!(early.meet_swap(LEN, 5, &mut |_, _| panic!("nobody came")), Met::NotYet);
        assert_eq!((early.settled(), ledgers[0].out()), (Ok(false), 2));
        let (input, output) = away.split_at_mut(LEN);
        scope(&ledgers[1], Loan::Apart { input, output }, &mut [], |theirs| {
            let met = swap(&mut late, theirs, 5, &mut answers(1));
            assert_eq!(met, Some(Met::Everybody), "the other has yet to look");
            assert_eq!((late.settled(), ledgers[1].out()), (Ok(false), 2));
            assert_eq!(early.meet_swap(LEN, 5, &mut answers(2)), Met::Settled);
            assert_eq!((early.settled(), ledgers[0].out()), (Ok(true), 0));
            assert_eq!((late.settled(), ledgers[1].out()), (Ok(true), 0));
            assert_eq!(bytes(theirs.output.read(0..LEN)), vec![12; LEN]);
        });
        assert_eq!(bytes(ours.output.read(0..LEN)), vec![11; LEN]);
    });
}
