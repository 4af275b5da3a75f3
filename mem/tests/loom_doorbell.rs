//! The doorbell under loom: no wake-up is lost with the fences that hold, and loom finds the lost one (a
//! deadlock) with either of them weakened.
#![expect(unsafe_code, reason = "loom's cells are read and written through pointers")]

mod model;

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;
use model::{ModelWord, ModelWords, explore};
use sohu_coll_mem::doorbell::{Futex, Ringer, Sleeper};
use sohu_coll_mem::line::{LineRx, LineTx};
use sohu_coll_mem::words::{Ordering, Orders, Sound, Word};

struct WeakSleepFence;
impl Orders for WeakSleepFence {
    const SLEEP_FENCE: Ordering = Ordering::AcqRel;
}

struct WeakRingFence;
impl Orders for WeakRingFence {
    const RING_FENCE: Ordering = Ordering::AcqRel;
}

/// What the system promises: the comparison and the start of the sleep are one step. There is no
/// time-out, so that a lost wake-up is a deadlock. The first `early` waits return for no reason.
struct ModelFutex {
    early: Mutex<u32>,
    woken: Condvar,
}

impl ModelFutex {
    fn new(early: u32) -> Arc<Self> {
        Arc::new(Self { early: Mutex::new(early), woken: Condvar::new() })
    }
}

impl Futex<ModelWord> for ModelFutex {
    fn wait(&self, word: &ModelWord, expected: u32, _nanos: u64) {
        let mut early = self.early.lock().expect("the lock");
        if *early > 0 {
            *early -= 1;
        } else if word.load(Ordering::Relaxed) as u32 == expected {
            drop(self.woken.wait(early).expect("the lock"));
        }
    }

    fn wake(&self, _word: &ModelWord) {
        let _early = self.early.lock().expect("the lock");
        self.woken.notify_all();
    }
}

fn await_line<O: Orders>(
    rx: &mut LineRx<ModelWords>,
    sleeper: &Sleeper<ModelWords, O>,
    futex: &ModelFutex,
) -> u64 {
    loop {
        sleeper.prepare();
        if let Some(line) = rx.peek() {
            let item = line.words[0];
            sleeper.cancel();
            rx.advance();
            return item;
        }
        sleeper.sleep(futex, u64::MAX);
    }
}

/// A rank that sends `items` lines and rings after each, and one that sleeps whenever it finds none.
fn one_ringer<O: Orders + 'static>(items: u64, early: u32) {
    let (ring, bell) = (ModelWords::lines(2), ModelWords::word());
    let futex = ModelFutex::new(early);
    let mut tx = LineTx::new(ring.clone(), 2);
    let mut rx = LineRx::new(ring, 2);
    let sleeper = Sleeper::<_, O>::with_orders(bell.clone());
    let ringer = Ringer::<_, O>::with_orders(bell);
    let theirs = Arc::clone(&futex);
    let sender = thread::spawn(move || {
        for item in 0..items {
            assert!(tx.put_words(1, 8, 0, 0, &[item]));
            ringer.ring(&*theirs);
        }
    });
    for item in 0..items {
        assert_eq!(await_line(&mut rx, &sleeper, &futex), item);
    }
    sender.join().expect("the sender");
}

/// Two ranks that each send one line to the same sleeper, which waits for both.
fn two_ringers<O: Orders + 'static>() {
    let bell = ModelWords::word();
    let futex = ModelFutex::new(0);
    let mut rxs = Vec::new();
    let mut senders = Vec::new();
    for _ in 0..2 {
        let ring = ModelWords::lines(1);
        let mut tx = LineTx::new(ring.clone(), 1);
        rxs.push(LineRx::new(ring, 1));
        let ringer = Ringer::<_, O>::with_orders(bell.clone());
        let theirs = Arc::clone(&futex);
        senders.push(thread::spawn(move || {
            assert!(tx.put_words(1, 8, 0, 0, &[7]));
            ringer.ring(&*theirs);
        }));
    }
    let sleeper = Sleeper::<_, O>::with_orders(bell);
    for rx in &mut rxs {
        assert_eq!(await_line(rx, &sleeper, &futex), 7);
    }
    for sender in senders {
        sender.join().expect("a sender");
    }
}

#[test]
fn no_ring_is_lost() {
    explore(|| one_ringer::<Sound>(2, 0));
}

#[test]
fn no_ring_is_lost_after_a_wait_that_ended_early() {
    explore(|| one_ringer::<Sound>(1, 1));
}

#[test]
fn no_ring_of_two_is_lost() {
    explore(two_ringers::<Sound>);
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_rejects_a_sleeper_without_its_full_fence() {
    explore(|| one_ringer::<WeakSleepFence>(1, 0));
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_rejects_a_ringer_without_its_full_fence() {
    explore(|| one_ringer::<WeakRingFence>(1, 0));
}
