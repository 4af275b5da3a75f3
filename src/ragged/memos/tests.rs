//! Memos among ranks that are all here.

use super::counts::{BALANCE, BALANCED_MIN, PAIR, counted, factor};
use super::*;
use crate::Blocks;

/// Whether a call is made in place.
#[derive(Clone, Copy, Debug)]
enum Form {
    Apart,
    InPlace,
}

/// What came of a call on one rank.
type Found = Result<Said, String>;

fn memos(size: usize) -> Vec<Memos> {
    memos_sharing(size, 1)
}

/// Those of ranks of which so many share a core.
fn memos_sharing(size: usize, sharing: u32) -> Vec<Memos> {
    (0..size).map(|rank| Memos::new(Rank(rank as u32), size as u32, sharing)).collect()
}

/// What `from` has for `to`.
fn content(from: usize, to: usize, count: usize) -> Vec<u8> {
    (0..count).map(|at| (from * 31 + to * 7 + at) as u8).collect()
}

/// Makes a call in which rank r gives rank s `counts[r][s]` bytes; `spoil` may change what a rank expects. Looks at all output.
fn call_with(
    memos: &mut [Memos],
    counts: &[Vec<usize>],
    form: Form,
    spoil: impl Fn(usize, &mut Vec<usize>),
) -> Vec<Found> {
    call_numbered(memos, counts, form, spoil, |_| 0)
}

/// The same with a number for each rank's call.
fn call_numbered(
    memos: &mut [Memos],
    counts: &[Vec<usize>],
    form: Form,
    spoil: impl Fn(usize, &mut Vec<usize>),
    number: impl Fn(usize) -> u64,
) -> Vec<Found> {
    let size = counts.len();
    let column = |rank: usize| counts.iter().map(|row| row[rank]).collect::<Vec<_>>();
    let expected: Vec<Vec<usize>> = (0..size)
        .map(|rank| {
            let mut gets = column(rank);
            spoil(rank, &mut gets);
            gets
        })
        .collect();
    let input = |rank: usize| -> Vec<u8> {
        (0..size).flat_map(|to| content(rank, to, counts[rank][to].min(1 << 17))).collect()
    };
    let cut = |rank: usize| {
        let [gives, gets] = [&counts[rank], &expected[rank]].map(|list| Blocks::packed(list));
        Cut { blocks: [gives, gets], ..Cut::new(Collective::AllToAll, DType::U8, 0, gives) }
    };
    let mut told = Vec::new();
    for (rank, memos) in memos.iter_mut().enumerate() {
        let mut input = input(rank);
        let buffers = match form {
            Form::Apart => Buffers::apart(&input[..], &mut [0u8; 0][..]),
            Form::InPlace => Buffers::InPlace(&mut input),
        };
        let pinned = memos.write(&cut(rank), &buffers, number(rank));
        assert_eq!(pinned.signature.count, memos.len as u64);
        memos.put_back(pinned);
        told.extend_from_slice(memos.memo(rank));
    }
    let mut found = Vec::new();
    for (rank, memos) in memos.iter_mut().enumerate() {
        memos.all[..told.len()].copy_from_slice(&told);
        let input = input(rank);
        let blank = vec![0xa5; expected[rank].iter().map(|count| count.min(&(1 << 17))).sum()];
        let mut output = match form {
            Form::Apart => blank.clone(),
            Form::InPlace => input.clone(),
        };
        let before = output.clone();
        let mut buffers = match form {
            Form::Apart => Buffers::apart(&input[..], &mut output[..]),
            Form::InPlace => Buffers::InPlace(&mut output),
        };
        let said = memos.read(&cut(rank), &mut buffers, number(rank)).map_err(|error| error.to_string());
        let right: Vec<u8> = match said {
            Ok(Said::Everything) => {
                (0..size).flat_map(|from| content(from, rank, expected[rank][from])).collect()
            }
            _ => before,
        };
        assert!(output == right, "rank {rank}, {form:?}: {said:?}");
        found.push(said);
    }
    found
}

fn call(memos: &mut [Memos], counts: &[Vec<usize>], form: Form) -> Vec<Found> {
    call_with(memos, counts, form, |_, _| {})
}

fn all(said: Said, size: usize) -> Vec<Found> {
    vec![Ok(said); size]
}

/// Where every rank gives every other one so many bytes.
fn even(size: usize, count: usize) -> Vec<Vec<usize>> {
    vec![vec![count; size]; size]
}

#[test]
fn blocks_go_along_at_once_or_from_the_second_call_on() {
    for form in [Form::Apart, Form::InPlace] {
        for (size, sharing, most) in [
            (2, 1, 4088),
            (3, 1, 1048),
            (5, 1, 376),
            (17, 1, 19),
            (32, 1, 2),
            (4, 2, 2808),
            (8, 4, 2368),
            (32, 16, 528),
        ] {
            let mut memos = memos_sharing(size, sharing);
            let few: Vec<Vec<usize>> = (0..size).map(|r| (0..size).map(|s| (r + s) % 2).collect()).collect();
            for counts in [few, even(size, most), even(size, 0)] {
                call(&mut memos, &counts, form);
                assert_eq!(call(&mut memos, &counts, form), all(Said::Everything, size), "{size} ranks");
            }
            for _ in 0..2 {
                let found = call(&mut memos, &even(size, most + 1), form);
                assert_eq!(found, all(Said::Agreed, size), "{size} ranks");
            }
        }
    }
}

#[test]
fn a_byte_more_than_there_is_room_for_goes_apart() {
    for form in [Form::Apart, Form::InPlace] {
        let mut two = memos(2);
        for len in LENGTHS.into_iter().filter(|len| *len <= EXCHANGE_MAX) {
            assert_eq!(call(&mut two, &even(2, len - 8), form), all(Said::Everything, 2), "{len}");
            assert_eq!(call(&mut two, &even(2, len - 7), form), all(Said::Agreed, 2), "{len}");
        }
        assert_eq!(call(&mut two, &even(2, 4089), form), all(Said::Agreed, 2));
        assert_eq!(call(&mut two, &even(2, 3000), form), all(Said::Everything, 2));
    }
}

#[test]
fn one_long_block_keeps_all_others_back() {
    let mut three = memos(3);
    let short = even(3, 4);
    let mut counts = short.clone();
    counts[1][2] = 5000;
    for _ in 0..3 {
        assert_eq!(call(&mut three, &counts, Form::Apart), all(Said::Agreed, 3));
        assert_eq!(call(&mut three, &short, Form::Apart), all(Said::Everything, 3));
    }
    // What a rank gives itself is not told.
    counts[1] = vec![4, 70_000, 4];
    assert_eq!(call(&mut three, &counts, Form::Apart), all(Said::Everything, 3));
}

#[test]
fn all_name_the_same_two_that_disagree() {
    let counts = vec![vec![1, 2, 3], vec![4, 5, 6], vec![7, 8, 9]];
    for (rank, from, told) in [
        (0, 1, "rank 1 gives rank 0 4 elements, but rank 0 expects 5"),
        (2, 0, "rank 0 gives rank 2 3 elements, but rank 2 expects 4"),
    ] {
        let mut three = memos(3);
        let found = call_with(&mut three, &counts, Form::Apart, |who, gets| {
            gets[from] += usize::from(who == rank);
            // Of two the first is named.
            gets[1] += usize::from(who == 2 && rank == 0);
        });
        for found in found {
            let text = found.expect_err("they disagree");
            assert!(text.contains(told), "{text}");
        }
        assert_eq!(call(&mut three, &counts, Form::Apart), all(Said::Everything, 3));
    }
}

#[test]
fn what_a_memo_can_not_tell_is_unclear_to_all() {
    for (wide, said) in [(1 << 32, Said::Unclear), (u32::MAX as usize, Said::Unclear)] {
        let mut counts = even(3, 2);
        counts[1][2] = wide;
        assert_eq!(call(&mut memos(3), &counts, Form::Apart), all(said, 3), "{wide} elements");
    }
    let mut counts = even(3, 2);
    counts[1][2] = u32::MAX as usize - 1;
    assert_eq!(call(&mut memos(3), &counts, Form::Apart), all(Said::Agreed, 3));
    // Of what a rank gives itself it knows alone that it is wrong.
    let found = call_with(&mut memos(3), &even(3, 2), Form::Apart, |who, gets| {
        gets[who] += usize::from(who == 1);
    });
    assert_eq!(found, all(Said::Unclear, 3));
}

#[test]
fn of_many_ranks_too_all_name_the_same_two() {
    for size in [BALANCED_MIN - 1, BALANCED_MIN, 8] {
        let counts: Vec<Vec<usize>> =
            (0..size).map(|from| (0..size).map(|to| from * size + to).collect()).collect();
        // One count; and several that come to nothing together, for a rank or for all.
        let spoils: [fn(usize, &mut Vec<usize>); 4] = [
            |who, gets| gets[0] += usize::from(who == 3),
            |who, gets| {
                if who == 3 {
                    gets[0] += 1;
                    gets[2] -= 1;
                }
            },
            |who, gets| {
                gets[0] += usize::from(who == 3);
                gets[0] -= usize::from(who == 4);
            },
            |who, gets| gets.swap(0, if who == 3 { 4 } else { 0 }),
        ];
        for (at, spoil) in spoils.into_iter().enumerate() {
            let mut many = memos(size);
            let found = call_with(&mut many, &counts, Form::Apart, spoil);
            for found in found {
                let text = found.expect_err("they disagree");
                assert!(text.contains("rank 0 gives rank 3 3 elements"), "{at}: {text}");
            }
            assert_eq!(call(&mut many, &counts, Form::Apart), all(Said::Agreed, size));
            assert_eq!(call(&mut many, &counts, Form::Apart), all(Said::Everything, size));
        }
    }
}

/// The memos of so many ranks, each of which gives each a byte, as that rank has them.
fn told(size: usize, rank: usize) -> (Memos, Vec<usize>) {
    let (counts, mut data) = (vec![1; size], vec![1u8; size]);
    let mut all = memos(size);
    for memos in &mut all {
        let cut = Cut::new(Collective::AllToAll, DType::U8, 0, Blocks::packed(&counts));
        let pinned = memos.write(&cut, &Buffers::in_place(&mut data[..]), 0);
        memos.put_back(pinned);
    }
    let memo = |rank: usize| all[rank].memo(rank).to_vec();
    let every: Vec<u8> = (0..size).flat_map(memo).collect();
    let mut own = all.swap_remove(rank);
    own.all[..every.len()].copy_from_slice(&every);
    (own, counts)
}

/// What that rank makes of them.
fn read((memos, counts): &mut (Memos, Vec<usize>)) -> Found {
    let mut data = vec![0u8; counts.len()];
    let cut = Cut::new(Collective::AllToAll, DType::U8, 0, Blocks::packed(counts));
    memos.read(&cut, &mut Buffers::in_place(&mut data[..]), 0).map_err(|error| error.to_string())
}

#[test]
fn a_balance_that_is_wrong_is_neither_believed_nor_a_reason_to_fail() {
    let size = BALANCED_MIN;
    for (rank, from, third) in [(0, 2, 1), (3, 2, 5), (3, 5, 2), (size - 1, 0, 1)] {
        let mut told = told(size, rank);
        assert_eq!(read(&mut told), Ok(Said::Everything));
        // The counts are right.
        let at = from * told.0.len + counted(size);
        told.0.all[at] ^= 1;
        assert_eq!(read(&mut told), Ok(Said::Everything));
        told.0.all[at] ^= 1;
        // The balances come to nothing, but one other says that it gives this rank more.
        let at = from * told.0.len + PAIR * place_of(from, rank);
        told.0.all[at] += 1;
        let text = read(&mut told).expect_err("they disagree");
        let expected = format!("rank {from} gives rank {rank} 2 elements, but rank {rank} expects 1");
        assert!(text.contains(&expected), "{text}");
        told.0.all[at] -= 1;
        // It says so of a third rank, which that is for to see.
        told.0.all[from * told.0.len + PAIR * place_of(from, third)] += 1;
        assert_eq!(read(&mut told), Ok(Said::Everything));
    }
}

/// Which ranks took the call for the one that they knew.
fn who_repeats(memos: &[Memos]) -> Vec<bool> {
    memos.iter().map(|memos| memos.repeats).collect()
}

#[test]
fn a_call_is_known_from_the_third_time_in_a_row_on() {
    for form in [Form::Apart, Form::InPlace] {
        for size in [2, 3, 8] {
            let mut many = memos(size);
            let call = |many: &mut [Memos], counts: &[Vec<usize>], number: u64| {
                assert_eq!(
                    call_numbered(many, counts, form, |_, _| {}, |_| number),
                    all(Said::Everything, size)
                );
                who_repeats(many)
            };
            let (one, other) = (even(size, 3), even(size, 2));
            // Until memos have room.
            call_numbered(&mut many, &one, form, |_, _| {}, |_| 6);
            let known: Vec<Vec<bool>> = (0..4).map(|_| call(&mut many, &one, 7)).collect();
            assert_eq!(known.concat(), [false, false, true, true].map(|known| vec![known; size]).concat());
            for number in [8, 7, 8, 7, 0, 0, 0] {
                assert_eq!(
                    call(&mut many, if number == 8 { &other } else { &one }, number),
                    vec![false; size]
                );
            }
            assert_eq!(call(&mut many, &one, 7), vec![false; size]);
            assert_eq!(call(&mut many, &one, 7), vec![false; size]);
            assert_eq!(call(&mut many, &one, 7), vec![true; size]);
        }
    }
}

#[test]
fn what_is_known_holds_for_memos_of_that_length() {
    let mut three = memos(3);
    let mut call = |count: usize, number: u64| {
        let found = call_numbered(&mut three, &even(3, count), Form::Apart, |_, _| {}, |_| number);
        (found, three[0].len, three[0].repeats)
    };
    // There is room for long blocks, and less and less from call to call.
    call(400, 1);
    call(400, 1);
    let mut len = 1 << 20;
    let mut changes = 0;
    for turn in 0..80 {
        let (found, now, repeats) = call(3, 2);
        assert_eq!(found, all(Said::Everything, 3), "in turn {turn}");
        assert!(!repeats || now == len, "in turn {turn}");
        changes += u32::from(now != len);
        len = now;
    }
    assert!(changes > 3 && len == LENGTHS[0], "{changes} lengths, the last {len}");
}

#[test]
fn what_is_known_is_not_what_the_others_say() {
    let (size, one) = (4, even(4, 3));
    // What ranks 2 and 3 give each other changes: ranks 0 and 1 make the same call as before.
    let mut other = one.clone();
    (other[2][3], other[3][2]) = (1, 1);
    let mut four = memos(size);
    let mut call = |counts: &[Vec<usize>]| {
        let number = |rank| if rank >= 2 { 5 + counts[2][3] as u64 } else { 5 };
        let found = call_numbered(&mut four, counts, Form::Apart, |_, _| {}, number);
        (found, who_repeats(&four))
    };
    for _ in 0..4 {
        call(&one);
    }
    assert_eq!(call(&one), (all(Said::Everything, size), vec![true; size]));
    for _ in 0..2 {
        assert_eq!(call(&other), (all(Said::Everything, size), vec![true, true, false, false]));
    }
    assert_eq!(call(&other), (all(Said::Everything, size), vec![true; size]));
    let mut long = one.clone();
    long[2][3] = 5000;
    for _ in 0..2 {
        assert_eq!(call(&long).0, all(Said::Agreed, size));
        assert_eq!(call(&one), (all(Said::Everything, size), vec![false; size]));
    }
}

#[test]
fn every_two_ranks_have_a_factor_of_their_own() {
    let ranks = || 0..RANKS_MAX as usize;
    let mut factors: Vec<u64> = ranks().flat_map(|from| ranks().map(move |to| factor(from, to))).collect();
    assert!(factors.iter().all(|factor| factor % 2 == 1), "an even one may bring a count to nothing");
    factors.sort_unstable();
    assert!(factors.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn memos_are_as_long_as_they_need_be() {
    let length = |size: usize, room: usize| {
        let lengths = lengths(size, 1);
        lengths[place(&lengths, header(size).saturating_add(room))]
    };
    assert_eq!((length(2, 32), length(2, 33)), (40, 128));
    assert_eq!((length(2, 4088), length(2, 4089), length(2, usize::MAX)), (4096, 40, 40));
    assert_eq!((length(6, 0), length(7, 0)), (40, 128));
    for block in [64, 128, 256, 512, 1024, 2048] {
        assert!(length(2, block) <= block + 64, "{block} bytes");
    }
    // As `Communicator::all_to_all_v` says.
    assert_eq!((length(4, 2088), length(4, 2089)), (2112, 40));
    assert_eq!((length(8, 1024), length(8, 1025)), (1088, 128));
    assert_eq!(length(4, 3072 - 24), 40, "4 such memos are more than the call saves");
    assert_eq!((length(32, 1), length(32, 100)), (320, 320));
    assert!(!Memos::are_for(1) && Memos::are_for(2) && Memos::are_for(32) && !Memos::are_for(33));
    assert!((2..=32).all(|size| !lengths(size, 1).is_empty()));
}

#[test]
fn room_grows_at_once_and_shrinks_slowly() {
    let room = |before, given| room(4088, before, given);
    assert_eq!((room(0, 500), room(500, 0)), (500, 437));
    assert_eq!((room(500, 4089), room(0, usize::MAX)), (437, 0));
    let calls = (0..).scan(4088, |left, _| {
        *left = room(*left, 8);
        Some(*left)
    });
    assert!((20..60).contains(&calls.take_while(|left| *left > 32).count()));
}

#[test]
fn memos_of_garbage_are_bounded() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut wrong, mut right) = (0, 0);
    for turn in 0..6000 {
        let size = [2, 3, 7][turn % 3];
        let (counts, starts): (Vec<usize>, Vec<usize>) = (0..size).map(|at| (draw(5), 6 * at)).unzip();
        let gives = Blocks { counts: &counts, displacements: Some(&starts) };
        let cut = Cut::new(Collective::AllToAll, DType::U8, 0, gives);
        let mut memos = Memos::new(Rank(0), size as u32, 1 + turn as u32 % 2);
        let mut data = vec![0xa5u8; 6 * size];
        let pinned = memos.write(&cut, &Buffers::in_place(&mut data[..]), 0);
        memos.put_back(pinned);
        // What the others should say, if it were not for a few words.
        let len = memos.len;
        for (from, count) in counts.iter().enumerate().skip(1) {
            for to in others(from, size) {
                let count = if to == 0 { *count as u32 } else { 1 };
                let at = from * len + PAIR * place_of(from, to);
                memos.all[at..at + 4].copy_from_slice(&count.to_le_bytes());
                memos.all[at + 4..at + 8].copy_from_slice(&count.to_le_bytes());
            }
        }
        // At first sight all agree, whatever is spoiled but for a balance.
        if size >= BALANCED_MIN {
            for from in 0..size {
                let at = from * len + counted(size);
                memos.all[at..at + BALANCE].fill(0);
            }
        }
        for _ in 0..draw(3) {
            let at = len + 4 * draw((size - 1) * header(size) / 4);
            let word = [u32::MAX, u32::MAX - 1, 1 << 31, 33, 0][draw(5)];
            memos.all[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        match memos.read(&cut, &mut Buffers::in_place(&mut data[..]), 0) {
            Ok(Said::Everything) => right += 1,
            _ => {
                wrong += 1;
                assert!(data.iter().all(|byte| *byte == 0xa5), "the output was written");
            }
        }
        let outside = |at: &usize| at % 6 >= counts[at / 6];
        assert!((0..data.len()).filter(outside).all(|at| data[at] == 0xa5), "a gap was written");
    }
    assert!(wrong > 1000 && right > 1000, "{wrong} {right}");
}
