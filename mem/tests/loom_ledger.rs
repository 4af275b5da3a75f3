//! The ledger under loom: booked bytes are written again only when their holder is done with them.
#![expect(unsafe_code, reason = "loom's cells are read and written through pointers")]

mod model;

use loom::thread;
use model::{ModelWords, explore};
use sohu_coll_mem::ledger::{Ledger, give_back};
use sohu_coll_mem::words::{Ordering, Orders, Sound, Word, Words};

struct WeakReturn;
impl Orders for WeakReturn {
    const SPAN_RETURN: Ordering = Ordering::Relaxed;
}

struct WeakLook;
impl Orders for WeakLook {
    const SPAN_LOOK: Ordering = Ordering::Relaxed;
}

/// Where the booked bytes are said to lie.
const AT: usize = 64;

/// Two of the words of a model line that loom takes for plain memory: the halves of a buffer.
const HALVES: [usize; 2] = [1, 2];

/// A holder reads what was lent; the owner then writes it.
fn lend<O: Orders + 'static>() {
    let (entries, bytes) = (ModelWords::atomics(1), ModelWords::lines(1));
    let ledger = Ledger::<_, O>::over(entries.clone());
    assert_eq!(ledger.book(AT, 8, false), Some(0));
    assert!(ledger.book(AT, 8, false).is_none(), "one word is one booking");
    let holder = thread::spawn({
        let (entries, bytes) = (entries.clone(), bytes.clone());
        move || {
            assert_eq!(bytes.word(HALVES[0]).load(Ordering::Relaxed), 0);
            give_back::<O>(entries.word(0), 0);
        }
    });
    while ledger.touches(AT, 8, true) {
        entries.spin();
    }
    bytes.word(HALVES[0]).store(2, Ordering::Relaxed);
    assert_eq!(ledger.out(), 0);
    holder.join().expect("the holder");
}

/// A holder writes what was posted, one half after the other; the owner reads each half when it is back.
fn post<O: Orders + 'static>() {
    let (entries, bytes) = (ModelWords::atomics(1), ModelWords::lines(1));
    let ledger = Ledger::<_, O>::over(entries.clone());
    assert_eq!(ledger.book(AT, 16, true), Some(0));
    let holder = thread::spawn({
        let (entries, bytes) = (entries.clone(), bytes.clone());
        move || {
            bytes.word(HALVES[0]).store(2, Ordering::Relaxed);
            give_back::<O>(entries.word(0), AT + 8);
            bytes.word(HALVES[1]).store(3, Ordering::Relaxed);
            give_back::<O>(entries.word(0), 0);
        }
    });
    for (half, expected) in HALVES.into_iter().zip([2, 3]) {
        while ledger.touches(AT + (half - 1) * 8, 8, false) {
            entries.spin();
        }
        assert_eq!(bytes.word(half).load(Ordering::Relaxed), expected);
    }
    holder.join().expect("the holder");
}

#[test]
fn lent_bytes_are_written_only_when_they_are_back() {
    explore(lend::<Sound>);
}

#[test]
fn posted_bytes_are_read_only_when_they_are_back() {
    explore(post::<Sound>);
}

/// One row for each ordering: the scenario, with exactly that ordering weakened to Relaxed.
macro_rules! rejected {
    ($($name:ident: $scenario:expr;)*) => {$(
        #[test]
        #[should_panic(expected = "Causality violation")]
        fn $name() {
            explore($scenario);
        }
    )*};
}

rejected! {
    loom_rejects_a_loan_with_relaxed_return: lend::<WeakReturn>;
    loom_rejects_a_loan_with_relaxed_look: lend::<WeakLook>;
    loom_rejects_a_post_with_relaxed_return: post::<WeakReturn>;
    loom_rejects_a_post_with_relaxed_look: post::<WeakLook>;
}
