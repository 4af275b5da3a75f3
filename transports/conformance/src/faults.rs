//! Checks of failure and of lent memory: errors stick, spans come back, closed links are told.

use crate::Harness;
use crate::calls::failures;
use crate::play::{FITS_MAX, begin_all, call, end_all, ranks, recv_all, send_all, until};
use crate::seeded::stream;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{Refused, Window};
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, View, ViewMut};

/// After an error, every method returns an error.
///
/// # Panics
/// When the contract is broken.
pub fn errors_stick<H: Harness>() {
    let mut links = H::links(2);
    links[0].begin(&call(0)).expect("begin");
    links[1].begin(&Signature { count: 1, ..call(0) }).expect("begin");
    failures(&mut links, &[0, 1], |link| link.verify().map(|_| ()));
    for (rank, link) in links.iter_mut().enumerate() {
        let peer = Rank(1 - rank as u32);
        for _ in 0..3 {
            let mut bytes = [0u8; 8];
            let mut work = |_: Window<'_>| panic!("work was called on failed links");
            assert!(link.verify().is_err());
            assert!(link.send(&[peer], View::from(&[1u8][..])).is_err());
            assert!(link.recv(peer, ViewMut::from(&mut bytes[..])).is_err());
            assert!(link.pass(&[peer], &[], 8, 8, &mut work).is_err());
            assert!(link.pass(&[], &[peer], 8, 8, &mut work).is_err());
            assert!(link.poll().is_err());
            assert!(link.settled().is_err());
            assert!(link.begin(&call(1)).is_err());
        }
    }
}

/// A lent span is refused and comes back as it was, or its bytes arrive and it is dropped.
///
/// # Panics
/// When the contract is broken.
pub fn lent_spans_come_back<H: Harness>() {
    for (sequence, len) in [1, 64, 4097, 300_000].into_iter().enumerate() {
        let bytes = stream(51, len);
        let ledger = Ledger::new();
        let loan = Loan::Apart { input: &bytes, output: &mut [] };
        let mut links = H::links(2);
        scope(&ledger, loan, &mut [], |regions| {
            begin_all(&mut links, &call(sequence as u32));
            let span = regions.input.lend(0..len).expect("an empty ledger has room");
            let lends = links[0].caps(Rank(1)).lends;
            let mut sent = match links[0].lend(&[Rank(1)], span) {
                Ok(()) => {
                    assert!(lends, "the link took memory that it says it can not lend");
                    len
                }
                Err(Refused(span)) => {
                    assert_eq!((span.as_ptr(), span.len()), (bytes.as_ptr(), len));
                    0
                }
            };
            let (mut got, mut taken) = (vec![0; len], 0);
            until("carrying lent bytes", &mut links, |links| {
                sent += links[0].send(&[Rank(1)], regions.input.read(sent..len)).expect("send");
                taken += links[1].recv(Rank(0), ViewMut::from(&mut got[taken..])).expect("recv");
                taken == len
            });
            assert!(got == bytes, "other bytes came");
            end_all(&mut links);
            assert_eq!(ledger.out(), 0, "spans are out after the call");
        });
    }
}

/// A posted span is refused and comes back as it was, or the bytes land in it and it is dropped.
///
/// # Panics
/// When the contract is broken.
pub fn posted_spans_come_back<H: Harness>() {
    for (sequence, len) in [1, 64, 4097, 300_000].into_iter().enumerate() {
        let bytes = stream(52, len);
        let mut output = vec![0; len];
        let base = output.as_ptr();
        let ledger = Ledger::new();
        let loan = Loan::Apart { input: &[], output: &mut output };
        let mut links = H::links(2);
        scope(&ledger, loan, &mut [], |regions| {
            begin_all(&mut links, &call(sequence as u32));
            let span = regions.output.post(0..len).expect("an empty ledger has room");
            if let Err(Refused(span)) = links[1].post(Rank(0), 0, span) {
                assert_eq!((span.as_mut_ptr().cast_const(), span.len()), (base, len));
            } else {
                assert!(links[1].caps(Rank(0)).lends, "the link took memory that it says it can not post");
            }
            let (mut sent, mut taken) = (0, 0);
            until("filling posted bytes", &mut links, |links| {
                sent += links[0].send(&[Rank(1)], View::from(&bytes[sent..])).expect("send");
                taken += links[1].recv(Rank(0), regions.output.landing(taken..len)).expect("recv");
                taken == len
            });
            end_all(&mut links);
            assert_eq!(ledger.out(), 0, "spans are out after the call");
        });
        assert!(output == bytes, "other bytes landed");
    }
}

/// A rank that is through with a call may drop its links; those still in the call get all its bytes and
/// go on with each other.
///
/// # Panics
/// When the contract is broken.
pub fn a_peer_that_left_after_the_call_disturbs_nobody<H: Harness>() {
    let bytes = stream(55, FITS_MAX);
    let mut links = H::links(3);
    begin_all(&mut links, &call(0));
    send_all(&mut links, 2, &ranks(&[0, 1]), &bytes);
    end_all(&mut links);
    drop(links.pop());
    for rank in 0..2 {
        assert_eq!(recv_all(&mut links, rank, 2, FITS_MAX), bytes);
        for _ in 0..200 {
            links[rank as usize].poll().expect("poll");
        }
        send_all(&mut links, rank, &[Rank(1 - rank)], &bytes);
        assert_eq!(recv_all(&mut links, 1 - rank, rank, FITS_MAX), bytes);
    }
    end_all(&mut links);
}

/// Bytes that a peer sent before it dropped its links are still received; then the link is closed.
///
/// # Panics
/// When the contract is broken.
pub fn a_dropped_peer_is_closed_once_its_bytes_are_taken<H: Harness>() {
    let bytes = stream(53, FITS_MAX);
    let mut links = H::links(2);
    begin_all(&mut links, &call(0));
    send_all(&mut links, 1, &[Rank(0)], &bytes);
    end_all(&mut links);
    drop(links.pop());
    assert_eq!(recv_all(&mut links, 0, 1, FITS_MAX), bytes);
    let mut more = [7u8; 8];
    let errors = failures(&mut links, &[0], |link| {
        let taken = link.recv(Rank(1), ViewMut::from(&mut more[..]))?;
        assert_eq!(taken, 0, "bytes came from nowhere");
        Ok(())
    });
    assert_eq!(errors, [LinkError::Closed { peer: Rank(1) }]);
    assert_eq!(more, [7; 8]);
}

/// Sending to a peer that dropped its links fails at last, and says who it is.
///
/// # Panics
/// When the contract is broken.
pub fn sends_to_a_dropped_peer_end_in_closed<H: Harness>() {
    let mut links = H::links(3);
    begin_all(&mut links, &call(0));
    end_all(&mut links);
    drop(links.pop());
    let bytes = stream(54, 4096);
    let errors = failures(&mut links, &[0, 1], |link| {
        link.send(&[Rank(2)], View::from(&bytes[..]))?;
        link.poll().map(|_| ())
    });
    assert_eq!(errors, [LinkError::Closed { peer: Rank(2) }, LinkError::Closed { peer: Rank(2) }]);
}

/// A peer that dropped its links before the call never verifies.
///
/// # Panics
/// When the contract is broken.
pub fn verify_of_a_dropped_peer_is_closed<H: Harness>() {
    let mut links = H::links(2);
    drop(links.pop());
    let mut begun = false;
    let errors = failures(&mut links, &[0], |link| {
        if !begun {
            link.begin(&call(0))?;
            begun = true;
        }
        assert!(!link.verify()?, "a peer that is gone verified");
        Ok(())
    });
    assert_eq!(errors, [LinkError::Closed { peer: Rank(1) }]);
}
