use super::*;
use std::collections::BTreeSet;

fn steps(seed: u64, ranks: u32, from: u64, count: usize) -> Vec<(u64, Step)> {
    Script::new(seed, ranks, from).take(count).collect()
}

#[test]
fn the_same_seed_is_the_same_sequence_and_another_is_not() {
    assert_eq!(steps(7, 3, 0, 1000), steps(7, 3, 0, 1000));
    let other = steps(8, 3, 0, 1000);
    let same = steps(7, 3, 0, 1000).into_iter().zip(other).filter(|(a, b)| a == b).count();
    // The ends of the chapters are.
    assert!(same < 40, "{same} of 1000 steps are the same");
}

#[test]
fn a_later_beginning_leaves_out_whole_chapters_and_changes_no_step() {
    let all = steps(3, 5, 0, 1000);
    assert_eq!(steps(3, 5, 700, 360), all[640..]);
}

#[test]
fn calls_are_of_live_groups_and_name_their_ranks() {
    for ranks in [1, 2, 5, 8] {
        let mut live = vec![Group { name: 0, members: (0..ranks).collect() }];
        for (number, step) in steps(11, ranks, 0, 5000) {
            let find = |name: u32| {
                let group = live.iter().find(|group| group.name == name);
                group
                    .unwrap_or_else(|| panic!("step {number} names group {name}, which does not live"))
                    .clone()
            };
            match step {
                Step::Call(call) => {
                    let size = find(call.group).members.len() as u32;
                    assert!(call.root < size && call.late.is_none_or(|(rank, _)| rank < size), "{number}");
                    let held = call.shape.collective.held(size, true);
                    let longest = held[0].max(held[1]) as usize * call.shape.count * call.shape.dtype.size();
                    assert!(longest <= BYTES_MAX && call.offset <= OFFSET_MAX, "{number}: {longest} bytes");
                }
                Step::Ragged(call) => {
                    let size = find(call.group).members.len();
                    assert!((call.root as usize) < size && call.counts.iter().all(|row| row.len() == size));
                    let rows = if call.collective == Collective::AllToAll { size } else { 1 };
                    assert_eq!(call.counts.len(), rows, "{number}");
                }
                Step::Messages(messages) => {
                    let size = find(messages.group).members.len();
                    let mut sums = vec![[0; 2]; size];
                    for Message { from, to, count } in messages.list {
                        sums[from as usize][0] += count * messages.dtype.size();
                        sums[to as usize][1] += count * messages.dtype.size();
                    }
                    assert!(sums.iter().flatten().all(|sum| *sum <= BYTES_MAX), "{number}: {sums:?}");
                }
                Step::Wait { group, .. } => drop(find(group)),
                Step::Split { parent, said, made } => {
                    let parent = find(parent);
                    assert_eq!(said.len(), parent.members.len(), "{number}");
                    let parted: usize = made.iter().map(|group| group.members.len()).sum();
                    assert_eq!(parted, said.iter().filter(|said| said.0.is_some()).count(), "{number}");
                    live.extend(made);
                }
                Step::Duplicate { parent, made } => {
                    assert_eq!(find(parent).members, made.members, "{number}");
                    live.push(made);
                }
                Step::Drop { group } => {
                    assert!(group != 0, "the world is never dropped");
                    let gone = find(group);
                    live.retain(|other| *other != gone);
                }
                Step::Rest => {
                    assert_eq!(number % CHAPTER, CHAPTER - 1);
                    live.truncate(1);
                }
            }
            assert!(live.len() <= LIVE_MAX, "{number}: {} groups", live.len());
        }
    }
}

#[test]
fn everything_that_can_be_drawn_is() {
    let (mut kinds, mut sizes, mut steps_seen) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut ragged, mut messages, mut hows) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (_, step) in steps(1, 3, 0, 20_000) {
        let name = match &step {
            Step::Call(Call { how: How::Blocking, .. }) => "blocking call",
            Step::Call(Call { how: How::Started, .. }) => "started call",
            Step::Call(Call { how: How::Forgotten, .. }) => "forgotten call",
            Step::Call(Call { how: How::Persistent(_), .. }) => "persistent call",
            Step::Ragged(Ragged { scattered: true, .. }) => "scattered blocks",
            Step::Ragged(_) => "ragged call",
            Step::Messages(_) => "messages",
            Step::Wait { .. } => "wait",
            Step::Split { said, .. } if said.iter().any(|said| said.0.is_none()) => {
                "split, some without colour"
            }
            Step::Split { .. } => "split",
            Step::Duplicate { .. } => "duplicate",
            Step::Drop { .. } => "drop",
            Step::Rest => "rest",
        };
        steps_seen.insert(name);
        if let Step::Call(Call { shape, .. }) = &step {
            kinds.insert((shape.collective, shape.dtype, shape.op));
            sizes.insert(shape.count * shape.dtype.size());
        }
        if let Step::Ragged(Ragged { how, .. }) | Step::Messages(Messages { how, .. }) = &step {
            hows.insert((name, format!("{how:?}")));
        }
        match step {
            Step::Ragged(call) => drop(ragged.insert((call.collective, call.dtype))),
            Step::Messages(Messages { list, dtype, .. }) => {
                messages.extend(list.iter().map(|message| message.count * dtype.size()));
            }
            _ => {}
        }
    }
    assert_eq!(kinds.len(), 8 * 12 * Op::ALL.len());
    assert_eq!(ragged.len(), 5 * 12);
    assert_eq!(hows.len(), 3 * 3, "blocks in order, scattered, and messages: {hows:?}");
    let longest = messages.last().expect("messages are drawn");
    assert!(messages.contains(&0) && messages.contains(&1) && *longest > BYTES_MAX / 2, "{longest}");
    assert_eq!(steps_seen.len(), 13, "{steps_seen:?}");
    for edge in EDGES {
        for size in [edge - 8, edge, edge + 8] {
            assert!(sizes.contains(&size), "{size} bytes are never drawn");
        }
    }
    assert!([0, 1, 3, BYTES_MAX].iter().all(|size| sizes.contains(size)), "the least and the most");
}
