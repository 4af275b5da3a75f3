//! A rank that sleeps is woken by what comes for it.

mod join;

use sohu_coll_core::Rank;
use sohu_coll_core::link::Links;
use sohu_coll_mem::{View, ViewMut};
use sohu_coll_shm::ShmLinks;

/// Longer than anybody waits for a test: a wake that is lost hangs it.
const NIGHT: u64 = 3_600_000_000_000;

const ROUNDS: u32 = 300;

/// Receives four bytes, asleep while there are none.
fn receive(link: &mut ShmLinks, from: u32) -> u32 {
    let mut bytes = [0; 4];
    let mut taken = 0;
    loop {
        taken += link.recv(Rank(from), ViewMut::from(&mut bytes[taken..])).expect("recv");
        if taken == 4 {
            return u32::from_le_bytes(bytes);
        }
        link.poll().expect("poll");
        link.sleeper().expect("shared memory can sleep").prepare();
        taken += link.recv(Rank(from), ViewMut::from(&mut bytes[taken..])).expect("recv");
        let bell = link.sleeper().expect("shared memory can sleep");
        if taken == 4 {
            bell.cancel();
            return u32::from_le_bytes(bytes);
        }
        bell.sleep(NIGHT);
    }
}

fn send(link: &mut ShmLinks, to: u32, number: u32) {
    assert_eq!(link.send(&[Rank(to)], View::from(&number.to_le_bytes()[..])), Ok(4));
    link.ring();
}

#[test]
fn whoever_sleeps_hears_what_comes() {
    let mut links = join::links(2, 4096, 4096);
    join::begin(&mut links);
    let [first, second] = &mut links[..] else { panic!("there are two ranks") };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                assert_eq!(receive(second, 0), round);
                send(second, 0, round * 2);
            }
        });
        for round in 0..ROUNDS {
            send(first, 1, round);
            assert_eq!(receive(first, 1), round * 2);
        }
    });
}

#[test]
fn what_came_before_the_sleep_ends_it_at_once() {
    let mut links = join::links(2, 4096, 4096);
    join::begin(&mut links);
    links[1].sleeper().expect("shared memory can sleep").prepare();
    send(&mut links[0], 1, 7);
    links[1].sleeper().expect("shared memory can sleep").sleep(NIGHT);
    assert_eq!(receive(&mut links[1], 0), 7);
}
