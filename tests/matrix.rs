//! Results, on real processes: every collective, type, operation, form and size against a reference that every rank
//! computes for itself.

#[path = "matrix/groups.rs"]
mod groups;
#[path = "matrix/letters.rs"]
mod letters;
#[path = "matrix/lives.rs"]
mod lives;
#[path = "matrix/memos.rs"]
mod memos;
#[path = "matrix/messages.rs"]
mod messages;
#[path = "matrix/names.rs"]
mod names;
#[path = "matrix/operations.rs"]
mod operations;
#[path = "matrix/pages.rs"]
mod pages;
#[path = "matrix/places.rs"]
mod places;
#[path = "matrix/ragged.rs"]
mod ragged;
mod ranks;
#[path = "matrix/started.rs"]
mod started;
#[path = "matrix/started_more.rs"]
mod started_more;
#[path = "matrix/strict.rs"]
mod strict;
#[path = "matrix/sweep.rs"]
mod sweep;

use ranks::{Group, Post, Role, TRANSPORTS, Test};
use std::process::ExitCode;
use std::time::Duration;

/// Every algorithm there is.
const ALGORITHMS: [&str; 11] = [
    "one_shot",
    "two_shot",
    "ring",
    "recursive_doubling",
    "binomial",
    "bruck",
    "double_tree",
    "halving_doubling",
    "pairwise",
    "star",
    "chains",
];
/// How long one call may take: the machine may be busy with other tests.
const TIMEOUT_MS: u64 = 60_000;
/// How long one set may take.
const PATIENCE: Duration = Duration::from_secs(300);

const TESTS: &[Test] = &[
    ("every_combination_is_right_at_2_ranks", || every_combination(2)),
    ("every_combination_is_right_at_3_ranks", || every_combination(3)),
    ("every_combination_is_right_at_4_ranks", || every_combination(4)),
    ("every_combination_is_right_at_5_ranks", || every_combination(5)),
    ("every_combination_is_right_at_8_ranks", || every_combination(8)),
    ("one_rank_alone_is_right", one_rank_alone),
    ("registered_buffers_are_right", registered_buffers),
    ("one_registered_buffer_of_two_is_right", mixed_buffers),
    ("buffers_at_odd_addresses_are_right", odd_buffers),
    ("every_algorithm_is_right_when_forced", forced_algorithms),
    ("direct_algorithms_fold_in_rank_order_and_round_once", || rounded(&["one_shot", "two_shot"])),
    ("other_algorithms_are_as_near_as_their_rounding", || {
        rounded(&[
            "ring",
            "recursive_doubling",
            "binomial",
            "double_tree",
            "halving_doubling",
            "star",
            "chains",
        ])
    }),
    ("typed_calls_are_right_for_every_element_type", lives::typed_calls),
    ("several_communicators_of_a_process_do_not_meet", lives::several_communicators),
    ("user_operations_fold_in_the_order_of_the_ranks", operations::ordered),
    ("commutative_user_operations_are_right_with_every_algorithm", operations::commutative),
    ("reproducible_results_do_not_depend_on_cuts", strict::strict_results),
    ("blocks_of_any_length_end_where_they_should", ragged::ragged_calls),
    ("all_to_alls_of_more_ranks_than_may_be_sent_to_at_once_are_right", ragged::many_ranks),
    ("blocks_of_any_length_end_where_they_should_in_place", ragged::in_place_calls),
    ("short_blocks_that_go_along_with_their_lengths_end_where_they_should", memos::memos),
    ("more_ranks_than_tell_each_other_memos_agree_all_the_same", memos::too_many_for_memos),
    ("messages_reach_their_rank_in_any_order", messages::messages),
    ("memory_that_is_lent_often_moves_and_holds_what_was_stored", pages::pages),
    ("ranks_may_be_in_place_where_others_are_not", places::places),
    ("splits_and_copies_have_the_ranks_they_should", groups::splits),
    ("threads_of_one_process_can_be_ranks", groups::threads),
    ("errors_name_the_communicator_where_it_has_a_name", names::names),
    ("memory_is_itemised_and_bounded", names::memory),
    ("started_calls_end_as_blocking_ones_do", || started::on_all("started")),
    ("started_calls_are_made_in_their_order_however_they_are_waited_for", || started::on_all("order")),
    ("what_nobody_waits_for_is_made_all_the_same", || started::on_all("forgotten")),
    ("a_wait_that_ends_early_can_be_taken_up_again", || started::on_all("early")),
    ("a_call_that_can_not_be_started_gives_its_buffers_back", || started::on_all("misuse")),
    ("persistent_calls_can_be_made_again_and_again", || started::on_all("persistent")),
    ("started_calls_with_blocks_of_any_length_end_as_blocking_ones_do", || started::on_all("started_ragged")),
    ("started_calls_fold_by_scalars_and_functions_of_their_own", || started::on_all("started_operations")),
    ("started_messages_need_no_common_order", || started::on_all("mirrored")),
    ("a_blocking_message_goes_on_beside_those_that_were_started", || started::on_all("beside")),
    ("a_started_message_ends_although_one_behind_it_is_not_met", || started::on_all("behind")),
    ("started_messages_reach_their_rank_among_other_calls", || started::on_all("letters")),
    ("started_groups_give_back_what_they_were_given", || started::on_all("started_groups")),
    ("messages_that_nobody_waits_for_are_made_all_the_same", || started::on_all("lost_letters")),
    ("started_calls_are_futures", || started::on_all("futures")),
    ("calls_of_several_communicators_need_no_common_order", || started::on_all("opposite")),
    ("a_panic_of_the_proxy_ends_the_communicator_and_not_the_process", started::panics),
    ("coming_and_going_leaves_nothing_behind", lives::coming_and_going),
];

const ROLES: &[Role] = &[
    ("sweep", sweep::play),
    ("typed", lives::play_typed),
    ("several", lives::play_several),
    ("split", groups::play_split),
    ("pages", pages::play_pages),
    ("places", places::play_places),
    ("names", names::play_names),
    ("memory", names::play_memory),
    ("strict", strict::play_strict),
    ("ragged", ragged::play_ragged),
    ("many", ragged::play_many),
    ("ragged_in_place", ragged::play_ragged_in_place),
    ("memos", memos::play_memos),
    ("too_many", memos::play_too_many),
    ("messages", messages::play_messages),
    ("mirrored", letters::play_mirrored),
    ("beside", letters::play_beside),
    ("behind", letters::play_behind),
    ("letters", letters::play_letters),
    ("started_groups", letters::play_groups),
    ("lost_letters", letters::play_lost),
    ("operations", operations::play),
    ("cycles", lives::play_cycles),
    ("started", started::play_started),
    ("started_ragged", started_more::play_ragged),
    ("started_operations", started_more::play_operations),
    ("order", started::play_order),
    ("forgotten", started::play_forgotten),
    ("early", started::play_early),
    ("misuse", started::play_misuse),
    ("persistent", started::play_persistent),
    ("futures", started::play_futures),
    ("opposite", started::play_opposite),
];

fn main() -> ExitCode {
    ranks::main(TESTS, ROLES)
}

/// Makes all calls of a set on one job, and says how many were made. Every rank must have got equal bits.
#[track_caller]
fn run(set: &str, size: u32, transport: &str, algorithm: &str) -> u32 {
    let mut group = Group::start("sweep", size).within(PATIENCE);
    for post in Post::all(size, transport, TIMEOUT_MS, algorithm) {
        group.tell(post.rank as usize, &format!("{set} {}", post.line()));
    }
    let first = group.hear(0).text;
    let what = format!("{set} at {size} ranks on {transport}, algorithm {algorithm}");
    let Some(made) = first.strip_prefix("made ").and_then(|rest| rest.split(' ').next()?.parse().ok()) else {
        group.fail(&format!("{what}: {first}"));
    };
    for rank in 1..group.len() {
        let other = group.hear(rank).text;
        if other != first {
            group.fail(&format!("{what}: rank 0 {first}, rank {rank} {other}"));
        }
    }
    group.end();
    made
}

fn every_combination(size: u32) {
    // Each size costs most where many ranks take turns on few cores; five ranks have the rest of the sizes.
    let (set, sizes) = if [4, 8].contains(&size) { ("wide", 4) } else { ("all", 8) };
    for transport in TRANSPORTS {
        // Three collectives reduce, by each of 6 operations, and five do not; 12 types, the sizes, 2 forms.
        assert_eq!(run(set, size, transport, "-"), (3 * 6 + 5) * 12 * sizes * 2);
    }
}

fn one_rank_alone() {
    for transport in TRANSPORTS {
        run("few", 1, transport, "-");
    }
}

fn registered_buffers() {
    for size in [1, 2, 3, 5] {
        run("registered", size, "shm", "-");
    }
    run("registered", 2, "tcp", "-");
}

fn mixed_buffers() {
    for size in [2, 3] {
        run("mixed", size, "shm", "-");
    }
}

fn odd_buffers() {
    for transport in TRANSPORTS {
        run("odd", 3, transport, "-");
    }
}

fn forced_algorithms() {
    for algorithm in ALGORITHMS {
        for size in [2, 3, 4, 5, 8] {
            let made = run("forced", size, "shm", algorithm);
            // One collective at least: 3 types, 5 sizes, 2 forms. Some are for more than three ranks.
            assert!(made >= 3 * 5 * 2 || size < 4, "{algorithm} at {size} ranks: {made} calls");
        }
        run("forced", 3, "tcp", algorithm);
    }
}

fn rounded(algorithms: &[&str]) {
    for algorithm in algorithms {
        for size in [2, 3, 4, 5, 8] {
            run("rounded", size, "shm", algorithm);
        }
        run("rounded", 4, "tcp", algorithm);
    }
}
