//! Checks of calls: signatures are compared before bytes are handed over, and calls never mix.

use crate::Harness;
use crate::play::{Flow, Patience, Script, begin_all, call, end_all, ranks, recv_all, send_all, until};
use crate::seeded::stream;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{Links, Window};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::{View, ViewMut};

/// How often something that must not happen is given the chance to.
const TRIES: u32 = 200;

/// Calls that move no bytes begin and end, on any number of ranks, one included.
///
/// # Panics
/// When the contract is broken.
pub fn calls_without_bytes_end<H: Harness>() {
    for size in 1..=4 {
        Script { seed: 41, calls: 50, flows: &|_| Vec::new() }.play(&mut H::links(size));
    }
}

/// Thousands of calls of 8 bytes, back to back: rings wrap, sequences run on.
///
/// # Panics
/// When the contract is broken.
pub fn many_small_calls_follow_each_other<H: Harness>() {
    let both = |_| vec![Flow::new(0, &[1], 8), Flow::new(1, &[0], 8)];
    Script { seed: 42, calls: H::CALLS, flows: &both }.play(&mut H::links(2));
    let circle = |_| (0..3).map(|from| Flow::new(from, &[(from + 1) % 3, (from + 2) % 3], 8)).collect();
    Script { seed: 43, calls: H::CALLS / 10, flows: &circle }.play(&mut H::links(3));
}

/// A rank that is done goes on to its next call, and even sends in it, while a peer still takes bytes of
/// the last one.
///
/// # Panics
/// When the contract is broken.
pub fn a_call_may_begin_while_a_peer_is_in_the_last<H: Harness>() {
    let (first, second) = (stream(1, 1000), stream(2, 500));
    let mut links = H::links(3);
    begin_all(&mut links, &call(0));
    let receivers = ranks(&[1, 2]);
    send_all(&mut links, 0, &receivers, &first);
    assert_eq!(recv_all(&mut links, 1, 0, 400), first[..400]);
    end_all(&mut links);
    links[0].begin(&call(1)).expect("begin");
    send_all(&mut links, 0, &receivers, &second);
    for _ in 0..TRIES {
        assert!(!links[0].verify().expect("verify"), "nobody else is in this call yet");
    }
    assert_eq!(recv_all(&mut links, 1, 0, 600), first[400..]);
    assert_eq!(recv_all(&mut links, 2, 0, 1000), first);
    for late in [2, 1] {
        until("settling", &mut links, |links| links[late].settled().expect("settled"));
        links[late].begin(&call(1)).expect("begin");
    }
    assert_eq!(recv_all(&mut links, 1, 0, 500), second);
    assert_eq!(recv_all(&mut links, 2, 0, 500), second);
    end_all(&mut links);
}

/// `verify` says yes when every peer is in the call, not before, and then keeps saying it.
///
/// # Panics
/// When the contract is broken.
pub fn verify_waits_for_every_peer_and_is_cheap_to_repeat<H: Harness>() {
    let mut links = H::links(3);
    links[0].begin(&call(0)).expect("begin");
    links[1].begin(&call(0)).expect("begin");
    for _ in 0..TRIES {
        assert!(!links[0].verify().expect("verify"), "rank 2 has not begun");
        assert!(!links[1].verify().expect("verify"), "rank 2 has not begun");
    }
    links[2].begin(&call(0)).expect("begin");
    end_all(&mut links);
    for link in &mut links {
        until_true(|| link.verify().expect("verify"));
    }
}

/// Repeats a step that may refuse at times.
fn until_true(mut step: impl FnMut() -> bool) {
    let mut patience = Patience::new();
    while !step() {
        patience.note(false, &|| "a step that never says yes".to_owned());
    }
}

/// Repeats `step` on every rank of `on` until it has failed on each; returns the errors.
pub(crate) fn failures(
    links: &mut [Box<dyn Links>],
    on: &[usize],
    mut step: impl FnMut(&mut dyn Links) -> Result<(), LinkError>,
) -> Vec<LinkError> {
    let mut errors: Vec<Option<LinkError>> = vec![None; on.len()];
    let mut patience = Patience::new();
    while errors.iter().any(Option::is_none) {
        for (rank, error) in on.iter().zip(&mut errors) {
            if error.is_none() {
                *error = step(links[*rank].as_mut()).err();
            }
        }
        patience.note(false, &|| format!("ranks {on:?} failed with {errors:?} only"));
    }
    errors.into_iter().flatten().collect()
}

/// Two calls that differ.
fn two_calls() -> (Signature, Signature) {
    (call(3), Signature { count: 999, ..call(3) })
}

/// With nothing sent at all, `verify` tells every rank of the one that made another call, and that one too.
///
/// # Panics
/// When the contract is broken.
pub fn verify_finds_another_call_on_every_side<H: Harness>() {
    let (most, odd) = two_calls();
    let mut links = H::links(3);
    for (link, signature) in links.iter_mut().zip([most, most, odd]) {
        link.begin(&signature).expect("begin");
    }
    let errors = failures(&mut links, &[0, 1, 2], |link| link.verify().map(|_| ()));
    let told = LinkError::Mismatch { peer: Rank(2), ours: most, theirs: odd };
    assert_eq!(errors[..2], [told.clone(), told]);
    match &errors[2] {
        LinkError::Mismatch { peer, ours, theirs } => {
            assert!(peer.0 < 2 && *ours == odd && *theirs == most, "{}", errors[2]);
        }
        other => panic!("rank 2 was told {other}"),
    }
}

/// Bytes of a peer's other call are never received.
///
/// # Panics
/// When the contract is broken.
pub fn recv_hands_over_nothing_of_another_call<H: Harness>() {
    let (theirs, ours) = two_calls();
    let mut links = H::links(2);
    links[0].begin(&theirs).expect("begin");
    links[1].begin(&ours).expect("begin");
    send_some(links[0].as_mut());
    let mut bytes = [7u8; 64];
    let errors =
        failures(&mut links, &[1], |link| link.recv(Rank(0), ViewMut::from(&mut bytes[..])).map(nothing));
    assert_eq!(errors, [LinkError::Mismatch { peer: Rank(0), ours, theirs }]);
    assert_eq!(bytes, [7; 64]);
}

/// Bytes of a peer's other call are never shown to the work of a pass.
///
/// # Panics
/// When the contract is broken.
pub fn pass_hands_over_nothing_of_another_call<H: Harness>() {
    let (theirs, ours) = two_calls();
    let mut links = H::links(3);
    links[0].begin(&ours).expect("begin");
    links[1].begin(&ours).expect("begin");
    links[2].begin(&theirs).expect("begin");
    send_some(links[0].as_mut());
    send_some(links[2].as_mut());
    let errors = failures(&mut links, &[1], |link| {
        let mut work = |_: Window<'_>| panic!("work saw bytes of another call");
        link.pass(&ranks(&[0, 2]), &[Rank(0)], 64, 8, &mut work).map(nothing)
    });
    assert_eq!(errors, [LinkError::Mismatch { peer: Rank(2), ours, theirs }]);
}

/// Sends bytes to rank 1, until some are under way.
fn send_some(link: &mut dyn Links) {
    until_true(|| {
        link.poll().expect("poll");
        link.send(&[Rank(1)], View::from(&[9u8; 64][..])).expect("send") > 0
    });
    for _ in 0..TRIES {
        link.poll().expect("poll");
    }
}

fn nothing(moved: usize) {
    assert_eq!(moved, 0, "bytes of another call were handed over");
}

/// Every field of the signature counts.
///
/// # Panics
/// When the contract is broken.
pub fn every_field_of_the_signature_is_compared<H: Harness>() {
    let ours = call(u32::MAX);
    let others = [
        Signature { collective: Collective::Broadcast, ..ours },
        Signature { dtype: DType::Fp8E5m2, ..ours },
        Signature { op: ReduceOp::Avg, ..ours },
        Signature { algorithm: u8::MAX, ..ours },
        Signature { root: Rank(u32::from(u16::MAX)), ..ours },
        Signature { count: Signature::COUNT_MAX, ..ours },
        Signature { sequence: 0, ..ours },
    ];
    for theirs in others {
        let mut links = H::links(2);
        links[0].begin(&ours).expect("begin");
        links[1].begin(&theirs).expect("begin");
        let errors = failures(&mut links, &[0, 1], |link| link.verify().map(|_| ()));
        let here = LinkError::Mismatch { peer: Rank(1), ours, theirs };
        let there = LinkError::Mismatch { peer: Rank(0), ours: theirs, theirs: ours };
        assert_eq!(errors, [here, there]);
    }
}
