//! The doorbell under loom: no wake-up is lost with the fences that hold, and loom finds the lost one (a
//! deadlock) with either of them weakened. The same for a light ringer and the sleeper's barrier, wherever that finds it.
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
    interrupt: Option<Interrupt>,
}

/// What a barrier does to a thread that runs: it is stopped somewhere, passes a fence, and the barrier ends after that.
/// One that finds the thread at its end need not stop it.
struct Interrupt {
    state: Mutex<Stops>,
    changed: Condvar,
}

#[derive(Default)]
struct Stops {
    asked: u32,
    served: u32,
    /// Whether the thread has ended.
    gone: bool,
}

impl Interrupt {
    fn new() -> Self {
        Self { state: Mutex::new(Stops::default()), changed: Condvar::new() }
    }

    /// Stops the thread, and waits until it was.
    fn send(&self) {
        let mut state = self.state.lock().expect("the lock");
        state.asked += 1;
        self.changed.notify_all();
        while state.served < state.asked && !state.gone {
            state = self.changed.wait(state).expect("the lock");
        }
    }

    /// The thread is here when it is stopped.
    fn land(&self) {
        let mut state = self.state.lock().expect("the lock");
        while state.served == state.asked {
            state = self.changed.wait(state).expect("the lock");
        }
        loom::sync::atomic::fence(Ordering::SeqCst);
        state.served += 1;
        self.changed.notify_all();
    }

    /// The thread ends here.
    fn leave(&self) {
        self.state.lock().expect("the lock").gone = true;
        self.changed.notify_all();
    }
}

impl ModelFutex {
    fn new(early: u32) -> Arc<Self> {
        Arc::new(Self { early: Mutex::new(early), woken: Condvar::new(), interrupt: None })
    }

    fn with_interrupt() -> Arc<Self> {
        let interrupt = Some(Interrupt::new());
        Arc::new(Self { early: Mutex::new(0), woken: Condvar::new(), interrupt })
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

    fn barrier(&self) {
        if let Some(interrupt) = &self.interrupt {
            interrupt.send();
        }
    }
}

fn await_line<O: Orders>(
    rx: &mut LineRx<ModelWords>,
    sleeper: &Sleeper<ModelWords, O>,
    futex: &ModelFutex,
) -> u64 {
    loop {
        sleeper.prepare(futex);
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
    let (ring, bell) = (ModelWords::lines(2), ModelWords::atomics(2));
    let futex = ModelFutex::new(early);
    let mut tx = LineTx::new(ring.clone(), 2);
    let mut rx = LineRx::new(ring, 2);
    let sleeper = Sleeper::<_, O>::with_orders(bell.clone(), false);
    let ringer = Ringer::<_, O>::with_orders(bell, false);
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
    let bell = ModelWords::atomics(2);
    let futex = ModelFutex::new(0);
    let mut rxs = Vec::new();
    let mut senders = Vec::new();
    for _ in 0..2 {
        let ring = ModelWords::lines(1);
        let mut tx = LineTx::new(ring.clone(), 1);
        rxs.push(LineRx::new(ring, 1));
        let ringer = Ringer::<_, O>::with_orders(bell.clone(), false);
        let theirs = Arc::clone(&futex);
        senders.push(thread::spawn(move || {
            assert!(tx.put_words(1, 8, 0, 0, &[7]));
            ringer.ring(&*theirs);
        }));
    }
    let sleeper = Sleeper::<_, O>::with_orders(bell, false);
    for rx in &mut rxs {
        assert_eq!(await_line(rx, &sleeper, &futex), 7);
    }
    for sender in senders {
        sender.join().expect("a sender");
    }
}

/// Where the sleeper's barrier finds a ringer that has no fence of its own.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Before,
    Between,
    After,
    /// Nowhere: the barrier does nothing.
    Nowhere,
}

/// A rank that sends a line and rings without a fence, and one that sleeps if it finds none.
fn light_ringer(found: Found) {
    let (ring, bell) = (ModelWords::lines(1), ModelWords::atomics(2));
    let futex = if found == Found::Nowhere { ModelFutex::new(0) } else { ModelFutex::with_interrupt() };
    let mut tx = LineTx::new(ring.clone(), 1);
    let mut rx = LineRx::new(ring, 1);
    let sleeper = Sleeper::<_, Sound>::with_orders(bell.clone(), true);
    let ringer = Ringer::<_, Sound>::with_orders(bell, true);
    let theirs = Arc::clone(&futex);
    let sender = thread::spawn(move || {
        let is_here = |place| {
            if let (true, Some(interrupt)) = (found == place, &theirs.interrupt) {
                interrupt.land();
            }
        };
        is_here(Found::Before);
        assert!(tx.put_words(1, 8, 0, 0, &[7]));
        is_here(Found::Between);
        ringer.ring(&*theirs);
        is_here(Found::After);
        if let Some(interrupt) = &theirs.interrupt {
            interrupt.leave();
        }
    });
    assert_eq!(await_line(&mut rx, &sleeper, &futex), 7);
    sender.join().expect("the sender");
}

#[test]
fn no_light_ring_is_lost_wherever_the_barrier_finds_the_ringer() {
    for found in [Found::Before, Found::Between, Found::After] {
        explore(move || light_ringer(found));
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_rejects_a_light_ringer_without_the_barrier() {
    explore(|| light_ringer(Found::Nowhere));
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
