//! What makes a planned call: the links, the control sockets, and the memory that a call borrows.

use crate::connect::Fabric;
use crate::control::Control;
use crate::drive::{Driver, Until, Wait};
use crate::mail::Letters;
use crate::memory::Account;
use sohu_coll_core::exec::{Executor, Progress};
use sohu_coll_core::transfer::{Courier, Item, Muddle};
use sohu_coll_core::{Error, Signature};
use sohu_coll_mem::doorbell::Patience;
use sohu_coll_mem::region::{Ledger, Loan, scope};
use std::sync::Arc;
use std::time::Duration;

/// Everything of a communicator that a call needs besides its plan.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) fabric: Fabric,
    pub(crate) control: Control,
    ledger: Box<Ledger>,
    scratch: Vec<u8>,
    timeout: Duration,
    /// How a wait begins.
    patience: Patience,
    account: Arc<Account>,
}

impl Engine {
    pub(crate) fn new(
        fabric: Fabric,
        control: Control,
        timeout: Duration,
        patience: Patience,
        account: Arc<Account>,
    ) -> Self {
        Self { fabric, control, ledger: Ledger::new(), scratch: Vec::new(), timeout, patience, account }
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
        self.make_room(executor.bound().scratch_bytes)?;
        let Self { fabric, control, ledger, scratch, timeout, patience, .. } = self;
        let links = fabric.links();
        let result = scope(ledger, loan, scratch, |regions| {
            // A small call is over with that, and nothing is made for a wait that it has not.
            let begun = executor.begin(&call, patience.spins(), regions, links);
            if let Ok(Progress::Done) = begun {
                return Ok(());
            }
            Driver::new(links, control, *timeout, *patience, call).run(begun, executor, regions)
        });
        links.ring();
        result
    }

    /// Begins a call of messages, and does of it what can be done at once. Says whether it is over with that.
    ///
    /// # Errors
    /// When what the rank sends to itself makes no sense.
    #[inline]
    pub(crate) fn open(&mut self, courier: &mut Courier, items: &mut [Item<'_>]) -> Result<bool, Muddle> {
        let (links, looks) = (self.fabric.links(), self.patience.spins());
        let over = courier.open(items, looks, links.pipes())?;
        if over {
            links.ring();
        }
        Ok(over)
    }

    /// Carries messages that have begun, as far as their courier is concerned, to their end.
    ///
    /// # Errors
    /// As for [`make`](Self::make).
    pub(crate) fn carry(&mut self, mut letters: Letters<'_, '_>) -> Result<(), Box<Error>> {
        let call = Signature { sequence: letters.sequence, ..Signature::none() };
        let mut driver = self.driver(call);
        let result = driver.finish(&mut letters);
        driver.links.ring();
        result
    }

    /// Drives messages that go on side by side. Says whether there is something to do about them.
    ///
    /// # Errors
    /// As for [`make`](Self::make).
    pub(crate) fn drive(
        &mut self,
        letters: &mut Letters<'_, '_>,
        wait: &mut Wait,
        until: Until,
    ) -> Result<bool, Box<Error>> {
        let call = Signature { sequence: letters.sequence, ..Signature::none() };
        self.driver(call).drive(letters, wait, until)
    }

    /// What drives a call whose buffers are in custody.
    pub(crate) fn driver(&mut self, call: Signature) -> Driver<'_> {
        let Self { fabric, control, timeout, patience, .. } = self;
        Driver::new(fabric.links(), control, *timeout, *patience, call)
    }

    /// How a wait begins.
    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    /// The scratch memory, at least `bytes` of it, for a call that keeps it until [`return_scratch`](Self::return_scratch).
    ///
    /// # Errors
    /// [`Error::Memory`] when there may not be so much.
    pub(crate) fn take_scratch(&mut self, bytes: usize) -> Result<Vec<u8>, Box<Error>> {
        self.make_room(bytes)?;
        Ok(std::mem::take(&mut self.scratch))
    }

    /// The scratch memory is here again.
    pub(crate) fn return_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }

    #[inline]
    fn make_room(&mut self, bytes: usize) -> Result<(), Box<Error>> {
        if self.scratch.len() < bytes { self.grow_scratch(bytes) } else { Ok(()) }
    }

    #[cold]
    fn grow_scratch(&mut self, bytes: usize) -> Result<(), Box<Error>> {
        self.account.grow_scratch(bytes)?;
        // Exactly so much: a vector that grows by itself would take more than was entered.
        self.scratch.reserve_exact(bytes - self.scratch.len());
        self.scratch.resize(bytes, 0);
        Ok(())
    }
}
