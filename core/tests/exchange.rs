//! Which calls are made in one round, and that they end right whether the ranks meet at once, later, or not at all.

#[allow(dead_code, reason = "runs that fail are the matter of another file")]
mod simulate;

use simulate::{Call, run};
use sohu_coll_algorithms::{all, by_name};
use sohu_coll_conformance::{Faults, LoopLinks, Seeded};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::{
    EXCHANGE_FETCHED_MAX, EXCHANGE_LENT_MAX, EXCHANGE_MAX, FETCH_MIN, LinkCaps, Links, Met, Window, Work,
};
use sohu_coll_core::pipe::Pipes;
use sohu_coll_core::plan::fuse::fuse_for;
use sohu_coll_core::plan::{Extents, Job, Room};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::{ReadSpan, View, ViewMut};
use std::sync::{Arc, Mutex};

/// Which ranks make the call in one round, if nothing is fetched.
fn exchangers(algorithm: &str, job: Job, count: usize, registered: bool) -> Vec<Rank> {
    exchangers_of(algorithm, job, count, (registered, Fetched::Nothing))
}

/// Which ranks make the call in one round.
fn exchangers_of(
    algorithm: &str,
    job: Job,
    count: usize,
    (registered, fetched): (bool, Fetched),
) -> Vec<Rank> {
    let algorithm = by_name(algorithm).expect("there is such an algorithm");
    let is_one = |rank: &Rank| {
        let program = algorithm.program(&job, *rank);
        let binding = Binding {
            kernel: Kernel::new(DType::F32, ReduceOp::Sum),
            element: 4,
            slice: 4096,
            store: Store::Cached,
            input_registered: registered,
            output_registered: registered,
            fetched,
            within: None,
        };
        let extents = Extents::bind(&program, count, 4);
        let fused = |room| Bound::new(&program, &fuse_for(&program, room), &extents, &binding);
        let bound = Some(fused(Room::Chunk)).filter(Bound::lends_all).unwrap_or_else(|| fused(Room::Slice));
        Executor::new(Arc::new(bound)).is_exchange()
    };
    (0..job.size).map(Rank).filter(is_one).collect()
}

/// Whether every rank makes the call in one round, or none does.
fn is_exchange(algorithm: &str, job: Job, count: usize, registered: bool) -> bool {
    let some = exchangers(algorithm, job, count, registered);
    let all = some.len() == job.size as usize;
    assert!(all || some.is_empty(), "{job:?}: only {some:?} make {count} floats an exchange");
    all
}

#[test]
fn calls_in_which_all_send_all_the_same_few_bytes_are_exchanges() {
    for size in [2, 3, 5] {
        for in_place in [false, true] {
            for collective in [Collective::AllReduce, Collective::AllGather] {
                let job = Job { in_place, ..Job::new(collective, size) };
                for count in [1, 10, 11, EXCHANGE_MAX / 4] {
                    for registered in [false, true] {
                        assert!(is_exchange("one_shot", job, count, registered), "{job:?} of {count}");
                    }
                }
                assert!(!is_exchange("one_shot", job, 0, false), "{job:?} of nothing");
                assert!(!is_exchange("one_shot", job, EXCHANGE_MAX / 4 + 1, false), "{job:?}");
            }
        }
    }
}

#[test]
fn two_ranks_that_fold_what_the_other_sends_make_an_exchange_whatever_the_algorithm() {
    for (algorithm, collective) in
        [("recursive_doubling", Collective::AllReduce), ("one_shot", Collective::ReduceScatter)]
    {
        assert!(is_exchange(algorithm, Job::new(collective, 2), 10, false), "{algorithm}");
        let deals = collective == Collective::ReduceScatter;
        assert_eq!(
            is_exchange(algorithm, Job::new(collective, 4), 10, false),
            deals,
            "{algorithm} of 4 ranks"
        );
    }
}

#[test]
fn calls_of_one_rank_with_all_others_are_exchanges_too() {
    for size in [2, 3, 5] {
        for (root, in_place) in (0..size).map(Rank).flat_map(|root| [(root, false), (root, true)]) {
            for collective in [Collective::Broadcast, Collective::Reduce, Collective::Gather] {
                let job = Job { root, in_place, ..Job::new(collective, size) };
                for registered in [false, true] {
                    for count in [1, 10, 11, EXCHANGE_MAX / 4] {
                        assert!(is_exchange("one_shot", job, count, registered), "{job:?} of {count}");
                    }
                    assert!(!is_exchange("one_shot", job, EXCHANGE_MAX / 4 + 1, registered), "{job:?}");
                }
                assert!(!is_exchange("one_shot", job, 0, false), "{job:?} of nothing");
            }
            // A root's blocks are one exchange if they fit a board together.
            let job = Job { root, in_place, ..Job::new(Collective::Scatter, size) };
            let most = EXCHANGE_MAX / 4 / (size as usize - 1);
            assert!(
                is_exchange("one_shot", job, 1, false) && is_exchange("one_shot", job, most, true),
                "{job:?}"
            );
            let others: Vec<Rank> = (0..size).map(Rank).filter(|rank| *rank != root).collect();
            let long = exchangers("one_shot", job, most + 1, false);
            assert_eq!(long, if size > 2 { others } else { vec![] }, "{job:?}");
        }
        let job = Job::new(Collective::AllToAll, size);
        assert!(is_exchange("one_shot", job, 3, false), "{job:?}");
    }
}

#[test]
fn ranks_with_one_round_make_it_an_exchange_whatever_the_others_do() {
    let leaves = |algorithm, collective| exchangers(algorithm, Job::new(collective, 4), 10, false);
    for collective in [Collective::Broadcast, Collective::Reduce] {
        assert_eq!(leaves("ring", collective).len(), 2, "the two ends of a {collective}");
    }
    assert!(leaves("two_shot", Collective::Broadcast).is_empty(), "all have two rounds");
}

#[test]
fn calls_with_more_rounds_are_no_exchanges() {
    for size in [2, 3, 5] {
        for (algorithm, collective) in [
            ("two_shot", Collective::AllReduce),
            ("ring", Collective::AllReduce),
            ("ring", Collective::AllGather),
            ("two_shot", Collective::Broadcast),
        ] {
            let job = Job::new(collective, size);
            assert!(!is_exchange(algorithm, job, 10, false), "{algorithm} {job:?}");
        }
    }
    for algorithm in all() {
        for collective in Collective::ALL {
            let job = Job::new(collective, 1);
            assert!(!algorithm.fits(&job) || !is_exchange(algorithm.name(), job, 10, true), "one rank");
        }
    }
}

#[test]
fn what_is_fetched_is_exchanged_by_ranks_that_take_from_one() {
    let (stored, folded) = (EXCHANGE_FETCHED_MAX / 4, EXCHANGE_LENT_MAX / 4);
    for (collective, size, most) in [
        (Collective::AllGather, 2, Some(stored)),
        (Collective::AllToAll, 2, Some(stored)),
        (Collective::Broadcast, 2, Some(stored)),
        (Collective::Broadcast, 5, Some(stored)),
        (Collective::AllReduce, 2, Some(folded)),
        (Collective::ReduceScatter, 2, Some(folded)),
        // One after the other.
        (Collective::AllGather, 3, None),
        (Collective::AllReduce, 3, None),
    ] {
        let job = Job::new(collective, size);
        for count in [FETCH_MIN / 4, folded, folded + 1, stored, stored + 1] {
            let ranks = exchangers_of("one_shot", job, count, (false, Fetched::All)).len() as u32;
            let expected = if most.is_some_and(|most| count <= most) { size } else { 0 };
            assert_eq!(ranks, expected, "{job:?} of {count}");
            let staged = exchangers_of("one_shot", job, count, (false, Fetched::Nothing));
            assert!(staged.is_empty(), "{job:?} of {count}, staged");
        }
    }
    // What is stored over is not lent.
    let job = Job { in_place: true, ..Job::new(Collective::AllReduce, 2) };
    assert!(exchangers_of("one_shot", job, FETCH_MIN / 4, (false, Fetched::All)).is_empty(), "{job:?}");
}

#[test]
fn two_ranks_swap_halves_where_both_are_registered() {
    for in_place in [false, true] {
        let job = Job { in_place, ..Job::new(Collective::AllReduce, 2) };
        for count in [1024, 100_000] {
            assert!(is_exchange("two_shot", job, count, true), "{job:?} of {count}");
            assert!(!is_exchange("two_shot", job, count, false), "{job:?} of {count}, not registered");
        }
        assert!(!is_exchange("two_shot", Job { pieces: 2, ..job }, 1024, true), "in pieces");
        assert!(!is_exchange("two_shot", Job { size: 3, ..job }, 1024, true), "of three ranks");
    }
}

#[test]
fn more_bytes_make_an_exchange_where_they_are_lent() {
    let longer = [EXCHANGE_MAX / 4 + 1, EXCHANGE_LENT_MAX / 4];
    for size in [2, 5] {
        for collective in [Collective::AllReduce, Collective::AllGather] {
            let job = Job::new(collective, size);
            for count in longer {
                assert!(is_exchange("one_shot", job, count, true), "{job:?} of {count}");
                assert!(!is_exchange("one_shot", job, count, false), "{job:?} of {count}, not registered");
            }
            assert!(!is_exchange("one_shot", job, EXCHANGE_LENT_MAX / 4 + 1, true), "{job:?}");
        }
        let in_place = Job { in_place: true, ..Job::new(Collective::AllReduce, size) };
        for count in longer {
            assert!(!is_exchange("one_shot", in_place, count, true), "what is stored over is not lent");
        }
    }
}

/// How often links were asked to meet, by what came of it.
#[derive(Clone, Copy, Debug, Default)]
struct Meetings {
    met: u32,
    later: u32,
    otherwise: u32,
}

/// Links that count the meetings of all ranks.
struct Counted {
    links: LoopLinks,
    meetings: Arc<Mutex<Meetings>>,
}

impl Links for Counted {
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

    fn offer(&mut self, call: &Signature, to: &[Rank], bytes: View<'_>, lent: Option<ReadSpan>) -> usize {
        self.links.offer(call, to, bytes, lent)
    }

    fn offer_blocks(&mut self, call: &Signature, to: &[Rank], blocks: &[View<'_>]) -> bool {
        self.links.offer_blocks(call, to, blocks)
    }

    fn meet(&mut self, from: &[Rank], len: usize, looks: u32, work: Work<'_>) -> Met {
        let met = self.links.meet(from, len, looks, work);
        let mut meetings = self.meetings.lock().expect("no rank panicked");
        match met {
            Met::NotYet => meetings.later += 1,
            Met::Otherwise => meetings.otherwise += 1,
            Met::Everybody | Met::Settled => meetings.met += 1,
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

    fn poll(&mut self) -> Result<bool, LinkError> {
        self.links.poll()
    }

    fn settled(&mut self) -> Result<bool, LinkError> {
        self.links.settled()
    }

    fn pipes(&mut self) -> &mut dyn Pipes {
        self.links.pipes()
    }
}

/// Runs rows of three exchanges over links with these faults; every byte of every rank is looked at. Returns how many
/// calls the ranks made together, and their meetings.
fn exchanges(faults: Faults) -> (u32, Meetings) {
    let meetings = Arc::new(Mutex::new(Meetings::default()));
    let mut made = 0;
    for seed in 0..160 {
        let mut random = Seeded::new(seed);
        let size = [2, 3, 5][random.below(3)];
        let calls: Vec<Vec<Call<'_>>> = (0..3)
            .map(|_| {
                let root = Rank(random.below(size as usize) as u32);
                let collective = Collective::ALL[random.below(Collective::ALL.len())];
                // The blocks of all ranks fit a board together.
                let most = if collective.blocks(2) > 1 { 100 } else { EXCHANGE_MAX / 8 };
                let call = Call {
                    algorithm: by_name("one_shot").expect("it does everything"),
                    job: Job { in_place: random.below(2) == 0, root, ..Job::new(collective, size) },
                    dtype: [DType::F32, DType::I64, DType::Bf16][random.below(3)],
                    op: ReduceOp::ALL[random.below(ReduceOp::ALL.len())],
                    count: [1, 2, 5, 100, most][random.below(5)],
                    slice: 4096,
                    room: Room::Slice,
                    registered: random.below(2) == 0,
                    store: Store::Cached,
                };
                vec![call; size as usize]
            })
            .collect();
        let links = LoopLinks::fabric(size, Faults { seed, ..faults });
        let links = links.into_iter().map(|links| Counted { links, meetings: Arc::clone(&meetings) });
        let endings = run(seed, links.collect(), &calls, |_, len| vec![0; len]);
        for ending in endings.iter().flatten() {
            assert_eq!(ending.result, Some(Ok(())), "seed {seed}");
            made += 1;
        }
    }
    let meetings = *meetings.lock().expect("no rank panicked");
    (made, meetings)
}

#[test]
fn calls_end_right_where_all_ranks_meet() {
    let (made, meetings) = exchanges(Faults::NONE);
    assert_eq!((meetings.met, meetings.otherwise), (made, 0), "{meetings:?}");
    assert!(meetings.later > 0, "nobody was ever late");
    let (made, meetings) = exchanges(Faults { refuse_percent: 30, ..Faults::NONE });
    assert!(meetings.met > 0 && meetings.met < made, "{meetings:?} of {made}");
}

#[test]
fn calls_end_right_where_nobody_meets() {
    let (made, meetings) = exchanges(Faults { misses_percent: 100, ..Faults::NONE });
    assert_eq!((meetings.met, meetings.later, meetings.otherwise), (0, 0, made), "{meetings:?}");
}

#[test]
fn calls_end_right_where_some_ranks_meet_and_others_do_not() {
    for max_piece in [usize::MAX, 100] {
        let (made, meetings) = exchanges(Faults { misses_percent: 50, max_piece, ..Faults::NONE });
        assert!(meetings.met > 0 && meetings.otherwise > 0 && meetings.later > 0, "{meetings:?} of {made}");
    }
}
