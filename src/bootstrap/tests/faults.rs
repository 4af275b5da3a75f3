//! Ranks that do not fit, do not come, or do not last.
//!
//! Where a rank is one too many, another one is missing, so that the job can not start before it comes.

use super::*;

fn told(results: Vec<Result<Mesh, Error>>) -> Vec<String> {
    errors(results).iter().map(Error::to_string).collect()
}

#[test]
fn two_world_sizes_are_named_on_every_rank() {
    for told in told(join_as(&UniqueId::new(), &[(0, 3), (1, 4), (2, 3)], LONG)) {
        assert!(told.contains("rank 1") && told.contains("has 4 ranks, rank 0 says 3"), "{told}");
    }
}

#[test]
fn a_rank_beyond_the_size_of_rank_0_is_told_of_the_two_sizes() {
    for told in told(join_as(&UniqueId::new(), &[(0, 3), (5, 8), (1, 3)], LONG)) {
        assert!(told.contains("rank 5") && told.contains("has 8 ranks, rank 0 says 3"), "{told}");
    }
}

#[test]
fn two_processes_with_one_rank_are_named_on_every_rank() {
    let pid = std::process::id();
    for told in told(join_as(&UniqueId::new(), &[(0, 4), (1, 4), (1, 4), (2, 4)], LONG)) {
        let expected = format!("two processes (pid {pid} and pid {pid}) both say they are rank 1");
        assert!(told.contains(&expected), "{told}");
    }
}

#[test]
fn two_processes_that_are_rank_0_are_named_on_every_rank() {
    for told in told(join_as(&UniqueId::new(), &[(0, 3), (0, 3), (1, 3)], LONG)) {
        assert!(told.contains("both say they are rank 0"), "{told}");
    }
}

#[test]
fn a_missing_rank_is_named_on_every_rank_that_came() {
    for error in errors(join_as(&UniqueId::new(), &[(0, 4), (3, 4)], SHORT)) {
        let Error::Missing { ranks, size, .. } = error else { panic!("{error}") };
        assert_eq!((ranks, size), (vec![Rank(1), Rank(2)], 4));
    }
}

#[test]
fn the_rank_with_the_least_patience_ends_the_wait_of_all() {
    let id = UniqueId::new();
    thread::scope(|scope| {
        let patient = scope.spawn(|| join_as(&id, &[(0, 3)], LONG));
        let hasty = scope.spawn(|| join_as(&id, &[(1, 3)], SHORT));
        for error in [patient, hasty].map(|rank| errors(rank.join().unwrap()).remove(0)) {
            assert!(matches!(&error, Error::Missing { ranks, .. } if *ranks == [Rank(2)]), "{error}");
        }
    });
}

#[test]
fn without_rank_0_it_is_rank_0_that_is_missing() {
    for error in errors(join_as(&UniqueId::new(), &[(1, 3), (2, 3)], SHORT)) {
        let Error::Missing { ranks, size, .. } = error else { panic!("{error}") };
        assert_eq!((ranks, size), (vec![Rank(0)], 3));
    }
}

#[test]
fn another_secret_under_the_same_name_is_refused() {
    let ours = UniqueId::with_secret(Some(&UniqueId::new().job()), id::Secret::new([1; 32]));
    let text = ours.to_text();
    let theirs = UniqueId::from_text(&format!("{}{}", &text[..text.len() - 64], "02".repeat(32))).unwrap();
    thread::scope(|scope| {
        let right = scope.spawn(|| join_as(&ours, &[(0, 2), (1, 2)], LONG));
        // While the others are still missing each other this one knocks; afterwards nobody is there.
        let wrong = errors(join_as(&theirs, &[(1, 2)], SHORT)).remove(0);
        match &wrong {
            Error::Refused(what) => {
                assert!(what.contains("rank 0") && what.contains("another secret"), "{what}")
            }
            other => assert!(matches!(other, Error::Missing { .. }), "{other}"),
        }
        for result in right.join().unwrap() {
            result.unwrap();
        }
    });
}

#[test]
fn the_wrong_secret_is_told_by_rank_0s_proof() {
    let ours = UniqueId::new();
    let text = ours.to_text();
    let theirs = UniqueId::from_text(&format!("{}{}", &text[..text.len() - 64], "02".repeat(32))).unwrap();
    let place = Place { rank: 1, size: 2 };
    let results = with_player(&ours, &[(0, 2)], place, async |_| {
        let stranger = Party::new(&theirs, place);
        let told = knock_until_open(&stranger, &Start::Meet).await.unwrap_err().to_string();
        assert!(told.contains("rank 0") && told.contains("another secret"), "{told}");
        // And rank 0 still takes in the real one.
        let _line = come(&Party::new(&ours, place)).await;
    });
    assert!(matches!(errors(results)[0], Error::PeerLost { peer: Rank(1), .. }));
}

#[test]
fn a_rank_of_another_build_is_named_on_every_rank() {
    let id = UniqueId::new();
    let player = Place { rank: 2, size: 3 };
    let results = with_player(&id, &[(0, 3), (1, 3)], player, async |party| {
        let mut other = Party::clone(&party);
        other.library = *b"9.9.9\0\0\0\0\0\0\0\0\0\0\0";
        let told = knock_until_open(&other, &Start::Meet).await.unwrap_err().to_string();
        assert!(told.contains("9.9.9") && told.contains(env!("CARGO_PKG_VERSION")), "{told}");
    });
    for told in told(results) {
        assert!(told.contains("rank 2") && told.contains("9.9.9") && told.contains("same build"), "{told}");
    }
}

#[test]
fn a_rank_that_dies_before_all_have_come_is_named_on_every_other() {
    let id = UniqueId::new();
    let results = with_player(&id, &[(0, 3), (1, 3)], Place { rank: 2, size: 3 }, async |party| {
        drop(come(&party).await);
    });
    for error in errors(results) {
        let Error::PeerLost { peer, how, during } = error else { panic!("{error}") };
        assert_eq!((peer, how, during.as_str()), (Rank(2), "died", START));
    }
}

#[test]
fn a_rank_that_dies_before_all_are_connected_is_named_on_every_other() {
    let id = UniqueId::new();
    for dying in [1, 2, 3] {
        let others: Vec<_> = (0..4).filter(|rank| *rank != dying).map(|rank| (rank, 4)).collect();
        let results = with_player(&id, &others, Place { rank: dying, size: 4 }, async |party| {
            let mut line = come(&party).await;
            assert!(matches!(hear(&mut line).await, Start::Roster(members) if members.len() == 4));
        });
        for error in errors(results) {
            assert!(matches!(error, Error::PeerLost { peer, .. } if peer == Rank(dying)), "{error}");
        }
    }
}

#[test]
fn a_failure_of_one_rank_is_told_to_every_other() {
    let id = UniqueId::new();
    let cause = Error::System { call: "socket".into(), errno: 24, hint: String::new() };
    let results = with_player(&id, &[(0, 3), (1, 3)], Place { rank: 2, size: 3 }, async |party| {
        let mut line = come(&party).await;
        let _roster = hear(&mut line).await;
        let failed = Start::Failed(wire::Cause::of(&cause, Rank(2)));
        write_frame(&mut line.stream, &failed).await.unwrap();
        assert!(matches!(hear(&mut line).await, Start::Refused(_)));
    });
    for told in told(results) {
        assert!(told.contains("rank 2: socket failed"), "{told}");
    }
}

#[test]
fn a_rank_that_talks_nonsense_is_named_on_every_other() {
    let id = UniqueId::new();
    for nonsense in [&[0xff; 64][..], &[1, 0, 0, 0, 77], &wire::encode(&Start::Go)] {
        let results = with_player(&id, &[(0, 3), (1, 3)], Place { rank: 2, size: 3 }, async |party| {
            use tokio::io::AsyncWriteExt;
            let mut line = come(&party).await;
            line.stream.write_all(nonsense).await.unwrap();
            // The roster may have been on its way already.
            while !matches!(hear(&mut line).await, Start::Refused(_)) {}
        });
        for error in errors(results) {
            assert!(matches!(error, Error::Corrupt { peer: Rank(2), .. }), "{error}");
        }
    }
}

#[test]
fn ranks_that_never_connect_to_the_others_are_named_at_the_deadline() {
    let id = UniqueId::new();
    let errors = thread::scope(|scope| {
        let root = scope.spawn(|| join_as(&id, &[(0, 3)], SHORT).remove(0).unwrap_err());
        let idle = [1, 2].map(|rank| {
            let party = Party::new(&id, Place { rank, size: 3 });
            scope.spawn(move || {
                runtime().block_on(async {
                    let mut line = come(&party).await;
                    assert!(matches!(hear(&mut line).await, Start::Roster(_)));
                    member::refusal(Ok(hear(&mut line).await))
                })
            })
        });
        let mut errors = vec![root.join().unwrap()];
        errors.extend(idle.map(|rank| rank.join().unwrap()));
        errors
    });
    for error in errors {
        let Error::Timeout { culprits, .. } = error else { panic!("{error}") };
        assert_eq!(culprits, [Rank(1), Rank(2)]);
    }
}

#[test]
fn rank_0s_socket_held_by_something_silent_is_an_error_at_the_deadline() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let id = UniqueId::new();
    let _squatter =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(id.root_name()).unwrap()).unwrap();
    let mut errors = errors(join_as(&id, &[(0, 2), (1, 2)], SHORT));
    let (member, root) = (errors.pop().unwrap(), errors.pop().unwrap());
    assert!(root.to_string().contains("another process has the socket"), "{root}");
    assert!(matches!(&member, Error::Timeout { culprits, .. } if *culprits == [Rank(0)]), "{member}");
}
