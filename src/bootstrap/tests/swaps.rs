//! Swaps of bytes and file descriptors among all ranks.

use super::*;
use rustix::fs::{MemfdFlags, memfd_create};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant as StdInstant;

fn later() -> StdInstant {
    StdInstant::now() + LONG
}

/// What each rank got from doing `work` at the same time as the others.
fn each<T: Send>(meshes: Vec<Mesh>, work: impl Fn(Mesh) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let ranks: Vec<_> = meshes.into_iter().map(|mesh| scope.spawn(|| work(mesh))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn file_saying(text: &[u8]) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::write(&file, text).unwrap(), text.len());
    file
}

fn said_by(file: &OwnedFd) -> Vec<u8> {
    let mut text = [0; 64];
    let bytes = rustix::io::pread(file, &mut text, 0).unwrap();
    text[..bytes].to_vec()
}

#[test]
fn every_rank_gets_every_blob_in_every_round() {
    for bytes in [0, 1, 4095, wire::BLOB_BYTES_MAX] {
        each(job(4), |mut mesh| {
            let own = mesh.rank();
            for round in 0..3u8 {
                let blob = |rank: u32| vec![rank as u8 * 16 + round; bytes];
                let swapped = mesh.swap(&blob(own.0), None, later()).unwrap();
                for (rank, (theirs, file)) in swapped.iter().enumerate() {
                    let expected = if rank == own.index() { Vec::new() } else { blob(rank as u32) };
                    assert_eq!(*theirs, expected, "round {round}, {own} from rank {rank}");
                    assert!(file.is_none());
                }
            }
        });
    }
}

#[test]
fn every_rank_gets_the_file_of_every_other() {
    each(job(3), |mut mesh| {
        let own = mesh.rank();
        for round in 0..2 {
            let text = |rank: usize| format!("rank {rank} round {round}").into_bytes();
            let file = file_saying(&text(own.index()));
            let swapped = mesh.swap(b"file", Some(file.as_fd()), later()).unwrap();
            for (rank, (_, theirs)) in swapped.iter().enumerate() {
                assert_eq!(theirs.is_some(), rank != own.index());
                if let Some(theirs) = theirs {
                    assert_eq!(said_by(theirs), text(rank));
                    assert!(rustix::io::fcntl_getfd(theirs).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
                }
            }
        }
    });
}

#[test]
fn some_ranks_can_give_a_file_and_others_none() {
    each(job(3), |mut mesh| {
        let file = (mesh.rank() == Rank(1)).then(|| file_saying(b"of rank 1"));
        let swapped = mesh.swap(b"", file.as_ref().map(AsFd::as_fd), later()).unwrap();
        for (rank, (_, theirs)) in swapped.iter().enumerate() {
            assert_eq!(theirs.is_some(), rank == 1 && mesh.rank() != Rank(1));
        }
    });
}

#[test]
fn a_rank_that_dies_instead_of_swapping_is_named_on_every_other() {
    let outcomes = each(job(4), |mut mesh| match mesh.rank() {
        Rank(2) => None,
        _ => Some(mesh.swap(b"here", None, later()).map(|_| mesh)),
    });
    for error in outcomes.into_iter().flatten().map(Result::unwrap_err) {
        let root = error.root_cause();
        assert!(matches!(root, Error::PeerLost { peer: Rank(2), how: "died", .. }), "{error}");
    }
}

#[test]
fn a_rank_that_does_not_swap_in_time_is_named_on_every_other() {
    let mut meshes = job(3);
    let idle = meshes.remove(1);
    let outcomes = each(meshes, |mut mesh| mesh.swap(b"here", None, StdInstant::now() + SHORT).map(|_| ()));
    for error in outcomes.into_iter().map(Result::unwrap_err) {
        assert!(
            matches!(error.root_cause(), Error::Timeout { culprits, .. } if *culprits == [Rank(1)]),
            "{error}"
        );
    }
    drop(idle);
}

#[test]
fn a_rank_that_gives_up_is_heard_by_those_who_wait_for_it() {
    let cause = Error::Refused("rank 0 has no memory".into());
    let outcomes = each(job(3), |mut mesh| match mesh.rank() {
        Rank(0) => {
            mesh.abort(&cause);
            None
        }
        _ => Some(mesh.swap(b"here", None, later()).map(|_| ())),
    });
    for error in outcomes.into_iter().flatten().map(Result::unwrap_err) {
        assert_eq!(*error.root_cause(), cause);
    }
}

#[test]
fn ranks_that_swap_different_rounds_find_out() {
    let outcomes = each(job(2), |mut mesh| {
        if mesh.rank() == Rank(1) {
            mesh.skip_a_round();
        }
        mesh.swap(b"here", None, later()).map(|_| ())
    });
    for error in outcomes.into_iter().map(Result::unwrap_err) {
        assert!(matches!(error.root_cause(), Error::Corrupt { .. }), "{error}");
    }
}
