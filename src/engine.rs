//! What makes a planned call: the links, the control sockets, and the memory that a call borrows.

use crate::connect::Fabric;
use crate::control::Control;
use crate::drive::{Driver, Manners};
use sohu_coll_core::exec::Executor;
use sohu_coll_core::{Error, Signature};
use sohu_coll_mem::region::{Ledger, Loan, scope};
use std::time::Duration;

/// Everything of a communicator that a call needs besides its plan.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) fabric: Fabric,
    pub(crate) control: Control,
    ledger: Box<Ledger>,
    scratch: Vec<u8>,
    timeout: Duration,
    manners: Manners,
}

impl Engine {
    pub(crate) fn new(fabric: Fabric, control: Control, timeout: Duration, manners: Manners) -> Self {
        Self { fabric, control, ledger: Ledger::new(), scratch: Vec::new(), timeout, manners }
    }

    /// Makes one call, from its beginning to its end.
    ///
    /// # Errors
    /// Whatever ended it; the links can not be used again then.
    #[inline]
    pub(crate) fn make(
        &mut self,
        executor: &mut Executor,
        call: Signature,
        loan: Loan<'_>,
    ) -> Result<(), Box<Error>> {
        let scratch_bytes = executor.bound().scratch_bytes;
        if self.scratch.len() < scratch_bytes {
            self.scratch.resize(scratch_bytes, 0);
        }
        let links = self.fabric.links();
        let control = &mut self.control;
        let Manners { patience, ref mates } = self.manners;
        let mut driver = Driver { links, control, timeout: self.timeout, patience, mates, call };
        let result = scope(&self.ledger, loan, &mut self.scratch, |regions| driver.run(executor, regions));
        driver.links.ring();
        result
    }
}
