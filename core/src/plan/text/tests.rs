//! The text format: what is printed reads back, and nothing else does any harm.

use super::*;
use crate::plan::{input, output, scratch};
use proptest::prelude::*;

fn step(action: Action) -> Step {
    let written_at = Location::caller();
    Step { action, channel: ChannelId(0), finishes: false, after: Vec::new(), written_at }
}

fn example() -> Program {
    let mut program = Program {
        job: Job { root: Rank(2), in_place: true, ..Job::new(Collective::Broadcast, 3) },
        rank: Rank(1),
        chunks: 4,
        steps: vec![
            step(Action::Copy { from: input(0, 4), into: output(0, 4) }),
            step(Action::Send { from: input(0, 1), peer: Rank(2) }),
            step(Action::Recv { into: scratch(1, 1), peer: Rank(0) }),
            step(Action::RecvReduce { into: output(0, 4), peer: Rank(0) }),
            step(Action::Reduce { from: scratch(1, 1), into: output(3, 1) }),
        ],
        scratch_chunks: 2,
        outstanding_max: Some(3),
    };
    program.steps[1].channel = ChannelId(7);
    program.steps[3].after = vec![Edge { on: 0, wait: Wait::Streaming }, Edge { on: 2, wait: Wait::Whole }];
    program.steps[4].finishes = true;
    program
}

const EXAMPLE: &str = "\
program broadcast rank 1 of 3 chunks 4 pieces 1 outstanding 3 scratch 2 root 2 in_place
   0  copy         input[0..4] -> output[0..4]
   1  send         input[0] -> rank 2         channel 7
   2  recv         rank 0 -> scratch[1]
   3  recv_reduce  rank 0 -> output[0..4]     after 0~ 2
   4  reduce       scratch[1] -> output[3]    finishes
";

#[test]
fn every_verb_and_note_has_its_spelling() {
    assert_eq!(example().to_string(), EXAMPLE);
}

#[test]
fn what_is_printed_reads_back() {
    assert_eq!(parse(EXAMPLE).unwrap().to_string(), EXAMPLE);
}

#[test]
fn comments_blank_lines_and_spacing_do_not_matter() {
    let loose = EXAMPLE.replace("   ", " ").replace('\n', "\r\n\n  # a comment\n");
    assert_eq!(parse(&loose).unwrap().to_string(), EXAMPLE);
}

#[test]
fn passes_show_sources_sinks_and_steps() {
    let passes = Passes {
        passes: vec![
            Pass {
                sources: vec![Source::Local(input(0, 2)), Source::Peer(Rank(1))],
                into: Some(output(0, 2)),
                to: vec![Rank(1), Rank(2)],
                extent: output(0, 2),
                channel: ChannelId(0),
                finishes: true,
                after: Vec::new(),
                steps: vec![0, 1],
                written_at: Location::caller(),
            },
            Pass {
                sources: vec![Source::Local(output(1, 1))],
                into: None,
                to: vec![Rank(3)],
                extent: output(1, 1),
                channel: ChannelId(3),
                finishes: false,
                after: vec![Edge { on: 0, wait: Wait::Whole }],
                steps: vec![2],
                written_at: Location::caller(),
            },
        ],
        scratch_chunks: 1,
    };
    let text = passes.to_string();
    let lines: Vec<String> =
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "passes 2 scratch 1",
            "0 fold input[0..2] + rank 1 -> output[0..2], rank 1, rank 2 finishes steps 0 1",
            "1 move output[1] -> rank 3 channel 3 after 0 steps 2",
        ]
    );
}

#[test]
fn errors_name_the_line_and_the_reason() {
    let head = "program all_reduce rank 0 of 2 chunks 2 pieces 1 scratch 1\n";
    let huge = format!("program {}", "x".repeat(1000));
    for (text, line, reason) in [
        ("", 1, "no line `program ...`"),
        ("\n# nothing\n", 2, "no line `program ...`"),
        ("0 copy input[0] -> output[0]", 1, "before the line"),
        ("program", 1, "the line ends where a collective"),
        ("program all_recude rank 0 of 1", 1, "there are all_reduce, reduce_scatter"),
        ("program \u{1b}[2J", 1, "`\\u{1b}[2J`"),
        (huge.as_str(), 1, "...`; there are"),
        ("program all_reduce rank 2 of 2", 1, "rank 2 is not one of 2 ranks"),
        ("program all_reduce rank 0 of 0", 1, "no number from 1 to 65536"),
        ("program all_reduce rank -1 of 2", 1, "rank `-1` is no number"),
        ("program all_reduce rank 0 of 2 chunks 99999999999", 1, "no number from 1 to 1048576"),
        ("program all_reduce rank 0 of 2 chunks 1 pieces 1 scratch 2", 1, "from 0 to 1"),
        ("program all_reduce rank 0 of 2 chunks 1 pieces 1 root 2", 1, "root `2`"),
        ("program all_gather rank 0 of 2 chunks 3 pieces 1", 1, "dealt out evenly to 2 blocks"),
        ("program all_reduce rank 0 of 2 chunks 1 pieces 1 please", 1, "`please` is more"),
        (&format!("{head}{head}"), 2, "a second program"),
        (&format!("{head}1 copy input[0] -> output[0]"), 2, "from 0 to 0"),
        (&format!("{head}0 move input[0] -> output[0]"), 2, "is no verb"),
        (&format!("{head}0 copy input[2] -> output[0]"), 2, "chunk `2` is no number from 0 to 1"),
        (&format!("{head}0 copy input[0..3] -> output[0]"), 2, "the end of the chunks `3`"),
        (&format!("{head}0 copy input[1..0] -> output[0]"), 2, "names no chunk"),
        (&format!("{head}0 copy input[1..1] -> output[0]"), 2, "names no chunk"),
        (&format!("{head}0 copy input[0..2] -> output[0]"), 2, "not as many"),
        (&format!("{head}0 copy input[+1] -> output[0]"), 2, "`+1`"),
        (&format!("{head}0 copy inptu[0] -> output[0]"), 2, "is no buffer"),
        (&format!("{head}0 copy input -> output[0]"), 2, "no run of chunks"),
        (&format!("{head}0 send input[0] rank 1"), 2, "`rank` where -> should be"),
        (&format!("{head}0 send input[0] -> rank 2"), 2, "rank `2`"),
        (&format!("{head}0 send input[0] -> rank 0"), 2, "no link to itself"),
        (&format!("{head}0 recv rank 1 -> scratch[1]"), 2, "chunk `1`"),
        (&format!("{head}0 recv rank 1 -> output[0] after 0"), 2, "step 0 comes after no step"),
        (&format!("{head}0 recv rank 1 -> output[0] after"), 2, "the line ends"),
        (&format!("{head}0 recv rank 1 -> output[0] channel 65536"), 2, "from 0 to 65535"),
        (&format!("{head}0 recv rank 1 -> output[0] finishes finishes"), 2, "is more than"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.reason.contains(reason), "{text}: {error}");
        assert!(error.reason.len() < 400, "{error}");
    }
}

#[test]
fn chunks_beyond_any_buffer_still_print() {
    assert_eq!(input(u32::MAX, 2).to_string(), "input[4294967295..4294967297]");
}

fn chunks(limit: u32, buffer: Buffer) -> impl Strategy<Value = Chunks> {
    (0..limit, 1..=limit).prop_map(move |(first, count)| Chunks {
        buffer,
        first,
        count: count.min(limit - first),
    })
}

fn buffer() -> impl Strategy<Value = Buffer> {
    prop_oneof![Just(Buffer::Input), Just(Buffer::Output), Just(Buffer::Scratch)]
}

prop_compose! {
    fn actions()(verb in 0..5, peer in 1..6u32, into_buffer in buffer())
        (verb in Just(verb), peer in Just(Rank(peer)), from in buffer().prop_flat_map(|b| chunks(9, b)), into_buffer in Just(into_buffer))
        -> Action
    {
        let into = Chunks { buffer: into_buffer, ..from };
        match verb {
            0 => Action::Copy { from, into },
            1 => Action::Reduce { from, into },
            2 => Action::Send { from, peer },
            3 => Action::Recv { into, peer },
            _ => Action::RecvReduce { into, peer },
        }
    }
}

prop_compose! {
    fn steps()(action in actions(), channel in 0..3u16, finishes: bool, after in prop::collection::vec((any::<u32>(), any::<bool>()), 0..4))
        -> Step
    {
        let wait = |streaming| if streaming { Wait::Streaming } else { Wait::Whole };
        let after = after.into_iter().map(|(on, streaming)| Edge { on, wait: wait(streaming) }).collect();
        Step { action, channel: ChannelId(channel), finishes, after, written_at: Location::caller() }
    }
}

prop_compose! {
    fn programs()(
        collective in prop::sample::select(&Collective::ALL[..]),
        root in 0..6u32,
        in_place: bool,
        pieces in 1..4u32,
        cores in 1..7u32,
        outstanding_max in prop::option::of(1..9u32),
        steps in prop::collection::vec(steps(), 0..20),
    ) -> Program {
        let mut steps = steps;
        for (number, step) in steps.iter_mut().enumerate() {
            step.after.retain(|_| number > 0);
            step.after.iter_mut().for_each(|edge| edge.on %= number as u32);
        }
        let job = Job { collective, size: 6, root: Rank(root), in_place, pieces, cores };
        let chunks = job.blocks().max(12);
        Program { job, rank: Rank(0), chunks, steps, scratch_chunks: 9, outstanding_max }
    }
}

proptest! {
    #[test]
    fn every_program_survives_the_round_trip(program in programs()) {
        let text = program.to_string();
        let back = parse(&text).unwrap();
        prop_assert_eq!(back.to_string(), text);
        prop_assert_eq!(back.job, program.job);
        prop_assert_eq!(back.outstanding_max, program.outstanding_max);
        prop_assert_eq!((back.rank, back.chunks, back.scratch_chunks), (program.rank, program.chunks, 9));
        prop_assert_eq!(back.steps.len(), program.steps.len());
        for (ours, theirs) in back.steps.iter().zip(&program.steps) {
            prop_assert_eq!(ours.action, theirs.action);
            prop_assert_eq!(&ours.after, &theirs.after);
            prop_assert_eq!((ours.channel, ours.finishes), (theirs.channel, theirs.finishes));
        }
    }

    #[test]
    fn damaged_text_is_refused_or_is_another_program(program in programs(), cuts in prop::collection::vec((any::<prop::sample::Index>(), "[ -~\u{e9}]{0,3}"), 1..4)) {
        let mut text: Vec<char> = program.to_string().chars().collect();
        for (at, new) in cuts {
            let at = at.index(text.len());
            text.splice(at..at + 1, new.chars());
            text.push('\n');
        }
        let text: String = text.into_iter().collect();
        if let Ok(other) = parse(&text) {
            prop_assert_eq!(parse(&other.to_string()).unwrap().to_string(), other.to_string());
        }
    }

    #[test]
    fn noise_is_no_program(text in "\\PC{0,200}") {
        prop_assert!(parse(&text).is_err());
    }
}
