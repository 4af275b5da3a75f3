//! Whatever a peer writes into its segment, its victim says that it is corrupt: no crash, and no byte
//! outside the segments.
#![expect(unsafe_code, reason = "a hostile peer maps its segment itself")]

#[allow(dead_code, reason = "lines of other kinds are the matter of other files")]
mod villain;

use rustix::fs::{MemfdFlags, SealFlags};
use sohu_coll_conformance::Seeded;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{Links, Window};
use sohu_coll_mem::line::Line;
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, View, ViewMut};
use sohu_coll_shm::{Layout, Segment, ShmError, ShmLinks};
use std::os::fd::{AsFd, OwnedFd};
use villain::{BOARD, CHUNK, DATA, FIRST, HEADER, LANDED, SINK, STAGING, Villain, call};

const PEER: Rank = Rank(1);

/// Numbers that overflow, wrap, or sit at an edge.
const EDGES: [u64; 12] = [
    0,
    1,
    63,
    4096,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX - 8,
    u64::MAX - 1,
    u64::MAX,
];

fn recv(victim: &mut ShmLinks) -> Result<usize, LinkError> {
    let mut bytes = [0u8; 256];
    victim.recv(PEER, ViewMut::from(&mut bytes[..]))
}

/// The victim of what `attack` wrote says that rank 1 is corrupt, and goes on saying so.
fn corrupt(what: &str, attack: impl FnOnce(&mut Villain)) {
    let (mut villain, mut victim) = Villain::new();
    attack(&mut villain);
    let told = recv(&mut victim);
    let Err(LinkError::Corrupt { peer: PEER, .. }) = told else { panic!("{what}: {told:?}") };
    assert_eq!(victim.verify().map(|_| 0), told, "{what}");
    assert_eq!(victim.poll().map(|_| 0), told, "{what}");
}

#[test]
fn lines_of_unknown_kind_are_corrupt() {
    for kind in [0, 7, 0x7f] {
        corrupt("an unknown kind in the first line", |villain| {
            villain.put(FIRST | kind, 8, &[]);
        });
        corrupt("an unknown kind", |villain| {
            villain.open().put(kind, 8, &[]);
        });
    }
}

#[test]
fn a_call_that_does_not_start_with_a_signature_is_corrupt() {
    for kind in [DATA, CHUNK, LANDED, HEADER, 9] {
        corrupt("a line before the signature", |villain| {
            villain.put(kind, 8, &[villain.layout.staging().start as u64, 8]);
        });
    }
    for words in [[0, 0], [u64::MAX, u64::MAX], [0xff, 1000]] {
        corrupt("a signature of no call", |villain| {
            let [a, b] = words;
            villain.line(Line { kind: FIRST | HEADER, words: [a, b, 0, 0, 0, 0, 0], ..Line::default() });
        });
    }
}

#[test]
fn headers_that_are_not_first_are_corrupt() {
    corrupt("a second header", |villain| {
        villain.open().put(HEADER, 0, &[]);
    });
}

#[test]
fn lines_that_claim_more_bytes_than_they_have_are_corrupt() {
    for len in [0, 41, 56, 57, 255] {
        corrupt("the length of a first line", |villain| {
            villain.put(FIRST | DATA, len, &[]);
        });
    }
    for len in [0, 57, 58, 128, 255] {
        corrupt("the length of a line", |villain| {
            villain.open().put(DATA, len, &[]);
        });
    }
}

#[test]
fn chunks_outside_the_segment_are_corrupt() {
    let (villain, _victim) = Villain::new();
    let (start, end) = (villain.layout.staging().start as u64, villain.layout.len() as u64);
    let mut bad: Vec<[u64; 2]> =
        vec![[start - 1, 1], [start, 0], [end, 1], [end - 1, 2], [start, end - start + 1]];
    bad.extend(EDGES.iter().filter(|offset| **offset < start || **offset >= end).map(|offset| [*offset, 8]));
    bad.extend(EDGES.iter().filter(|len| **len == 0 || **len > end).map(|len| [start, *len]));
    bad.extend(EDGES.iter().map(|edge| [u64::MAX - 8, *edge]));
    // Sums that wrap to something that looks good.
    bad.extend([[end - 8, u64::MAX - 7], [start + 8, u64::MAX], [u64::MAX - 7, start + 16]]);
    for words in bad {
        corrupt(&format!("a chunk at {words:x?}"), |villain| {
            villain.open().put(CHUNK, 0, &words);
        });
    }
    // The edges that are inside.
    for words in [[start, 1], [end - 1, 1], [start, end - start]] {
        let (mut villain, mut victim) = Villain::new();
        villain.open().put(CHUNK, 0, &words);
        assert_eq!(recv(&mut victim), Ok(words[1].min(256) as usize), "a chunk at {words:x?}");
    }
}

#[test]
fn sinks_outside_the_heap_are_corrupt() {
    let (villain, _victim) = Villain::new();
    let heap = villain.layout.heap();
    let (start, end) = (heap.start as u64, heap.end as u64);
    let mut bad: Vec<[u64; 3]> = vec![[0, start - 1, 2], [0, start, 0], [0, end, 1], [0, end - 1, 2]];
    bad.extend(EDGES.iter().filter(|edge| **edge < start || **edge >= end).map(|edge| [0, *edge, 8]));
    bad.extend(EDGES.iter().filter(|edge| **edge == 0 || **edge > end).map(|edge| [0, start, *edge]));
    bad.extend([[0, end - 8, u64::MAX - 7], [0, u64::MAX - 7, start + 16]]);
    for words in bad {
        corrupt(&format!("a sink at {words:x?}"), |villain| {
            villain.open().put(SINK, 0, &words);
        });
    }
}

#[test]
fn sinks_out_of_order_or_at_positions_that_wrap_are_corrupt() {
    let (villain, _victim) = Villain::new();
    let heap = villain.layout.heap().start as u64;
    corrupt("sinks that overlap", |villain| {
        villain.open().put(SINK, 0, &[4096, heap, 4096]).put(SINK, 0, &[8191, heap, 64]);
    });
    for at in [u64::MAX, u64::MAX - 63] {
        corrupt("a sink whose end wraps", |villain| {
            villain.open().put(SINK, 0, &[at, heap, 64]);
        });
        corrupt("a sink whose end wraps, after a good one", |villain| {
            villain.open().put(SINK, 0, &[0, heap, 64]).put(SINK, 0, &[at, heap, 64]);
        });
    }
}

#[test]
fn more_sinks_than_a_peer_may_open_are_corrupt() {
    corrupt("17 sinks", |villain| {
        let heap = villain.layout.heap().start as u64;
        villain.open();
        for index in 0..17 {
            villain.put(SINK, 0, &[index * 64, heap, 64]);
        }
    });
}

#[test]
fn bytes_that_landed_where_nothing_was_posted_are_corrupt() {
    for len in EDGES {
        corrupt("landed without a sink", |villain| {
            villain.open().put(LANDED, 0, &[len]);
        });
    }
}

#[test]
fn more_bytes_than_were_posted_can_not_land() {
    for (len, good) in [(0, false), (1, true), (4096, true), (4097, false), (u64::MAX, false)] {
        let (mut villain, mut victim) = Villain::new();
        let mut output = victim.heap().alloc(4096).expect("the heap is empty");
        let ledger = Ledger::new();
        let loan = Loan::Apart { input: &[], output: &mut output };
        scope(&ledger, loan, &mut [], |regions| {
            let span = regions.output.post(0..4096).expect("an empty ledger has room");
            victim.post(PEER, 0, span).expect("registered memory can be posted");
            villain.open().put(LANDED, 0, &[len]);
            let told = victim.recv(PEER, regions.output.landing(0..4096));
            match told {
                Ok(taken) => assert!(good && taken as u64 == len, "{taken} of {len} bytes landed"),
                Err(error) => {
                    assert!(!good && matches!(error, LinkError::Corrupt { peer: PEER, .. }), "{error}")
                }
            }
            victim.abandon();
        });
    }
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_corrupt() {
    for (lines_ack, chunks_ack) in [(1, 0), (0, 1), (0x7fff, 0), (0, 0xffff), (0xc000, 0x4000)] {
        corrupt("acknowledged in a line", |villain| {
            villain.line(Line {
                kind: FIRST | DATA,
                len: 8,
                lines_ack,
                chunks_ack,
                words: [call(0).to_words()[0], call(0).to_words()[1], 0, 0, 0, 0, 0],
            });
        });
    }
    for (lines, chunks) in [(65, 0), (0, 65), (0x8000, 0), (0, 0xffff), (u64::from(u16::MAX), 1)] {
        let (mut villain, mut victim) = Villain::new();
        villain.open().credit(lines, chunks);
        assert_eq!(victim.verify(), Ok(true));
        // The credit word is read when the victim runs out of lines.
        let told = loop {
            match victim.send(&[PEER], View::from(&[7u8; 8][..])) {
                Ok(moved) => assert!(moved > 0, "credit of {lines} lines, {chunks} chunks was ignored"),
                Err(error) => break error,
            }
        };
        assert!(matches!(told, LinkError::Corrupt { peer: PEER, .. }), "{told}");
    }
}

#[test]
fn a_line_with_a_wrong_turn_is_found_by_check() {
    for turn in [2u64, 3, 0x8000, 0xffff] {
        let (mut villain, mut victim) = Villain::new();
        villain.poke(villain.layout.lines(0), turn);
        assert_eq!(recv(&mut victim), Ok(0), "turn {turn} is not the one that comes");
        let told = victim.check();
        assert!(matches!(told, Err(LinkError::Corrupt { peer: PEER, .. })), "turn {turn}: {told:?}");
    }
    let (mut villain, mut victim) = Villain::new();
    assert_eq!(victim.check(), Ok(()));
    villain.open();
    assert_eq!(victim.check(), Ok(()));
}

#[test]
fn bytes_past_the_end_of_a_call_are_corrupt_in_the_next() {
    let (mut villain, mut victim) = Villain::new();
    villain.open().put(DATA, 8, &[1]).put(DATA, 8, &[2]);
    let mut bytes = [0u8; 8];
    assert_eq!(victim.recv(PEER, ViewMut::from(&mut bytes[..])), Ok(8));
    victim.begin(&call(1)).expect("nobody has looked at the next line yet");
    assert!(matches!(recv(&mut victim), Err(LinkError::Corrupt { peer: PEER, .. })));

    let (mut villain, mut victim) = Villain::new();
    villain.open().put(DATA, 8, &[1]).put(DATA, 8, &[2]);
    assert_eq!(victim.recv(PEER, ViewMut::from(&mut bytes[..])), Ok(8));
    assert_eq!(victim.recv(PEER, ViewMut::EMPTY), Ok(0));
    assert!(matches!(victim.begin(&call(1)), Err(LinkError::Corrupt { peer: PEER, .. })));
}

/// Any lines and credits at all: whatever the victim does, it ends in an error that names the villain, or not
/// at all.
#[test]
fn random_lines_never_crash_the_victim() {
    let mut failures = 0;
    for seed in 0..3000 {
        let mut random = Seeded::new(seed);
        let (mut villain, mut victim) = Villain::new();
        let mut output = victim.heap().alloc(8192).expect("the heap is empty");
        let ledger = Ledger::new();
        let loan = Loan::Shared { buffer: &mut output, input: 0..8192, output: 0..8192 };
        scope(&ledger, loan, &mut [], |regions| {
            if let Some(span) = regions.output.post(0..4096) {
                victim.post(PEER, 0, span).expect("registered memory can be posted");
            }
            if let Some(span) = regions.input.lend(4096..8192) {
                victim.lend(&[PEER], span).expect("registered memory can be lent");
            }
            villain.open();
            for _ in 0..random.below(40) {
                garbage(&mut random, &mut villain);
            }
            let told = act(&mut random, &mut victim, |range| regions.output.landing(range));
            victim.abandon();
            let Err(error) = told else { return };
            failures += 1;
            let fair = matches!(
                error,
                LinkError::Corrupt { peer: PEER, .. } | LinkError::Mismatch { peer: PEER, .. }
            );
            assert!(fair, "seed {seed}: {error}");
        });
    }
    assert!(failures > 1000, "only {failures} attacks were noticed");
}

fn number(random: &mut Seeded, layout: &Layout) -> u64 {
    let near = random.below(3) as u64;
    match random.below(5) {
        0 => EDGES[random.below(EDGES.len())],
        1 => (layout.staging().start + random.below(STAGING)) as u64,
        2 => layout.heap().start as u64 + near * 4096,
        3 => (layout.len() as u64 + 1).wrapping_sub(near),
        _ => near * 1000,
    }
}

fn garbage(random: &mut Seeded, villain: &mut Villain) {
    let layout = villain.layout;
    let kind = [DATA, DATA, CHUNK, CHUNK, SINK, LANDED, BOARD, FIRST | HEADER, HEADER, 77][random.below(10)];
    let len = [8, 8, 1, 56, 0, 57, 255][random.below(7)];
    let words: Vec<u64> = (0..3).map(|_| number(random, &layout)).collect();
    villain.put(kind, len, &words);
    if random.below(8) == 0 {
        villain.credit(random.below(4) as u64, random.below(3) as u64);
    }
}

/// Uses links in all ways, in random order.
fn act<'a>(
    random: &mut Seeded,
    victim: &mut ShmLinks,
    landing: impl Fn(core::ops::Range<usize>) -> ViewMut<'a>,
) -> Result<(), LinkError> {
    let mut taken = 0;
    for _ in 0..60 {
        match random.below(7) {
            0 => drop(victim.verify()?),
            1 => drop(victim.poll()?),
            2 => drop(victim.settled()?),
            3 => victim.check()?,
            4 => drop(victim.send(&[PEER], View::from(&vec![1u8; 1 + random.below(5000)][..]))?),
            5 => {
                let mut work = |window: Window<'_>| {
                    let mut bytes = vec![0; window.incoming[0].len()];
                    window.incoming[0].copy_to(ViewMut::from(&mut bytes[..]));
                };
                taken += victim.pass(&[PEER], &[], 64, [1, 8][random.below(2)], &mut work)?;
            }
            _ => {
                let end = (taken + 1 + random.below(200)).min(4096);
                taken += victim.recv(PEER, landing(taken.min(end)..end))?;
            }
        }
        taken = taken.min(4096);
    }
    Ok(())
}

/// What rank 0 says to a rank 1 that hands over `fd`.
fn handed(fd: Option<&OwnedFd>) -> ShmError {
    let layout = Layout::new(2, STAGING, 4096);
    let segment = Segment::create(layout).expect("a memfd can be made");
    let told = ShmLinks::join(Rank(0), segment, &[None, fd.map(AsFd::as_fd)]);
    let (peer, error) = told.expect_err("such a segment must not be mapped");
    assert_eq!(peer, PEER);
    error
}

fn memfd(bytes: usize, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let fd = fd.expect("a memfd can be made");
    rustix::fs::ftruncate(&fd, bytes as u64).expect("it can be sized");
    if !seals.is_empty() {
        rustix::fs::fcntl_add_seals(&fd, seals).expect("it can be sealed");
    }
    fd
}

#[test]
fn segments_that_are_not_as_agreed_are_not_mapped() {
    let bytes = Layout::new(2, STAGING, 4096).len();
    let sealed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    for bytes in [0, 1, bytes - 4096, bytes - 1, bytes + 1, bytes * 2] {
        let error = handed(Some(&memfd(bytes, sealed)));
        assert!(matches!(&error, ShmError::Hostile(what) if what.contains("bytes")), "{bytes}: {error}");
    }
    for seals in [
        SealFlags::empty(),
        SealFlags::SHRINK,
        SealFlags::SHRINK | SealFlags::GROW,
        SealFlags::GROW | SealFlags::SEAL,
        SealFlags::SHRINK | SealFlags::SEAL,
    ] {
        let error = handed(Some(&memfd(bytes, seals)));
        assert!(matches!(&error, ShmError::Hostile(what) if what.contains("sealed")), "{seals:?}: {error}");
    }
    assert!(matches!(handed(None), ShmError::Hostile(_)));
    let null = std::fs::File::open("/dev/null").expect("there is one").into();
    assert!(matches!(handed(Some(&null)), ShmError::Hostile(_)));
}

#[test]
fn nobody_can_cut_a_segment_that_is_mapped() {
    let segment = Segment::create(Layout::new(2, STAGING, 4096)).expect("a memfd can be made");
    let len = segment.layout().len() as u64;
    assert!(rustix::fs::ftruncate(segment.fd(), len - 4096).is_err());
    assert!(rustix::fs::ftruncate(segment.fd(), len + 4096).is_err());
    assert!(rustix::fs::fcntl_add_seals(segment.fd(), SealFlags::WRITE).is_err());
}
