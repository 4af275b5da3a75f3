//! The ring of lines against an oracle, near the wrap of its counters, against a hostile peer, and between
//! two threads.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use sohu_coll_mem::credit::{CreditRx, CreditTx};
use sohu_coll_mem::line::{
    Corrupt, Line, LineRx, LineTx, OUTSTANDING_MAX, PAYLOAD_BYTES, PAYLOAD_WORDS, catch_up,
};
use sohu_coll_mem::words::{AtomicU64, LINE_WORDS, Mapped, Ordering, Words};

fn zeroed(words: usize) -> Arc<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn line(seed: u64) -> Line {
    let mut words = [0; PAYLOAD_WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        *word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(index as u32);
    }
    Line { kind: seed as u8, len: seed as u8 % 57, lines_ack: seed as u16, chunks_ack: !seed as u16, words }
}

/// What a run of the oracle does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Puts a line of this many words.
    Put(usize),
    /// Looks at the next line, twice, and consumes it.
    Take,
    /// Tells the writer of all that was consumed but the last so many.
    Credit(u64),
    /// Tells the writer this, whatever it is.
    Claim(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..=PAYLOAD_WORDS).prop_map(Act::Put),
        3 => Just(Act::Take),
        2 => (0..4u64).prop_map(Act::Credit),
        1 => any::<u16>().prop_map(Act::Claim),
    ]
}

/// Where a run starts: at 0, and shortly before the wrap of the counts and of the turns.
fn start() -> impl Strategy<Value = (usize, u64)> {
    (0..4u32, 0..3u64).prop_map(|(shift, which)| {
        let lines = 1u64 << shift;
        let start = match which {
            0 => 0,
            1 => 0x1_0000 - 2 * lines,
            _ => (0x1_0000 - 2) * lines,
        };
        (lines as usize, start)
    })
}

proptest! {
    #[test]
    fn lines_behave_like_a_bounded_queue((lines, start) in start(), acts in prop::collection::vec(act(), 0..200)) {
        let words = zeroed(lines * LINE_WORDS);
        let mut tx = LineTx::<_>::starting_at(Arc::clone(&words), lines, start);
        let mut rx = LineRx::<_>::starting_at(words, lines, start);
        let mut queue: VecDeque<(Line, usize)> = VecDeque::new();
        let mut credited = start;
        for act in acts {
            match act {
                Act::Put(count) => {
                    let line = line(tx.sent());
                    let fits = tx.sent() - credited < lines as u64;
                    let given = &line.words[..count];
                    let put = tx.put_words(line.kind, line.len, line.lines_ack, line.chunks_ack, given);
                    prop_assert_eq!(put, fits);
                    if put {
                        queue.push_back((line, count));
                    }
                }
                Act::Take => {
                    let first = rx.peek().copied();
                    prop_assert_eq!(first, rx.peek().copied());
                    let expected = queue.pop_front();
                    prop_assert_eq!(first.is_some(), expected.is_some());
                    let (Some(mut found), Some((line, count))) = (first, expected) else { continue };
                    // Only the words that were given count.
                    found.words[count..].copy_from_slice(&line.words[count..]);
                    prop_assert_eq!(found, line);
                    rx.advance();
                }
                Act::Credit(late) => {
                    let ack = rx.consumed().saturating_sub(late).max(start);
                    prop_assert_eq!(tx.credit(ack as u16), Ok(()));
                    credited = credited.max(ack);
                }
                Act::Claim(claim) => {
                    let candidates = credited..=tx.sent();
                    let new = candidates.clone().find(|&count| count as u16 == claim);
                    let old = (credited.saturating_sub(OUTSTANDING_MAX as u64)..credited)
                        .any(|count| count as u16 == claim);
                    // A lie within bounds can not be told from the truth: it is not told here.
                    if new.is_some_and(|count| count > rx.consumed()) {
                        continue;
                    }
                    prop_assert_eq!(tx.credit(claim).is_ok(), new.is_some() || old);
                    credited = new.unwrap_or(credited);
                }
            }
            prop_assert_eq!(tx.room() as u64, lines as u64 - (tx.sent() - credited));
            prop_assert_eq!(rx.check(), Ok(()));
        }
    }

    #[test]
    fn catch_up_tells_new_from_old_from_wrong(known in 0..u64::MAX / 2, out in 0..=OUTSTANDING_MAX as u64, ack: u16) {
        let expected = if let Some(new) = (known..=known + out).find(|&count| count as u16 == ack) {
            Ok(new)
        } else if (known.saturating_sub(OUTSTANDING_MAX as u64)..known).any(|count| count as u16 == ack) {
            Ok(known)
        } else {
            Err(Corrupt("acknowledges what was never sent"))
        };
        prop_assert_eq!(catch_up(known, ack, known + out), expected);
    }

    #[test]
    fn garbage_in_the_ring_never_panics(garbage in prop::collection::vec(any::<u64>(), 16), takes in 0..8usize) {
        let words: Arc<[AtomicU64]> = garbage.into_iter().map(AtomicU64::new).collect();
        let mut rx = LineRx::new(words, 2);
        for _ in 0..takes {
            if let Some(line) = rx.peek() {
                prop_assert!(line.bytes().len() <= PAYLOAD_BYTES);
                rx.advance();
            }
        }
    }
}

#[test]
fn a_zeroed_ring_holds_nothing() {
    let mut rx = LineRx::new(zeroed(16), 2);
    assert_eq!(rx.peek(), None);
    assert_eq!(rx.check(), Ok(()));
}

#[test]
fn a_line_is_read_once() {
    let words = zeroed(8);
    let mut tx = LineTx::new(Arc::clone(&words), 1);
    let mut rx = LineRx::new(Arc::clone(&words), 1);
    assert!(tx.put(&line(5)));
    assert_eq!(rx.peek(), Some(&line(5)));
    for word in words.iter() {
        word.store(u64::MAX, Ordering::Relaxed);
    }
    assert_eq!(rx.peek(), Some(&line(5)));
}

#[test]
fn a_turn_that_can_not_be_is_corrupt() {
    let words = zeroed(8);
    let rx = LineRx::new(Arc::clone(&words), 1);
    for turn in [2, 3, 0x8000, 0xffff] {
        words[0].store(turn, Ordering::Relaxed);
        assert_eq!(rx.check(), Err(Corrupt("a line with a turn that can not be")));
    }
}

#[test]
fn a_claim_of_lines_never_put_is_corrupt_and_changes_nothing() {
    let mut tx = LineTx::new(zeroed(16), 2);
    assert!(tx.put(&line(0)));
    assert_eq!(tx.credit(2), Err(Corrupt("acknowledges what was never sent")));
    assert_eq!(tx.credit(0xffff), Err(Corrupt("acknowledges what was never sent")));
    assert_eq!(tx.room(), 1);
    assert_eq!(tx.credit(1), Ok(()));
    assert_eq!(tx.room(), 2);
}

#[test]
fn payload_bytes_are_the_words_and_stop_at_56() {
    let mut line = Line::default();
    assert_eq!(line.bytes(), [0; 0]);
    line.payload_mut()[..3].copy_from_slice(&[7, 8, 9]);
    line.len = 3;
    assert_eq!(line.bytes(), [7, 8, 9]);
    assert_eq!(line.words[0].to_ne_bytes()[..3], [7, 8, 9]);
    line.len = u8::MAX;
    assert_eq!(line.bytes().len(), PAYLOAD_BYTES);
}

#[test]
#[should_panic(expected = "8 words in a line of 7")]
fn eight_words_do_not_fit_a_line() {
    let _ = LineTx::new(zeroed(8), 1).put_words(0, 0, 0, 0, &[0; 8]);
}

#[test]
#[should_panic(expected = "before it was peeked")]
fn a_line_is_not_consumed_unseen() {
    LineRx::new(zeroed(8), 1).advance();
}

#[test]
#[should_panic(expected = "a ring of 2 lines in 15 words")]
fn a_ring_needs_all_its_words() {
    LineRx::new(zeroed(15), 2);
}

#[test]
fn a_credit_word_lags_by_less_than_counts_can_tell_apart() {
    let word = zeroed(1);
    let mut tx = CreditTx::new(Arc::clone(&word));
    let rx = CreditRx::new(word);
    // Two counts that move at different speeds, well past the wrap.
    for count in 0..200_000u64 {
        let (lines, chunks) = (count, count / 3);
        tx.refresh(lines as u16, chunks as u16);
        let (lines_read, chunks_read) = rx.read();
        assert_eq!(catch_up(lines, lines_read, lines + OUTSTANDING_MAX as u64), Ok(lines));
        assert_eq!(catch_up(chunks, chunks_read, chunks + OUTSTANDING_MAX as u64), Ok(chunks));
    }
    tx.publish(17, 4);
    assert_eq!(rx.read(), (17, 4));
}

#[test]
fn a_part_of_mapped_words_is_bounded_by_the_whole() {
    let keep: Arc<[AtomicU64]> = zeroed(4);
    let whole = mapped(&keep);
    keep[3].store(9, Ordering::Relaxed);
    assert_eq!(whole.part(2, 2).word(1).load(Ordering::Relaxed), 9);
    assert_eq!(whole.part(4, 0).len(), 0);
    let beyond = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| whole.part(3, 2).len()));
    assert!(beyond.is_err(), "words beyond the mapping");
    let beyond = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        whole.part(2, 1).word(1).load(Ordering::Relaxed)
    }));
    assert!(beyond.is_err(), "a word beyond the part");
}

#[expect(unsafe_code, reason = "words are mapped from memory that the test owns")]
fn mapped(words: &Arc<[AtomicU64]>) -> Mapped {
    let keep = Arc::new(Arc::clone(words));
    // SAFETY: the words live as long as `keep`, and are atomics.
    unsafe { Mapped::new(words.as_ptr().cast_mut().cast(), words.len(), keep) }
}

#[test]
fn two_threads_pass_lines_over_mapped_words() {
    const ITEMS: u64 = 100_000;
    let (ring, credit) = (zeroed(8 * LINE_WORDS), zeroed(LINE_WORDS));
    let mut tx = LineTx::new(mapped(&ring), 8);
    let mut rx = LineRx::new(mapped(&ring), 8);
    let credit_rx = CreditRx::new(mapped(&credit));
    let mut credit_tx = CreditTx::new(mapped(&credit));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for item in 0..ITEMS {
                while !tx.put(&line(item)) {
                    tx.credit(credit_rx.read().0).expect("a count of lines that were put");
                    std::thread::yield_now();
                }
            }
        });
        for item in 0..ITEMS {
            while rx.peek().is_none() {
                std::thread::yield_now();
            }
            assert_eq!(rx.peek(), Some(&line(item)));
            rx.advance();
            credit_tx.publish(rx.consumed() as u16, 0);
        }
    });
}
