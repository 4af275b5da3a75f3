//! The buffers of calls whose blocks have lengths of their own, and of messages.

use super::{BLANK, Content, GUARD, JUNK, Sheet, Sheets};
use crate::soak::draw::{Messages, Ragged};
use sohu_coll::Collective;

/// Elements between the phases of two messages, so that one is never taken for another.
const PHASE: usize = 37;

impl Sheets {
    /// The buffers of `rank` in such a call.
    pub(in crate::soak) fn ragged(call: &Ragged, rank: u32) -> Self {
        let element = call.dtype.size();
        let (own, is_root) = (rank as usize, rank == call.root);
        let row = &call.counts[0];
        let sheet = |blocks: Vec<(Content, usize)>| {
            Some(Sheet {
                blocks: blocks.into_iter().map(|(content, count)| (content, count * element)).collect(),
            })
        };
        let before = |row: &[usize], to: usize| row[..to].iter().sum::<usize>();
        // What `from` has for each, one after the other; what each has; what this rank alone has, or gets.
        let all_of = |from: u32| {
            let block = |to: usize| (Content::Of { rank: from, phase: before(row, to) }, row[to]);
            sheet((0..row.len()).map(block).collect())
        };
        let each =
            || sheet((0..).zip(row).map(|(rank, count)| (Content::Of { rank, phase: 0 }, *count)).collect());
        let one = |content| sheet(vec![(content, row[own])]);
        let mine = Content::Of { rank, phase: 0 };
        let (given, got) = match call.collective {
            Collective::AllGather => (one(mine), each()),
            Collective::ReduceScatter => (all_of(rank), one(Content::Folded { phase: before(row, own) })),
            Collective::Gather => (one(mine), is_root.then(each).flatten()),
            Collective::Scatter => {
                let part = Content::Of { rank: call.root, phase: before(row, own) };
                (is_root.then(|| all_of(rank)).flatten(), one(part))
            }
            _ => return Self::all_to_all(call, rank),
        };
        Self::apart(given, got, call.spare * element)
    }

    fn all_to_all(call: &Ragged, rank: u32) -> Self {
        let phase = |from: u32, to: u32| call.counts[from as usize][..to as usize].iter().sum();
        let side = |gives: bool| {
            let run = |(peer, place): (Option<u32>, std::ops::Range<usize>)| {
                let content = match (peer, gives) {
                    (None, true) => Content::Byte(JUNK),
                    (None, false) => Content::Byte(BLANK),
                    (Some(to), true) => Content::Of { rank, phase: phase(rank, to) },
                    (Some(from), false) => Content::Of { rank: from, phase: phase(from, rank) },
                };
                (content, place.len() * call.dtype.size())
            };
            Sheet { blocks: call.lay(rank, gives).runs.into_iter().map(run).collect() }
        };
        Self::apart(Some(side(true)), Some(side(false)), 0)
    }

    /// What `rank` sends and what it receives: message after message, with guards between them.
    pub(in crate::soak) fn messages(messages: &Messages, rank: u32) -> Self {
        let side = |sends: bool| {
            let mut blocks = Vec::new();
            for (number, message) in messages.list.iter().enumerate() {
                if rank == if sends { message.from } else { message.to } {
                    let content = Content::Of { rank: message.from, phase: number * PHASE };
                    blocks.push((content, message.count * messages.dtype.size()));
                    blocks.push((Content::Byte(BLANK), GUARD));
                }
            }
            Sheet { blocks }
        };
        Self::apart(Some(side(true)), Some(side(false)), 0)
    }
}
