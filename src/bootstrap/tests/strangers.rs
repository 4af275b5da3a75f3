//! Whoever knocks without the secret costs nothing.

use super::*;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream as StdStream};

fn call(id: &UniqueId) -> StdStream {
    let address = SocketAddr::from_abstract_name(id.root_name()).unwrap();
    loop {
        match StdStream::connect_addr(&address) {
            Ok(stream) => return stream,
            Err(_) => thread::yield_now(),
        }
    }
}

/// A job of two whose rank 1 starts only when `strangers` have been at rank 0's door.
fn job_among(strangers: impl FnOnce(&UniqueId) -> Vec<StdStream>) {
    let id = UniqueId::new();
    thread::scope(|scope| {
        let root = scope.spawn(|| join_as(&id, &[(0, 2)], LONG).remove(0));
        let open = strangers(&id);
        join_as(&id, &[(1, 2)], LONG).remove(0).unwrap();
        root.join().unwrap().unwrap();
        drop(open);
    });
}

#[test]
fn silent_strangers_do_not_keep_ranks_out() {
    job_among(|id| (0..10).map(|_| call(id)).collect());
}

#[test]
fn more_silent_strangers_than_there_is_room_for_do_not_keep_ranks_out() {
    job_among(|id| (0..200).map(|_| call(id)).collect());
}

#[test]
fn garbage_and_foreign_protocols_do_not_keep_ranks_out() {
    job_among(|id| {
        let requests: [&[u8]; 5] = [
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            &[0; 4096],
            &[0xff; 4096],
            b"sohucoll",
        ];
        let say = |request: &&[u8]| {
            let mut stream = call(id);
            // It may be shown the door while it still talks.
            let _ = stream.write_all(request);
            stream
        };
        requests.iter().map(say).collect()
    });
}

#[test]
fn strangers_that_come_and_go_do_not_keep_ranks_out() {
    job_among(|id| {
        (0..300).for_each(|_| drop(call(id)));
        Vec::new()
    });
}

#[test]
fn a_stranger_with_garbage_is_shown_the_door() {
    let id = UniqueId::new();
    thread::scope(|scope| {
        let root = scope.spawn(|| join_as(&id, &[(0, 2)], LONG).remove(0));
        let mut stranger = call(&id);
        stranger.write_all(&[b'x'; 96]).unwrap();
        assert_eq!(stranger.read(&mut [0; 1]).unwrap_or(0), 0);
        join_as(&id, &[(1, 2)], LONG).remove(0).unwrap();
        root.join().unwrap().unwrap();
    });
}

#[test]
fn a_recorded_handshake_is_worth_nothing() {
    let id = UniqueId::new();
    let place = Place { rank: 1, size: 2 };
    thread::scope(|scope| {
        let root = scope.spawn(|| join_as(&id, &[(0, 2)], LONG).remove(0));
        let said = record(&id, place);
        let mut replay = call(&id);
        let _ = replay.write_all(&said);
        // It gets rank 0's hello and proof, which show nothing, and then the end of the connection.
        let mut answer = Vec::new();
        let _ = replay.read_to_end(&mut answer);
        assert!(answer.len() <= size_of::<wire::Hello>() + 32, "{} bytes", answer.len());
        join_as(&id, &[(1, 2)], LONG).remove(0).unwrap();
        root.join().unwrap().unwrap();
    });
}

/// What a real rank says in its handshake with rank 0, taken down by something that sits between them.
fn record(id: &UniqueId, place: Place) -> Vec<u8> {
    let (mut near, far) = StdStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let mut root = call(id);
    thread::scope(|scope| {
        let rank = scope.spawn(|| {
            runtime().block_on(async {
                let mut stream = tokio::net::UnixStream::from_std(far).unwrap();
                Party::new(id, place).greet(&mut stream, Purpose::Start).await.unwrap();
            });
        });
        let mut hello = [0; 96];
        near.read_exact(&mut hello).unwrap();
        root.write_all(&hello).unwrap();
        let mut answer = [0; 128];
        root.read_exact(&mut answer).unwrap();
        near.write_all(&answer).unwrap();
        let mut proof = [0; 32];
        near.read_exact(&mut proof).unwrap();
        rank.join().unwrap();
        // The line to rank 0 ends before the proof arrives: this rank never came.
        [hello.as_slice(), &proof].concat()
    })
}

#[test]
fn a_proof_can_not_be_mirrored() {
    let (mut near, far) = StdStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let id = UniqueId::new();
    thread::scope(|scope| {
        let door = scope.spawn(|| {
            runtime().block_on(async {
                let mut stream = tokio::net::UnixStream::from_std(far).unwrap();
                let party = Party::new(&id, Place { rank: 0, size: 2 });
                party.admit(&mut stream, Purpose::Start).await.map(|_| ())
            })
        });
        // The hello of a job that is known by name only, then the door's own proof back.
        let mut hello: wire::Hello = zerocopy::FromZeros::new_zeroed();
        hello.magic = wire::MAGIC;
        hello.purpose = (Purpose::Start as u32).into();
        hello.job = id.job_bytes();
        near.write_all(zerocopy::IntoBytes::as_bytes(&hello)).unwrap();
        let mut answer = [0; 128];
        near.read_exact(&mut answer).unwrap();
        near.write_all(&answer[96..]).unwrap();
        assert!(matches!(door.join().unwrap(), Err(handshake::Fault::Secret)));
    });
}
