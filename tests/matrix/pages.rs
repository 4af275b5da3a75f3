//! Private memory that is lent again and again comes to lie in huge pages, and every call finds in it what its caller stored.

use crate::TIMEOUT_MS;
use crate::ranks::{Group, Member, Post, host};
use sohu_coll::Communicator;

/// Elements of a buffer: 8 MiB, so that 6 MiB at least are whole stretches wherever it begins.
const COUNT: usize = 1 << 20;
/// Calls, of half of it each way: a stretch is moved when 32 MiB of it were lent, and one for each 8 MiB that were lent in all.
const CALLS: u64 = 60;

pub(crate) fn pages() {
    for (size, moves) in [(2, true), (2, false), (3, true)] {
        let mut group = Group::start("pages", size);
        for post in Post::all(size, "fetched", TIMEOUT_MS, "-") {
            group.tell(post.rank as usize, &format!("{moves} {}", post.line()));
        }
        for rank in 0..group.len() {
            let huge = group.hear(rank).text;
            let is_right = match host::huge_pages() {
                // Such memory is in huge pages from the beginning, or never.
                host::HugePages::Always => true,
                host::HugePages::Never => huge == "0",
                host::HugePages::Asked => (huge != "0") == moves,
            };
            if !is_right {
                group.fail(&format!(
                    "{huge} KiB of rank {rank} of {size} are in huge pages, asked for: {moves}"
                ));
            }
        }
        group.end();
    }
}

pub(crate) fn play_pages(member: &mut Member) {
    let line = member.hear();
    let (moves, post) = line.split_once(' ').expect("two parts");
    let mut comm = Post::read(post).builder().huge_pages(moves == "true").build().expect("every rank comes");
    let mut input = vec![0u64; COUNT];
    let mut output = vec![0u64; COUNT];
    for call in 0..CALLS {
        all_to_all(&mut comm, call, &mut input, &mut output);
    }
    member.say(&host::huge_kib_at(input.as_ptr().addr()).to_string());
}

/// Gives everyone numbers that were never given before.
fn all_to_all(comm: &mut Communicator, call: u64, input: &mut [u64], output: &mut [u64]) {
    let (rank, size) = (u64::from(comm.rank()), u64::from(comm.size()));
    let block = COUNT / size as usize;
    let number = |from: u64, to: u64, at: usize| ((call * size + from) * size + to) << 32 | at as u64;
    let places = |peer: u64| peer as usize * block..(peer as usize + 1) * block;
    for to in 0..size {
        let own = input[places(to)].iter_mut().enumerate();
        own.for_each(|(at, place)| *place = number(rank, to, at));
    }
    let all = block * size as usize;
    comm.all_to_all(&input[..all], &mut output[..all]).expect("a good call");
    for from in 0..size {
        let mut got = output[places(from)].iter().enumerate();
        assert!(got.all(|(at, found)| *found == number(from, rank, at)), "call {call}, from {from}");
    }
}
