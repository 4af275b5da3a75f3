//! Cases whose time is a formula.

use super::*;
use crate::plan::{Chunks, Edge, Job, Pass, Program, Source, Wait, input, output};
use crate::rank::ChannelId;
use crate::signature::Collective;
use crate::topology::{Host, Wire};
use core::panic::Location;
use proptest::prelude::*;

/// Cores so fast that only links count.
const LINKS_ONLY: Host = Host { cores: 64, bytes_per_ns: 1e18, slice_ns: 0.0, switch_ns: 0.0 };

fn wire(latency_ns: f64, bytes_per_ns: f64) -> Wire {
    Wire { latency_ns, bytes_per_ns, lanes: 1 }
}

fn pass(sources: &[Source], into: Option<Chunks>, to: &[u32], extent: Chunks, after: &[(u32, Wait)]) -> Pass {
    Pass {
        sources: sources.to_vec(),
        into,
        to: to.iter().copied().map(Rank).collect(),
        extent,
        channel: ChannelId(0),
        finishes: false,
        after: after.iter().map(|&(on, wait)| Edge { on, wait }).collect(),
        steps: Vec::new(),
        written_at: Location::caller(),
    }
}

fn extents(size: u32, chunks: u32, bytes: usize) -> Vec<Extents> {
    let program = Program {
        job: Job::new(Collective::AllReduce, size),
        rank: Rank(0),
        chunks,
        steps: Vec::new(),
        scratch_chunks: 0,
        outstanding_max: None,
    };
    vec![Extents::bind(&program, bytes, 1); size as usize]
}

/// Rank 0 has a chunk, every rank gives it to the next.
fn chain(size: u32) -> Vec<Passes> {
    let next = |rank: u32| if rank + 1 < size { vec![rank + 1] } else { Vec::new() };
    (0..size)
        .map(|rank| {
            let all = output(0, 1);
            let source = if rank == 0 { Source::Local(input(0, 1)) } else { Source::Peer(Rank(rank - 1)) };
            Passes { passes: vec![pass(&[source], Some(all), &next(rank), all, &[])], scratch_chunks: 0 }
        })
        .collect()
}

/// The ring all-reduce, fused: 2(n-1) hops of one chunk.
fn ring(size: u32) -> Vec<Passes> {
    (0..size)
        .map(|rank| {
            let (next, prev) = ((rank + 1) % size, Rank((rank + size - 1) % size));
            let first = input(rank, 1);
            let mut passes = vec![pass(&[Source::Local(first)], None, &[next], first, &[])];
            for hop in 1..=2 * (size - 1) {
                let chunk = (rank + 2 * size - hop) % size;
                let (own, out) = (Source::Local(input(chunk, 1)), output(chunk, 1));
                let sources =
                    if hop < size { vec![own, Source::Peer(prev)] } else { vec![Source::Peer(prev)] };
                let to = if hop < 2 * (size - 1) { vec![next] } else { Vec::new() };
                passes.push(pass(&sources, Some(out), &to, out, &[(hop - 1, Wait::Whole)]));
            }
            Passes { passes, scratch_chunks: 0 }
        })
        .collect()
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
}

#[test]
fn one_hop_is_copy_wire_latency_copy() {
    let host = Host { cores: 2, bytes_per_ns: 10.0, slice_ns: 7.0, switch_ns: 1e6 };
    let on = Topology::uniform(2, wire(60.0, 4.0), host);
    let all = input(0, 1);
    let plan = [
        Passes { passes: vec![pass(&[Source::Local(all)], None, &[1], all, &[])], scratch_chunks: 0 },
        Passes {
            passes: vec![pass(&[Source::Peer(Rank(0))], Some(output(0, 1)), &[], output(0, 1), &[])],
            scratch_chunks: 0,
        },
    ];
    let found = timeline(&plan, &extents(2, 1, 1000), &on, 1000);
    // Each side touches every byte twice.
    let copy = 7.0 + 2.0 * 1000.0 / 10.0;
    close(found.total_ns, copy + 1000.0 / 4.0 + 60.0 + copy);
    close(found.passes[1][0].start_ns, copy + 1000.0 / 4.0 + 60.0);
    let path: Vec<_> = found.critical.iter().map(|c| (c.rank.0, c.because)).collect();
    assert_eq!(path, [(0, Because::Start), (1, Because::Peer)]);
}

#[test]
fn a_chain_of_slices_is_a_pipeline() {
    for (size, slices) in [(2, 1), (2, 8), (5, 1), (5, 10), (9, 100)] {
        let on = Topology::uniform(size, wire(60.0, 4.0), LINKS_ONLY);
        let found = timeline(&chain(size), &extents(size, 1, 100 * slices), &on, 100);
        let hops = f64::from(size - 1);
        close(found.total_ns, hops * (60.0 + 100.0 / 4.0) + (slices - 1) as f64 * 100.0 / 4.0);
    }
}

#[test]
fn a_ring_is_its_hops() {
    for size in [2, 3, 4, 8, 33] {
        let on = Topology::uniform(size, wire(500.0, 2.0), LINKS_ONLY);
        let chunk = 6400;
        let found = timeline(&ring(size), &extents(size, size, chunk * size as usize), &on, chunk);
        close(found.total_ns, 2.0 * f64::from(size - 1) * (500.0 + chunk as f64 / 2.0));
        assert_eq!(found.passes.len(), size as usize);
        assert_eq!(found.critical.len(), 2 * size as usize - 1);
        assert_eq!(found.critical[0].because, Because::Start);
    }
}

#[test]
fn ranks_that_share_a_core_take_turns() {
    let host = Host { cores: 2, bytes_per_ns: 10.0, slice_ns: 5.0, switch_ns: 30.0 };
    let all = output(0, 1);
    let local = || Passes {
        passes: vec![pass(&[Source::Local(input(0, 1))], Some(all), &[], all, &[])],
        scratch_chunks: 0,
    };
    for (size, turns) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
        let on = Topology::uniform(size, wire(1.0, 1.0), host);
        let plan: Vec<Passes> = (0..size).map(|_| local()).collect();
        let found = timeline(&plan, &extents(size, 1, 1000), &on, 1000);
        let copy = 5.0 + 2.0 * 1000.0 / 10.0;
        close(found.total_ns, f64::from(turns) * copy + f64::from(turns - 1) * 30.0);
        assert_eq!(found.critical.len(), turns as usize);
    }
}

#[test]
fn a_streaming_pass_follows_slice_by_slice_and_a_whole_one_waits() {
    // Rank 1 stores what comes, then sends it on in a pass of its own.
    let all = output(0, 1);
    let plan = |wait| {
        vec![
            chain(3).remove(0),
            Passes {
                passes: vec![
                    pass(&[Source::Peer(Rank(0))], Some(all), &[], all, &[]),
                    pass(&[Source::Local(all)], None, &[2], all, &[(0, wait)]),
                ],
                scratch_chunks: 0,
            },
            Passes {
                passes: vec![pass(&[Source::Peer(Rank(1))], Some(all), &[], all, &[])],
                scratch_chunks: 0,
            },
        ]
    };
    let on = Topology::uniform(3, wire(60.0, 4.0), LINKS_ONLY);
    let total = |wait| timeline(&plan(wait), &extents(3, 1, 1000), &on, 100).total_ns;
    close(total(Wait::Streaming), 2.0 * (60.0 + 25.0) + 9.0 * 25.0);
    close(total(Wait::Whole), 2.0 * (60.0 + 250.0));
}

#[test]
fn lanes_carry_messages_side_by_side() {
    let both = Wire { latency_ns: 10.0, bytes_per_ns: 1.0, lanes: 2 };
    let on = Topology::uniform(2, both, LINKS_ONLY);
    // Slices of 100, 100 and 50 bytes: the third follows the first.
    close(timeline(&chain(2), &extents(2, 1, 250), &on, 100).total_ns, 160.0);
}

#[test]
fn a_shared_switch_serialises_what_two_ranks_send() {
    let mut on = Topology::new();
    let host = on.add_host(LINKS_ONLY);
    let (a, b) = (on.add_switch(), on.add_switch());
    for rank in 0..4 {
        let site = on.add_rank(host);
        on.join_both(site, if rank < 2 { a } else { b }, wire(1.0, 100.0));
    }
    on.join(a, b, wire(50.0, 1.0));
    let all = output(0, 1);
    let send = |to| Passes {
        passes: vec![pass(&[Source::Local(input(0, 1))], None, &[to], all, &[])],
        scratch_chunks: 0,
    };
    let recv = |from| Passes {
        passes: vec![pass(&[Source::Peer(Rank(from))], Some(all), &[], all, &[])],
        scratch_chunks: 0,
    };
    let plan = [send(2), send(3), recv(0), recv(1)];
    let total = timeline(&plan, &extents(4, 1, 1000), &on, 1000).total_ns;
    // Both reach the middle link at once and take it in turn: in, twice through, out.
    close(total, (10.0 + 1.0) + 2.0 * 1000.0 + 50.0 + (10.0 + 1.0));
}

#[test]
fn nothing_takes_no_time() {
    let host = Host { cores: 1, bytes_per_ns: 1.0, slice_ns: 5.0, switch_ns: 5.0 };
    let on = Topology::uniform(4, wire(60.0, 4.0), host);
    assert_eq!(timeline(&ring(4), &extents(4, 4, 0), &on, 64).total_ns, 0.0);
    assert_eq!(timeline(&[], &[], &on, 64).critical, []);
}

#[test]
#[should_panic(expected = "waits for ever")]
fn a_plan_that_can_not_end_is_our_bug() {
    let on = Topology::uniform(2, wire(1.0, 1.0), LINKS_ONLY);
    let all = output(0, 1);
    let recv = |from| Passes {
        passes: vec![pass(&[Source::Peer(Rank(from))], Some(all), &[], all, &[])],
        scratch_chunks: 0,
    };
    timeline(&[recv(1), recv(0)], &extents(2, 1, 10), &on, 10);
}

proptest! {
    #[test]
    fn more_bytes_never_take_less_time(size in 2..9u32, bytes in 0..20_000usize, more in 0..20_000usize, cores in 1..9u32) {
        let host = Host { cores, bytes_per_ns: 10.0, slice_ns: 20.0, switch_ns: 0.0 };
        let on = Topology::uniform(size, wire(60.0, 4.0), host);
        let slice = 1 << 20; // one slice a pass: with several, a greedy core may gain from an odd cut
        let total = |bytes| timeline(&ring(size), &extents(size, size, bytes), &on, slice).total_ns;
        let total_chain = |bytes| timeline(&chain(size), &extents(size, 1, bytes), &on, 1000).total_ns;
        let whole = |bytes: usize| bytes.next_multiple_of(64 * size as usize);
        prop_assert!(total(whole(bytes)) <= total(whole(bytes + more)) + 1e-6);
        prop_assert!(total_chain(bytes) <= total_chain(bytes + more) + 1e-6);
    }

    #[test]
    fn the_same_plan_takes_the_same_time(size in 2..9u32, bytes in 0..20_000usize, slice in 1..3000usize) {
        let host = Host { cores: 2, bytes_per_ns: 10.0, slice_ns: 20.0, switch_ns: 100.0 };
        let on = Topology::uniform(size, wire(60.0, 4.0), host);
        let found = || timeline(&ring(size), &extents(size, size, bytes), &on, slice);
        prop_assert_eq!(found(), found());
    }

    #[test]
    fn the_critical_path_starts_at_nought_and_ends_at_the_total(size in 2..9u32, bytes in 1..20_000usize, slice in 100..3000usize) {
        let host = Host { cores: 2, bytes_per_ns: 10.0, slice_ns: 20.0, switch_ns: 100.0 };
        let on = Topology::uniform(size, wire(60.0, 4.0), host);
        let found = timeline(&ring(size), &extents(size, size, bytes), &on, slice);
        prop_assert_eq!(found.critical[0].start_ns, 0.0);
        prop_assert_eq!(found.critical[found.critical.len() - 1].end_ns, found.total_ns);
        for pair in found.critical.windows(2) {
            prop_assert!(pair[0].start_ns <= pair[1].start_ns && pair[0].end_ns <= pair[1].end_ns);
        }
    }
}
