//! Checks of passes: one trip over memory from several sources to several destinations.

use crate::Harness;
use crate::play::{begin_all, bytes_of, call, end_all, ranks, recv_all, send_all, until};
use crate::seeded::{Seeded, stream};
use sohu_coll_core::Rank;
use sohu_coll_core::link::{Links, Window};
use sohu_coll_mem::{View, ViewMut};

/// How often a pass that can not move is tried.
const TRIES: u32 = 200;

/// Writes `bytes` where the window's go.
fn put(window: &Window<'_>, bytes: &[u8]) {
    let into = window.outgoing.expect("the pass has destinations");
    View::from(bytes).copy_to(into);
}

/// Tries to send what is left of `bytes`.
fn offer(link: &mut dyn Links, to: &[Rank], bytes: &[u8], sent: &mut usize) {
    *sent += link.send(to, View::from(&bytes[*sent..])).expect("send");
}

/// Tries to take what is left of `bytes`.
fn take(link: &mut dyn Links, from: u32, bytes: &mut [u8], taken: &mut usize) {
    *taken += link.recv(Rank(from), ViewMut::from(&mut bytes[*taken..])).expect("recv");
}

/// Rank 0 combines what ranks 1 and 2 send and forwards it to 3 and back to 1; sources keep their order.
///
/// # Panics
/// When the contract is broken.
pub fn a_pass_folds_sources_and_forwards_to_all<H: Harness>() {
    let len = H::LARGE_BYTES / 16 / 4 * 4;
    let (first, second) = (stream(1, len), stream(2, len));
    let expected: Vec<u8> = first.iter().zip(&second).map(|(a, b)| a.wrapping_mul(3) ^ b).collect();
    let mut links = H::links(4);
    begin_all(&mut links, &call(0));
    let (mut sent, mut passed) = ([0, 0], 0);
    let mut got = [vec![0; len], vec![0; len]];
    let mut taken = [0, 0];
    until("passing", &mut links, |links| {
        offer(links[1].as_mut(), &[Rank(0)], &first, &mut sent[0]);
        offer(links[2].as_mut(), &[Rank(0)], &second, &mut sent[1]);
        let mut work = |window: Window<'_>| {
            assert_eq!(window.incoming.len(), 2);
            let (a, b) = (bytes_of(window.incoming[0]), bytes_of(window.incoming[1]));
            assert_eq!(a.len(), b.len());
            let folded: Vec<u8> = a.iter().zip(&b).map(|(a, b)| a.wrapping_mul(3) ^ b).collect();
            put(&window, &folded);
        };
        let limit = len - passed;
        passed += links[0].pass(&ranks(&[1, 2]), &ranks(&[3, 1]), limit, 4, &mut work).expect("pass");
        take(links[3].as_mut(), 0, &mut got[0], &mut taken[0]);
        take(links[1].as_mut(), 0, &mut got[1], &mut taken[1]);
        taken == [len, len]
    });
    assert_eq!(passed, len);
    assert!(got[0] == expected, "rank 3 got other bytes than were forwarded");
    assert!(got[1] == expected, "rank 1 got other bytes than were forwarded");
    end_all(&mut links);
}

/// A pass from a peer back to that peer.
///
/// # Panics
/// When the contract is broken.
pub fn a_pass_to_its_own_source_keeps_both_streams_apart<H: Harness>() {
    let len = H::LARGE_BYTES / 16 / 8 * 8;
    let bytes = stream(3, len);
    let expected: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(1)).collect();
    let mut links = H::links(2);
    begin_all(&mut links, &call(0));
    let (mut sent, mut passed, mut taken) = (0, 0, 0);
    let mut got = vec![0; len];
    until("passing", &mut links, |links| {
        offer(links[1].as_mut(), &[Rank(0)], &bytes, &mut sent);
        let mut work = |window: Window<'_>| {
            let turned: Vec<u8> =
                bytes_of(window.incoming[0]).iter().map(|byte| byte.wrapping_add(1)).collect();
            put(&window, &turned);
        };
        let limit = (len - passed).min(32_768);
        passed += links[0].pass(&[Rank(1)], &[Rank(1)], limit, 8, &mut work).expect("pass");
        take(links[1].as_mut(), 0, &mut got, &mut taken);
        taken == len
    });
    assert!(got == expected, "other bytes came back");
    end_all(&mut links);
}

/// A pass with no destination gives `work` no room and takes the bytes.
///
/// # Panics
/// When the contract is broken.
pub fn a_pass_without_destinations_only_takes<H: Harness>() {
    let bytes = stream(4, 3000);
    let mut links = H::links(2);
    begin_all(&mut links, &call(0));
    send_all(&mut links, 1, &[Rank(0)], &bytes);
    let mut got = Vec::new();
    until("passing", &mut links, |links| {
        let limit = bytes.len() - got.len();
        let before = got.len();
        let mut work = |window: Window<'_>| {
            assert!(window.outgoing.is_none());
            got.extend(bytes_of(window.incoming[0]));
        };
        let passed = links[0].pass(&[Rank(1)], &[], limit, 1, &mut work).expect("pass");
        assert_eq!(got.len(), before + passed);
        got.len() == bytes.len()
    });
    assert_eq!(got, bytes);
    end_all(&mut links);
}

/// A pass with no source gives `work` room only, and what it writes goes to every destination.
///
/// # Panics
/// When the contract is broken.
pub fn a_pass_without_sources_only_gives<H: Harness>() {
    let bytes = stream(5, 3000);
    let mut links = H::links(3);
    begin_all(&mut links, &call(0));
    let mut passed = 0;
    until("passing", &mut links, |links| {
        let at = passed;
        let mut work = |window: Window<'_>| {
            assert!(window.incoming.is_empty());
            let room = window.outgoing.expect("the pass has destinations").len();
            put(&window, &bytes[at..at + room]);
        };
        passed += links[0].pass(&[], &ranks(&[2, 1]), bytes.len() - at, 4, &mut work).expect("pass");
        passed == bytes.len()
    });
    assert_eq!(recv_all(&mut links, 1, 0, bytes.len()), bytes);
    assert_eq!(recv_all(&mut links, 2, 0, bytes.len()), bytes);
    end_all(&mut links);
}

/// A pass moves a multiple of the granule and no more than the limit, and calls `work` once when it moves
/// and not at all when it does not.
///
/// # Panics
/// When the contract is broken.
pub fn a_pass_keeps_to_granule_and_limit<H: Harness>() {
    let mut random = Seeded::new(6);
    let bytes = stream(6, 24_000);
    let mut links = H::links(2);
    begin_all(&mut links, &call(0));
    let (mut sent, mut got) = (0, Vec::new());
    until("passing", &mut links, |links| {
        let piece = random.piece((bytes.len() - sent).min(100));
        let granule = [1, 2, 4, 8][random.below(4)];
        let left = bytes.len() - got.len();
        let limit = (1 + random.below(60)).min(left / 8) * 8;
        sent += links[1].send(&[Rank(0)], View::from(&bytes[sent..sent + piece])).expect("send");
        let mut calls = 0;
        let before = got.len();
        let mut work = |window: Window<'_>| {
            calls += 1;
            got.extend(bytes_of(window.incoming[0]));
        };
        // Bytes that do not make an element of 8 yet are taken in smaller ones, so the limit may be 0 or 1.
        let (limit, granule) = if limit == 0 { (left, 1) } else { (limit, granule) };
        let passed = links[0].pass(&[Rank(1)], &[], limit, granule, &mut work).expect("pass");
        assert!(passed <= limit && passed.is_multiple_of(granule), "{passed} of {limit} in {granule}s");
        assert_eq!(calls, u32::from(passed > 0), "calls of work for {passed} bytes");
        assert_eq!(got.len(), before + passed);
        got.len() == bytes.len()
    });
    assert_eq!(got, bytes);
    end_all(&mut links);
}

/// A pass whose second source has sent nothing moves nothing, and the first one's bytes stay.
///
/// # Panics
/// When the contract is broken.
pub fn a_pass_waits_for_every_source<H: Harness>() {
    let (first, second) = (stream(7, 512), stream(8, 512));
    let mut links = H::links(3);
    begin_all(&mut links, &call(0));
    send_all(&mut links, 1, &[Rank(0)], &first);
    for _ in 0..TRIES {
        let mut work = |_: Window<'_>| panic!("work was called while a source had nothing");
        assert_eq!(links[0].pass(&ranks(&[1, 2]), &[], 512, 8, &mut work).expect("pass"), 0);
        links[0].poll().expect("poll");
    }
    send_all(&mut links, 2, &[Rank(0)], &second);
    let mut got = (Vec::new(), Vec::new());
    until("passing", &mut links, |links| {
        let limit = 512 - got.0.len();
        let mut work = |window: Window<'_>| {
            got.0.extend(bytes_of(window.incoming[0]));
            got.1.extend(bytes_of(window.incoming[1]));
        };
        links[0].pass(&ranks(&[1, 2]), &[], limit, 8, &mut work).expect("pass");
        got.0.len() == 512
    });
    assert_eq!(got, (first, second));
    end_all(&mut links);
}

/// A pass towards a link that is full moves nothing, and the source's bytes stay.
///
/// # Panics
/// When the contract is broken.
pub fn a_pass_without_room_takes_nothing<H: Harness>() {
    let bytes = stream(9, 2048);
    let mut links = H::links(3);
    begin_all(&mut links, &call(0));
    let filled = crate::streams::send_until_full(&mut links, &[Rank(1)], &bytes);
    send_all(&mut links, 2, &[Rank(0)], &bytes);
    for _ in 0..TRIES {
        let mut work = |_: Window<'_>| panic!("work was called without room");
        assert_eq!(links[0].pass(&[Rank(2)], &[Rank(1)], 2048, 8, &mut work).expect("pass"), 0);
        links[0].poll().expect("poll");
    }
    recv_all(&mut links, 1, 0, filled);
    let (mut passed, mut taken) = (0, 0);
    let mut got = vec![0; 2048];
    until("passing", &mut links, |links| {
        let mut work = |window: Window<'_>| put(&window, &bytes_of(window.incoming[0]));
        passed += links[0].pass(&[Rank(2)], &[Rank(1)], 2048 - passed, 8, &mut work).expect("pass");
        take(links[1].as_mut(), 0, &mut got, &mut taken);
        taken == 2048
    });
    assert_eq!(got, bytes);
    end_all(&mut links);
}

/// Elements that arrive in parts, from any position of the stream, are handed over whole.
///
/// # Panics
/// When the contract is broken.
pub fn passes_of_elements_survive_odd_pieces<H: Harness>() {
    let len = 40_003;
    let bytes = stream(10, len);
    let mut random = Seeded::new(10);
    let mut links = H::links(3);
    begin_all(&mut links, &call(0));
    let (mut sent, mut taken, mut forwarded) = (0, 0, 0);
    let mut got = vec![0; len];
    let mut last = vec![0; len];
    // Three bytes are received first, so that every element lies across the transport's own boundaries.
    until("passing", &mut links, |links| {
        let piece = random.piece((len - sent).min(77));
        sent += links[1].send(&[Rank(0)], View::from(&bytes[sent..sent + piece])).expect("send");
        if taken < 3 {
            let mut work = |window: Window<'_>| {
                let seen = bytes_of(window.incoming[0]);
                got[taken..taken + seen.len()].copy_from_slice(&seen);
                put(&window, &seen);
            };
            taken += links[0].pass(&[Rank(1)], &[Rank(2)], 3 - taken, 1, &mut work).expect("pass");
        } else {
            let mut work = |window: Window<'_>| {
                let seen = bytes_of(window.incoming[0]);
                assert!(seen.len().is_multiple_of(8));
                got[taken..taken + seen.len()].copy_from_slice(&seen);
                put(&window, &seen);
            };
            taken += links[0].pass(&[Rank(1)], &[Rank(2)], len - taken, 8, &mut work).expect("pass");
        }
        take(links[2].as_mut(), 0, &mut last, &mut forwarded);
        forwarded == len
    });
    assert!(got == bytes && last == bytes, "elements were torn");
    end_all(&mut links);
}
