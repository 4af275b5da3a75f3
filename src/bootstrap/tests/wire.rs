//! Frames read back as they were written, and nothing else is read at all.

use super::*;
use proptest::prelude::*;
use sohu_coll_core::{Collective, DType, Misuse, ReduceOp};
use std::sync::Arc;

fn signature(count: u64) -> Signature {
    Signature {
        collective: Collective::AllReduce,
        dtype: DType::F32,
        op: ReduceOp::Sum,
        algorithm: 0,
        root: Rank(0),
        count,
        sequence: 7,
    }
}

fn errors() -> Vec<Error> {
    vec![
        Error::Mismatch { rank: Rank(0), ours: signature(1), peer: Rank(3), theirs: signature(2) },
        Error::Missing { ranks: vec![Rank(1), Rank(2)], size: 4, waited: Duration::from_millis(1500) },
        Error::Refused("no".into()),
        Error::PeerLost { peer: Rank(2), how: "died", during: "call 3".into() },
        Error::PeerLost { peer: Rank(2), how: "left the communicator", during: "call 3".into() },
        Error::PeerLost { peer: Rank(2), how: "closed its link", during: "call 3".into() },
        Error::Timeout {
            culprits: vec![Rank(1)],
            during: "call 3".into(),
            waited: Duration::from_secs(30),
            why: " (stopped)".into(),
        },
        Error::Corrupt { peer: Rank(1), what: "wrote nonsense".into() },
        Error::Panicked { rank: Rank(3), during: "call 3".into(), what: "index out of bounds".into() },
    ]
}

#[test]
fn errors_arrive_on_other_ranks_as_they_were() {
    for error in errors() {
        let frame = encode(&PeerMessage::Abort(Cause::of(&error, Rank(0))));
        let length = body_bytes(frame[..HEAD_BYTES].try_into().unwrap(), START_BYTES_MAX).unwrap();
        assert_eq!(length, frame.len() - HEAD_BYTES);
        let PeerMessage::Abort(cause) = decode(&frame[HEAD_BYTES..]).unwrap() else { panic!("not an abort") };
        assert_eq!(cause.into_error(), error);
    }
}

#[test]
fn an_error_without_a_form_of_its_own_says_on_which_rank_it_was() {
    let system = Error::System { call: "mmap".into(), errno: 12, hint: String::new() };
    assert!(Cause::of(&system, Rank(4)).into_error().to_string().contains("rank 4: mmap"));
    let misuse = Error::Misuse(Misuse::Root { call: "broadcast", root: 9, size: 2 });
    assert!(Cause::of(&misuse, Rank(4)).into_error().to_string().contains("rank 4: broadcast: root 9"));
}

#[test]
fn what_travels_is_the_first_failure() {
    let first = Error::PeerLost { peer: Rank(2), how: "died", during: "call 1".into() };
    let follows = Error::Aborted { cause: Arc::new(Error::Aborted { cause: Arc::new(first.clone()) }) };
    assert_eq!(Cause::of(&follows, Rank(0)).into_error(), first);
}

#[test]
fn endless_texts_and_facts_are_cut_to_fit_their_frames() {
    let long = Cause::of(&Error::Refused("é".repeat(100_000)), Rank(0));
    assert!(encode(&Start::Failed(long)).len() <= START_BYTES_MAX);
    let facts = HostFacts { pid: u32::MAX, host: "h".repeat(5000), cpus: (0..9000).collect() }.bounded();
    let member = Member { facts, door: [255; JOB_BYTES] };
    assert!(encode(&Start::Join(member.clone(), u64::MAX)).len() <= START_BYTES_MAX);
    assert!(encode(&Start::Roster(vec![member; RANKS_MAX as usize])).len() <= ROSTER_BYTES_MAX);
    let ranks = (0..RANKS_MAX).map(Rank).collect();
    let missing = Error::Missing { ranks, size: RANKS_MAX, waited: Duration::MAX };
    assert!(encode(&Start::Failed(Cause::of(&missing, Rank(0)))).len() <= START_BYTES_MAX);
    let blob = PeerMessage::Blob { round: u32::MAX, file: true, bytes: vec![255; BLOB_BYTES_MAX] };
    assert!(encode(&blob).len() <= PEER_BYTES_MAX);
}

#[test]
fn claimed_lengths_are_bounded_before_they_are_used() {
    for claimed in [0, 101, 1 << 31, u32::MAX, u32::MAX - 3] {
        assert!(body_bytes(claimed.to_le_bytes(), 100).is_err(), "{claimed}");
    }
    assert_eq!(body_bytes(100u32.to_le_bytes(), 100), Ok(100));
    assert_eq!(body_bytes(1u32.to_le_bytes(), 100), Ok(1));
}

#[test]
fn a_list_that_claims_more_than_the_frame_holds_is_refused() {
    // Variant 0 of a blob's round and flag, then a claimed length of 2^63 bytes.
    let mut body = vec![0, 1, 0];
    body.extend([0x80; 9]);
    body.push(1);
    assert!(decode::<PeerMessage>(&body).is_err());
}

#[test]
fn bytes_left_over_are_refused() {
    let mut frame = encode(&Start::Go);
    assert_eq!(decode::<Start>(&frame[HEAD_BYTES..]), Ok(Start::Go));
    frame.push(0);
    assert!(decode::<Start>(&frame[HEAD_BYTES..]).is_err());
}

#[test]
fn the_hello_has_the_layout_that_every_version_reads() {
    assert_eq!(size_of::<Hello>(), 96);
    let mut hello = <Hello as zerocopy::FromZeros>::new_zeroed();
    hello.library = library();
    assert!(hello.version().starts_with(env!("CARGO_PKG_VERSION")));
    hello.library = [0x1b; 16];
    assert!(hello.version().is_ascii() && !hello.version().contains('\x1b'));
}

proptest! {
    #[test]
    fn no_bytes_panic_the_reader(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<PeerMessage>(&body);
        let _ = decode::<Start>(&body);
    }
}
