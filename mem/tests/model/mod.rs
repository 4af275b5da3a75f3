//! Loom's words behind the library's trait: what the library treats as a head is an atomic, what it treats
//! as payload is a plain cell, so that a payload access without a happens-before edge is a race.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;
use sohu_coll_mem::words::{LINE_WORDS, Ordering, Word, Words};

/// One word of the model.
pub(crate) enum ModelWord {
    /// A word that two threads may access at once.
    Atomic(AtomicU64),
    /// A word that they may not: loom panics when they do.
    Plain(UnsafeCell<u64>),
}

// SAFETY: loom checks every access to the cell and panics at one that is not ordered.
unsafe impl Sync for ModelWord {}

impl Word for ModelWord {
    fn load(&self, order: Ordering) -> u64 {
        match self {
            Self::Atomic(word) => word.load(order),
            // SAFETY: loom panics before it hands out a pointer that another thread writes through.
            Self::Plain(cell) => cell.with(|word| unsafe { *word }),
        }
    }

    fn store(&self, value: u64, order: Ordering) {
        match self {
            Self::Atomic(word) => word.store(value, order),
            // SAFETY: loom panics before it hands out a pointer that another thread uses.
            Self::Plain(cell) => cell.with_mut(|word| unsafe { *word = value }),
        }
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        match self {
            Self::Atomic(word) => word.swap(value, order),
            Self::Plain(_) => panic!("a swap of a payload word"),
        }
    }
}

/// Words of the model that two threads share.
#[derive(Clone)]
pub(crate) struct ModelWords(Arc<[ModelWord]>);

impl ModelWords {
    /// `count` lines: an atomic head and seven plain words each.
    pub(crate) fn lines(count: usize) -> Self {
        Self(
            (0..count * LINE_WORDS)
                .map(|index| match index % LINE_WORDS {
                    0 => ModelWord::Atomic(AtomicU64::new(0)),
                    _ => ModelWord::Plain(UnsafeCell::new(0)),
                })
                .collect(),
        )
    }

    /// `count` atomic words.
    pub(crate) fn atomics(count: usize) -> Self {
        Self((0..count).map(|_| ModelWord::Atomic(AtomicU64::new(0))).collect())
    }
}

impl Words for ModelWords {
    type Word = ModelWord;

    fn word(&self, index: usize) -> &ModelWord {
        &self.0[index]
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn fence(&self, order: Ordering) {
        loom::sync::atomic::fence(order);
    }

    fn spin(&self) {
        loom::thread::yield_now();
    }
}

/// Runs `scenario` under every schedule with at most three preemptions, and every value that a load
/// may return.
pub(crate) fn explore(scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(scenario);
}
