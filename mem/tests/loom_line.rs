//! Lines, credits and staged chunks under loom, with the orderings that hold, and with each of them
//! weakened in turn: loom must find that no ordering is there for nothing.
#![expect(unsafe_code, reason = "loom's cells are read and written through pointers")]

mod model;

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use model::{ModelWords, explore};
use sohu_coll_mem::byte_ring::ByteRing;
use sohu_coll_mem::credit::{CreditRx, CreditTx};
use sohu_coll_mem::line::{Line, LineRx, LineTx, catch_up};
use sohu_coll_mem::words::{Ordering, Orders, Sound, Words};

struct WeakPut;
impl Orders for WeakPut {
    const LINE_PUT: Ordering = Ordering::Relaxed;
}

struct WeakLook;
impl Orders for WeakLook {
    const LINE_LOOK: Ordering = Ordering::Relaxed;
}

struct WeakPublish;
impl Orders for WeakPublish {
    const CREDIT_PUBLISH: Ordering = Ordering::Relaxed;
}

struct WeakRead;
impl Orders for WeakRead {
    const CREDIT_READ: Ordering = Ordering::Relaxed;
}

fn next_line<O: Orders>(words: &ModelWords, rx: &mut LineRx<ModelWords, O>) -> Line {
    loop {
        if let Some(line) = rx.peek() {
            let line = *line;
            rx.advance();
            return line;
        }
        words.spin();
    }
}

/// Three items through two lines; the reader gives lines back through a credit word.
fn stream<O: Orders + 'static>() {
    const ITEMS: u64 = 3;
    let ring = ModelWords::lines(2);
    let credit = ModelWords::atomics(1);
    let mut tx = LineTx::<_, O>::starting_at(ring.clone(), 2, 0);
    let mut rx = LineRx::<_, O>::starting_at(ring.clone(), 2, 0);
    let mut credit_tx = CreditTx::<_, O>::with_orders(credit.clone());
    let credit_rx = CreditRx::<_, O>::with_orders(credit.clone());
    let writer = thread::spawn(move || {
        for item in 0..ITEMS {
            while !tx.put_words(1, 8, 0, 0, &[item]) {
                let (lines, _) = credit_rx.read();
                tx.credit(lines).expect("a count of lines that were put");
                if tx.room() == 0 {
                    credit.spin();
                }
            }
        }
    });
    for item in 0..ITEMS {
        assert_eq!(next_line(&ring, &mut rx).words[0], item);
        credit_tx.publish(rx.consumed() as u16, 0);
    }
    writer.join().expect("the writer");
}

/// Two ranks with one line in each direction; lines are given back by counts in lines of the other
/// direction, which carry nothing else.
fn echo<There: Orders + 'static, Back: Orders + 'static>() {
    const ITEMS: u64 = 2;
    let (there, back) = (ModelWords::lines(1), ModelWords::lines(1));
    let mut tx = LineTx::<_, There>::starting_at(there.clone(), 1, 0);
    let mut rx = LineRx::<_, There>::starting_at(there.clone(), 1, 0);
    let mut back_tx = LineTx::<_, Back>::starting_at(back.clone(), 1, 0);
    let mut back_rx = LineRx::<_, Back>::starting_at(back.clone(), 1, 0);
    let peer = thread::spawn(move || {
        for item in 0..ITEMS {
            let line = next_line(&there, &mut rx);
            assert_eq!(line.words[0], item);
            back_tx.credit(line.lines_ack).expect("a count of lines that were put");
            assert!(back_tx.put_words(2, 0, rx.consumed() as u16, 0, &[]));
        }
    });
    for item in 0..ITEMS {
        assert!(tx.put_words(1, 8, back_rx.consumed() as u16, 0, &[item]));
        let line = next_line(&back, &mut back_rx);
        tx.credit(line.lines_ack).expect("a count of lines that were put");
    }
    peer.join().expect("the peer");
}

/// The bytes of a staging ring with room for one chunk, as loom sees them.
struct Staging(UnsafeCell<u64>);

// SAFETY: loom checks every access to the cell and panics at one that is not ordered.
unsafe impl Sync for Staging {}

impl Staging {
    fn write(&self, value: u64) {
        // SAFETY: loom panics before it hands out a pointer that another thread uses.
        self.0.with_mut(|bytes| unsafe { *bytes = value });
    }

    fn read(&self) -> u64 {
        // SAFETY: loom panics before it hands out a pointer that another thread writes through.
        self.0.with(|bytes| unsafe { *bytes })
    }
}

/// Two chunks through the same staged bytes, announced by lines without payload; the chunks are given back
/// through a credit word.
fn stage_with_credit_word<O: Orders + 'static>() {
    const CHUNKS: u64 = 2;
    let (ring, credit) = (ModelWords::lines(2), ModelWords::atomics(1));
    let staging = Arc::new(Staging(UnsafeCell::new(0)));
    let mut tx = LineTx::<_, O>::starting_at(ring.clone(), 2, 0);
    let mut rx = LineRx::<_, O>::starting_at(ring.clone(), 2, 0);
    let mut credit_tx = CreditTx::<_, O>::with_orders(credit.clone());
    let credit_rx = CreditRx::<_, O>::with_orders(credit.clone());
    let theirs = Arc::clone(&staging);
    let writer = thread::spawn(move || {
        let mut bytes = ByteRing::new(64, 1);
        let (mut acked, mut out) = (0, None);
        for chunk in 0..CHUNKS {
            let range = loop {
                if let Some(range) = bytes.reserve(8, 8) {
                    break range;
                }
                let (_, chunks) = credit_rx.read();
                let now = catch_up(acked, chunks, chunk).expect("a count of chunks that were sent");
                if now > acked {
                    bytes.release(out.take().expect("one chunk is out"));
                    acked = now;
                } else {
                    credit.spin();
                }
            };
            theirs.write(chunk);
            out = Some(bytes.commit(range.start, 8, 1));
            assert!(tx.put_words(3, 0, 0, 0, &[]));
        }
    });
    for chunk in 0..CHUNKS {
        next_line(&ring, &mut rx);
        assert_eq!(staging.read(), chunk);
        credit_tx.publish(0, chunk as u16 + 1);
    }
    writer.join().expect("the writer");
}

/// As above, with the chunks given back by counts in lines of the other direction.
fn stage_with_lines<There: Orders + 'static, Back: Orders + 'static>() {
    const CHUNKS: u64 = 2;
    let (there, back) = (ModelWords::lines(2), ModelWords::lines(2));
    let staging = Arc::new(Staging(UnsafeCell::new(0)));
    let mut tx = LineTx::<_, There>::starting_at(there.clone(), 2, 0);
    let mut rx = LineRx::<_, There>::starting_at(there.clone(), 2, 0);
    let mut back_tx = LineTx::<_, Back>::starting_at(back.clone(), 2, 0);
    let mut back_rx = LineRx::<_, Back>::starting_at(back.clone(), 2, 0);
    let theirs = Arc::clone(&staging);
    let reader = thread::spawn(move || {
        for chunk in 0..CHUNKS {
            next_line(&there, &mut rx);
            assert_eq!(theirs.read(), chunk);
            assert!(back_tx.put_words(2, 0, 0, chunk as u16 + 1, &[]));
        }
    });
    let mut bytes = ByteRing::new(64, 1);
    for chunk in 0..CHUNKS {
        let range = bytes.reserve(8, 8).expect("the chunk before was released");
        staging.write(chunk);
        let out = bytes.commit(range.start, 8, 1);
        assert!(tx.put_words(3, 0, 0, 0, &[]));
        let line = next_line(&back, &mut back_rx);
        assert_eq!(catch_up(chunk, line.chunks_ack, chunk + 1), Ok(chunk + 1));
        bytes.release(out);
    }
    reader.join().expect("the reader");
}

/// One chunk read by two peers, then its bytes are used again. The peers start when their lines are there:
/// here only the way back is of interest, and three threads that spin are too much for loom.
fn stage_for_two<O: Orders + 'static>() {
    let staging = Arc::new(Staging(UnsafeCell::new(0)));
    let mut bytes = ByteRing::new(64, 1);
    let range = bytes.reserve(8, 8).expect("nothing is out");
    staging.write(7);
    let chunk = bytes.commit(range.start, 8, 2);
    let peers = [(); 2].map(|()| {
        let (ring, credit) = (ModelWords::lines(1), ModelWords::atomics(1));
        let mut tx = LineTx::<_, O>::starting_at(ring.clone(), 1, 0);
        let mut rx = LineRx::<_, O>::starting_at(ring.clone(), 1, 0);
        let mut credit_tx = CreditTx::<_, O>::with_orders(credit.clone());
        assert!(tx.put_words(3, 0, 0, 0, &[]));
        let staging = Arc::clone(&staging);
        let peer = thread::spawn(move || {
            next_line(&ring, &mut rx);
            assert_eq!(staging.read(), 7);
            credit_tx.publish(0, 1);
        });
        (CreditRx::<_, O>::with_orders(credit.clone()), credit, peer)
    });
    for (credit_rx, credit, _) in &peers {
        while credit_rx.read().1 == 0 {
            credit.spin();
        }
        bytes.release(chunk);
    }
    bytes.reserve(8, 8).expect("both have released it");
    staging.write(8);
    for (_, _, peer) in peers {
        peer.join().expect("a peer");
    }
}

#[test]
fn a_stream_through_few_lines_arrives_in_order() {
    explore(stream::<Sound>);
}

#[test]
fn counts_in_lines_give_lines_back() {
    explore(echo::<Sound, Sound>);
}

#[test]
fn staged_bytes_are_reused_only_when_read() {
    explore(stage_with_credit_word::<Sound>);
    explore(stage_with_lines::<Sound, Sound>);
}

#[test]
fn staged_bytes_are_reused_only_when_both_readers_have_read() {
    explore(stage_for_two::<Sound>);
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
    loom_rejects_a_stream_with_relaxed_put: stream::<WeakPut>;
    loom_rejects_a_stream_with_relaxed_look: stream::<WeakLook>;
    loom_rejects_a_stream_with_relaxed_publish: stream::<WeakPublish>;
    loom_rejects_a_stream_with_relaxed_read: stream::<WeakRead>;
    loom_rejects_an_echo_with_relaxed_put_there: echo::<WeakPut, Sound>;
    loom_rejects_an_echo_with_relaxed_look_there: echo::<WeakLook, Sound>;
    loom_rejects_an_echo_with_relaxed_put_back: echo::<Sound, WeakPut>;
    loom_rejects_an_echo_with_relaxed_look_back: echo::<Sound, WeakLook>;
    loom_rejects_staging_with_relaxed_put: stage_with_credit_word::<WeakPut>;
    loom_rejects_staging_with_relaxed_look: stage_with_credit_word::<WeakLook>;
    loom_rejects_staging_with_relaxed_publish: stage_with_credit_word::<WeakPublish>;
    loom_rejects_staging_with_relaxed_read: stage_with_credit_word::<WeakRead>;
    loom_rejects_staging_with_relaxed_put_there: stage_with_lines::<WeakPut, Sound>;
    loom_rejects_staging_with_relaxed_look_there: stage_with_lines::<WeakLook, Sound>;
    loom_rejects_staging_with_relaxed_put_back: stage_with_lines::<Sound, WeakPut>;
    loom_rejects_staging_with_relaxed_look_back: stage_with_lines::<Sound, WeakLook>;
    loom_rejects_two_readers_with_relaxed_publish: stage_for_two::<WeakPublish>;
    loom_rejects_two_readers_with_relaxed_read: stage_for_two::<WeakRead>;
}
