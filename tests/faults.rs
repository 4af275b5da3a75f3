//! Faults, on real processes: what every rank is told when ranks disagree, die, stop or leave, and that nothing of the
//! job is left.

#[path = "faults/calls.rs"]
mod calls;
#[path = "faults/choices.rs"]
mod choices;
#[path = "faults/deaths.rs"]
mod deaths;
#[path = "faults/job.rs"]
mod job;
#[path = "faults/letter.rs"]
mod letter;
#[path = "faults/messages.rs"]
mod messages;
#[path = "faults/operations.rs"]
mod operations;
#[path = "faults/pending.rs"]
mod pending;
mod ranks;
#[path = "faults/script.rs"]
mod script;
#[path = "faults/start.rs"]
mod start;
#[path = "faults/stops.rs"]
mod stops;

use std::process::ExitCode;

fn main() -> ExitCode {
    ranks::main(
        &[
            ("a_rank_that_never_comes_is_named_by_all", start::missing),
            ("a_rank_that_comes_twice_is_named_to_all", start::duplicate),
            ("a_rank_out_of_range_is_told_the_range", start::out_of_range),
            ("two_world_sizes_are_both_named_to_all", start::two_sizes),
            ("a_rank_that_dies_at_the_start_is_named_by_all", start::dies),
            ("a_mismatch_names_both_calls_to_all_before_anything_is_written", calls::mismatches),
            (
                "a_small_rooted_call_ends_well_for_who_is_late_when_the_others_disagree_on_the_next",
                calls::mismatch_in_the_next,
            ),
            ("a_call_that_makes_no_sense_leaves_the_communicator_usable", calls::misuse),
            ("one_rank_s_misuse_ends_nothing", calls::misuse_of_one),
            ("ranks_that_choose_differently_are_told_before_anything_is_written", choices::mismatches),
            (
                "an_algorithm_that_there_is_not_or_that_can_not_leaves_the_communicator_usable",
                choices::misuse,
            ),
            ("a_tuning_file_decides_and_a_bad_one_is_told_with_its_place", choices::files),
            ("ranks_with_different_user_operations_are_told_both_names", operations::mismatches),
            ("a_function_that_panics_is_named_to_all_with_its_rank", operations::panics),
            ("a_rank_that_leaves_is_named_to_those_that_call", calls::leaves),
            ("a_rank_that_leaves_after_the_last_call_hurts_nobody", calls::leaves_last),
            ("a_rank_killed_before_a_call_is_named_by_all_within_a_second", deaths::before),
            ("a_rank_killed_while_others_wait_is_named_by_all_within_a_second", deaths::awaited),
            ("a_rank_killed_during_a_call_is_named_by_all_within_a_second", deaths::during),
            ("a_rank_killed_between_calls_is_named_by_all_within_a_second", deaths::between),
            ("a_failed_communicator_leaves_nothing_in_its_process", deaths::leaves_nothing),
            ("a_message_that_ranks_disagree_on_is_told_to_both_and_ends_nothing", messages::disagreements),
            ("a_disagreement_leaves_the_rest_of_a_group_alone", messages::disagreement_in_a_group),
            ("a_rank_killed_amid_messages_is_named_by_all_within_a_second", messages::killed),
            ("a_message_that_nobody_meets_names_its_peer_at_the_deadline", messages::unreceived),
            ("a_stopped_peer_of_a_message_is_named_at_the_deadline", messages::stopped),
            ("a_peer_that_leaves_hurts_only_who_waits_for_its_messages", messages::leaves),
            ("a_rank_killed_while_calls_are_pending_is_named_by_each", pending::killed),
            ("a_mismatch_among_pending_calls_fails_it_and_those_behind_it", pending::mismatch),
            ("pending_calls_have_the_deadline_of_a_call", pending::deadline),
            ("a_rank_killed_while_messages_are_pending_is_named_by_each", pending::messages_killed),
            ("a_pending_message_that_nobody_meets_is_named_at_the_deadline", pending::messages_deadline),
            ("a_peer_that_leaves_is_named_to_the_messages_that_wait_for_it", pending::messages_left),
            ("a_stopped_rank_is_named_by_all_at_the_deadline", stops::stopped),
            ("a_rank_stopped_in_a_call_is_named_by_all_at_the_deadline", stops::stopped_in_call),
            ("a_stopped_rank_that_goes_on_in_time_hurts_nobody", stops::continued),
        ],
        &[("script", script::play)],
    )
}
