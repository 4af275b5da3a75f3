use super::*;
use crate::soak::draw::{Home, How, Op, Ragged};
use sohu_coll::{DType, ReduceOp};

fn call(collective: Collective, in_place: bool) -> Call {
    let homes = [Home::Private; 2];
    let shape =
        Shape { collective, dtype: DType::U8, op: Op::Known(ReduceOp::Sum), count: 5, in_place, homes };
    let how = How::Blocking;
    Call { group: 0, shape, how, root: 1, salt: 3, offset: 0, spare: 2, late: None }
}

fn contents(sheet: &Sheet) -> Vec<Content> {
    sheet.blocks.iter().map(|block| block.0).collect()
}

#[test]
fn in_place_the_input_or_the_output_is_the_block_of_the_rank() {
    let of = |rank, phase| Content::Of { rank, phase };
    let junk = Content::Byte(JUNK);
    for (collective, rank, before, after) in [
        (Collective::AllGather, 1, vec![junk, of(1, 0), junk], vec![of(0, 0), of(1, 0), of(2, 0)]),
        (
            Collective::ReduceScatter,
            2,
            vec![of(2, 0), of(2, 5), of(2, 10)],
            vec![of(2, 0), of(2, 5), Content::Folded { phase: 10 }],
        ),
        (Collective::Scatter, 1, vec![of(1, 0), of(1, 5), of(1, 10)], vec![of(1, 0), of(1, 5), of(1, 10)]),
        (Collective::Scatter, 2, vec![junk], vec![of(1, 10)]),
        (Collective::Gather, 1, vec![junk, of(1, 0), junk], vec![of(0, 0), of(1, 0), of(2, 0)]),
        (Collective::Gather, 0, vec![of(0, 0)], vec![of(0, 0)]),
        (Collective::Reduce, 0, vec![of(0, 0)], vec![of(0, 0)]),
        (Collective::Broadcast, 0, vec![junk], vec![of(1, 0)]),
        (Collective::AllToAll, 0, vec![of(0, 0), of(0, 5), of(0, 10)], vec![of(0, 0), of(1, 0), of(2, 0)]),
    ] {
        let sheets = Sheets::of(&call(collective, true), rank, 3);
        assert_eq!(
            (contents(&sheets.before), contents(&sheets.after)),
            (before, after),
            "{collective} {rank}"
        );
    }
}

#[test]
fn every_wrong_byte_is_found_in_the_buffer_and_in_its_guards() {
    let sheets = Sheets::of(&call(Collective::AllToAll, false), 1, 3);
    let values = Values { dtype: DType::U8, op: Op::Known(ReduceOp::Sum), salt: 3 };
    let mut room = vec![0; sheets.after.room()];
    sheets.after.fill(&mut room, &values, 3);
    assert_eq!(sheets.after.check(&room, &values, 3), Ok(()));
    for at in 0..room.len() {
        room[at] ^= 0x10;
        let told = sheets.after.check(&room, &values, 3).expect_err("a byte is wrong");
        assert_eq!(told.contains("guard"), !(GUARD..GUARD + 15).contains(&at), "{at}: {told}");
        room[at] ^= 0x10;
    }
    assert!(sheets.before.check(&room, &values, 3).is_err(), "a call that did nothing is seen");
}

#[test]
fn a_buffer_that_is_not_needed_is_spare_and_stays() {
    let sheets = Sheets::of(&call(Collective::Gather, false), 0, 3);
    assert_eq!((sheets.before.bytes(), &sheets.before), (2, &sheets.after));
    let sheets = Sheets::of(&call(Collective::Scatter, false), 0, 3);
    assert_eq!(contents(&sheets.input.expect("apart")), [Content::Byte(JUNK)]);
}

fn ragged(collective: Collective, counts: Vec<Vec<usize>>) -> Ragged {
    Ragged {
        group: 0,
        collective,
        dtype: DType::I32,
        op: ReduceOp::Sum,
        root: 1,
        counts,
        scattered: false,
        homes: [Home::Private; 2],
        salt: 7,
        offset: 0,
        spare: 2,
        times: 1,
        how: How::Blocking,
        late: None,
    }
}

#[test]
fn blocks_of_any_lengths_start_where_those_before_them_end() {
    let of = |rank, phase, count: usize| (Content::Of { rank, phase }, 4 * count);
    let counts = vec![vec![3, 0, 5]];
    for (collective, rank, input, after) in [
        (Collective::AllGather, 2, vec![of(2, 0, 5)], vec![of(0, 0, 3), of(1, 0, 0), of(2, 0, 5)]),
        (
            Collective::ReduceScatter,
            2,
            vec![of(2, 0, 3), of(2, 3, 0), of(2, 3, 5)],
            vec![(Content::Folded { phase: 3 }, 20)],
        ),
        (Collective::Gather, 1, vec![of(1, 0, 0)], vec![of(0, 0, 3), of(1, 0, 0), of(2, 0, 5)]),
        (Collective::Gather, 0, vec![of(0, 0, 3)], vec![(Content::Byte(BLANK), 8)]),
        (Collective::Scatter, 1, vec![of(1, 0, 3), of(1, 3, 0), of(1, 3, 5)], vec![of(1, 3, 0)]),
        (Collective::Scatter, 2, vec![(Content::Byte(JUNK), 8)], vec![of(1, 3, 5)]),
    ] {
        let sheets = Sheets::ragged(&ragged(collective, counts.clone()), rank);
        let given = sheets.input.expect("apart");
        assert_eq!((given.blocks, sheets.after.blocks), (input, after), "{collective} {rank}");
    }
    let counts = vec![vec![1, 2, 0], vec![0, 4, 1], vec![2, 2, 2]];
    let sheets = Sheets::ragged(&ragged(Collective::AllToAll, counts), 1);
    assert_eq!(sheets.input.expect("apart").blocks, [of(1, 0, 0), of(1, 0, 4), of(1, 4, 1)]);
    assert_eq!(sheets.after.blocks, [of(0, 1, 2), of(1, 0, 4), of(2, 2, 2)]);
}

#[test]
fn gaps_between_blocks_are_looked_at() {
    let call = Ragged { scattered: true, ..ragged(Collective::AllToAll, vec![vec![4; 3]; 3]) };
    let values = Values { dtype: DType::I32, op: Op::Known(ReduceOp::Sum), salt: 7 };
    let sheets = Sheets::ragged(&call, 0);
    let mut room = vec![0; sheets.after.room()];
    sheets.after.fill(&mut room, &values, 3);
    let mut gaps = 0;
    for (content, place) in sheets.after.places() {
        if *content == Content::Byte(BLANK) {
            for at in place {
                room[at] ^= 1;
                assert!(sheets.after.check(&room, &values, 3).is_err(), "byte {at}");
                room[at] ^= 1;
                gaps += 1;
            }
        }
    }
    assert!(gaps > 0, "these blocks have gaps");
}
