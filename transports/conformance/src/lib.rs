//! The contract of [`Links`] and of [`Pipes`](sohu_coll_core::pipe::Pipes) as tests, and links in memory that keep it.
//!
//! A transport gives a [`Harness`] and says [`conformance!`]; each test it gets is one line of the contract.
//! [`LoopLinks`] are the reference: a queue per pair of ranks, with faults that can be injected by seed, so
//! that an executor is tested over links that move one byte at a time, refuse, or break.
//!
//! What the checks take for granted, besides the words of the contract: a rank never asks for bytes past the
//! end of a call, and leaves a call only when `verify` (or `meet`) has said yes and then `settled` has. The checks run all
//! ranks on one thread in a seeded order, so that a failure comes again; one check uses threads.

use core::ops::DerefMut;
use sohu_coll_core::link::Links;

pub mod bids;
pub mod calls;
pub mod exchanges;
pub mod faults;
pub mod leaving;
mod loop_fabric;
mod loop_links;
mod loop_pipes;
pub mod passes;
pub mod pipes;
mod play;
mod seeded;
mod side;
pub mod streams;

pub use loop_fabric::Faults;
pub use loop_links::LoopLinks;
pub use seeded::Seeded;

/// Makes the links that the checks run on.
pub trait Harness {
    /// Bytes of a large message. Less for links that are slow on purpose.
    const LARGE_BYTES: usize = 8 << 20;

    /// Whether its pipes take bids.
    const BIDS: bool = true;

    /// Whether its links make exchanges of two ranks in one go.
    const IN_ONE_GO: bool = false;

    /// Whether its links lend memory wherever it lies.
    const LENDS_PRIVATE: bool = false;

    /// How many small calls follow each other in the check of many.
    const CALLS: u32 = 10_000;

    /// Fresh links between `size` ranks, joined, all in this process; the links of rank r at index r.
    fn links(size: u32) -> Vec<Box<dyn Links>>;

    /// As [`links`](Self::links), with `len` bytes of memory for each rank that its links can lend, where links lend
    /// at all.
    fn lending(size: u32, len: usize) -> (Vec<Box<dyn Links>>, Vec<Memory>) {
        (Self::links(size), (0..size).map(|_| Box::new(vec![0u8; len]) as Memory).collect())
    }
}

/// Memory of a rank.
pub type Memory = Box<dyn DerefMut<Target = [u8]>>;

/// The contract as `#[test]`s, for one [`Harness`]. With `closes` after it, also what a transport does that
/// sees by itself when a peer drops its links (others leave that to the control plane).
///
/// ```ignore
/// sohu_coll_conformance::conformance!(MyHarness, closes);
/// ```
#[macro_export]
macro_rules! conformance {
    ($harness:ty, closes) => {
        $crate::conformance!($harness);
        $crate::checks! { $harness:
            faults::a_dropped_peer_is_closed_once_its_bytes_are_taken,
            faults::sends_to_a_dropped_peer_end_in_closed,
            faults::verify_of_a_dropped_peer_is_closed,
            pipes::pipes_of_a_dropped_peer_are_closed,
        }
    };
    ($harness:ty) => {
        $crate::checks! { $harness:
            streams::links_say_who_they_are,
            streams::bytes_arrive_once_and_in_order,
            streams::large_messages_arrive_both_ways,
            streams::bytes_arrive_across_threads,
            streams::recv_of_nothing_changes_nothing,
            streams::send_refuses_when_full_and_works_again_after_a_drain,
            streams::a_fanned_out_send_gives_all_the_same_bytes,
            streams::a_fanned_out_send_waits_for_the_slowest,
            streams::what_is_settled_arrives_without_its_sender,
            passes::a_pass_folds_sources_and_forwards_to_all,
            passes::a_pass_to_its_own_source_keeps_both_streams_apart,
            passes::a_pass_without_destinations_only_takes,
            passes::a_pass_without_sources_only_gives,
            passes::a_pass_keeps_to_granule_and_limit,
            passes::a_pass_waits_for_every_source,
            passes::a_pass_without_room_takes_nothing,
            passes::passes_of_elements_survive_odd_pieces,
            calls::calls_without_bytes_end,
            calls::many_small_calls_follow_each_other,
            calls::a_call_may_begin_while_a_peer_is_in_the_last,
            calls::verify_waits_for_every_peer_and_is_cheap_to_repeat,
            calls::verify_finds_another_call_on_every_side,
            calls::recv_hands_over_nothing_of_another_call,
            calls::pass_hands_over_nothing_of_another_call,
            calls::every_field_of_the_signature_is_compared,
            exchanges::an_exchange_gives_every_rank_the_bytes_of_all_others,
            exchanges::an_exchange_of_one_rank_with_all_gives_whoever_takes_its_bytes,
            exchanges::exchanges_go_on_in_any_order_of_the_ranks,
            exchanges::exchanges_work_across_threads,
            exchanges::an_exchange_without_one_rank_takes_nothing,
            exchanges::a_rank_may_offer_while_its_peers_are_in_the_last_call,
            exchanges::an_offer_of_another_call_is_told_and_not_handed_over,
            exchanges::failed_links_neither_offer_nor_meet,
            exchanges::a_span_is_made_of_bytes_that_are_still_out_at_the_end_of_an_exchange,
            exchanges::a_span_that_was_offered_is_back_when_its_last_reader_is_done,
            leaving::ranks_get_ahead_of_one_that_is_late_but_only_so_far,
            leaving::another_call_is_told_to_ranks_that_have_left,
            pipes::both_strands_of_all_pipes_deliver_once_and_in_order,
            pipes::pipes_work_across_threads,
            pipes::puts_are_whole_up_to_a_line,
            bids::bids_and_puts_arrive_in_their_order,
            pipes::nothing_is_put_or_taken_where_nothing_can_be,
            pipes::full_bytes_hold_up_neither_answers_nor_others,
            pipes::full_answers_hold_up_no_bytes,
            pipes::pipes_and_calls_do_not_meet,
            pipes::what_is_clear_arrives_without_its_sender,
            pipes::what_is_lent_is_clear_when_it_was_taken,
            pipes::pipes_of_failed_links_fail,
            faults::errors_stick,
            faults::lent_spans_come_back,
            faults::posted_spans_come_back,
            faults::a_peer_that_left_after_the_call_disturbs_nobody,
        }
    };
}

/// Makes `#[test]`s of checks; [`conformance!`] is the way in.
#[doc(hidden)]
#[macro_export]
macro_rules! checks {
    ($harness:ty: $($module:ident :: $check:ident),* $(,)?) => {
        $(
            #[test]
            fn $check() {
                $crate::$module::$check::<$harness>();
            }
        )*
    };
}
