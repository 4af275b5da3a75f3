//! An algorithm for some calls: [`Communicator::using`].
//!
//! Invariant: what is forced ends with the guard. Calls without one cost nothing more for it.

use crate::communicator::Communicator;
use crate::plans::Forced;
use sohu_coll_algorithms as algorithms;
use sohu_coll_core::{Error, Misuse};
use std::ops::{Deref, DerefMut};

/// A communicator whose calls are done by one algorithm, until this is dropped.
#[derive(Debug)]
pub struct Using<'c> {
    comm: &'c mut Communicator,
    before: Option<Forced>,
}

impl Communicator {
    /// Has the calls through what it returns done by this algorithm, whatever the settings say:
    /// `comm.using("ring")?.all_reduce(..)`. Every rank of a call must choose the same, else all are told of a mismatch. Calls
    /// whose blocks have lengths of their own are done as ever. Calls that are pending are over first; those that are started through
    /// what it returns are over when that is dropped.
    ///
    /// # Errors
    /// [`Misuse::Algorithm`] when there is none of the name. A call that it does not do, or not in the order of the ranks where
    /// that is asked for, is refused with the same.
    pub fn using(&mut self, algorithm: &str) -> Result<Using<'_>, Error> {
        let Some(forced) = Forced::named(algorithm) else {
            let known: Vec<_> = algorithms::all().iter().map(|known| known.name()).collect();
            let (algorithm, size, known) = (algorithm.into(), self.size(), known.join(", "));
            return Err(Misuse::Algorithm { call: "using", algorithm, size, known }.into());
        };
        let before = self.force(Some(forced));
        Ok(Using { comm: self, before })
    }
}

impl Deref for Using<'_> {
    type Target = Communicator;

    fn deref(&self) -> &Communicator {
        self.comm
    }
}

impl DerefMut for Using<'_> {
    fn deref_mut(&mut self) -> &mut Communicator {
        self.comm
    }
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.comm.force(self.before);
    }
}
