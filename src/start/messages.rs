//! Started messages: sends, receives, and groups of them.
//!
//! There is no `plan_` form: nothing of a message is planned, and its letters can be started again as they come back.

use super::Started;
use crate::communicator::Communicator;
use crate::letter::{Alone, Letter, Letters, Posted};
use crate::owned::{Holder, Owned, Owner, given};
use crate::pending::Failed;
use crate::terms::Task;
use sohu_coll_core::DType;
#[cfg(doc)]
use sohu_coll_core::{Error, Misuse};

impl Communicator {
    /// Starts a [`send`](Self::send); it owns `data` until its receiver has accepted and taken it.
    ///
    /// Messages that are started one after another go on side by side, as in one [`group`](Self::group): each as soon as its
    /// peer is ready, whichever was started first, but among those to one rank, or from one rank. So two ranks may start their
    /// sends and receives in opposite orders. They are made in their turn among the calls of all ranks: one that is started after
    /// a message begins when that is over, and a message that is started after such a call begins after it. A blocking `send`,
    /// `recv` or `group` goes on beside the messages that were started before it; its bytes are copied for that.
    ///
    /// # Errors
    /// As for [`send`](Self::send), and [`Misuse::Pending`] when too many calls are pending. [`Failed`] gives the buffer back.
    pub fn start_send<D: Owned>(&mut self, data: D, to: u32) -> Started<D> {
        self.start_letters("send", Alone(Letter::send(data, to)))
    }

    /// Starts a [`recv`](Self::recv); it owns `data` until it has come. As [`start_send`](Self::start_send).
    ///
    /// # Errors
    /// As for [`start_send`](Self::start_send).
    pub fn start_recv<D: Owned>(&mut self, data: D, from: u32) -> Started<D> {
        self.start_letters("recv", Alone(Letter::recv(data, from)))
    }

    /// As [`start_send`](Self::start_send), for callers that learn the element type at run time.
    ///
    /// # Errors
    /// As for [`start_send`](Self::start_send), and [`Misuse::Bytes`] when `data` is no whole number of elements.
    pub fn start_send_bytes<D: Owned<Element = u8>>(&mut self, dtype: DType, data: D, to: u32) -> Started<D> {
        self.start_letters("send", Alone(Letter::send_bytes(dtype, data, to)))
    }

    /// As [`start_recv`](Self::start_recv), for callers that learn the element type at run time.
    ///
    /// # Errors
    /// As for [`start_send_bytes`](Self::start_send_bytes).
    pub fn start_recv_bytes<D: Owned<Element = u8>>(
        &mut self,
        dtype: DType,
        data: D,
        from: u32,
    ) -> Started<D> {
        self.start_letters("recv", Alone(Letter::recv_bytes(dtype, data, from)))
    }

    /// Starts a [`group`](Self::group) of sends and receives. It is over when all of them are, and gives them back. What a rank
    /// sends to itself meets its receive in the same group.
    ///
    /// # Errors
    /// As for [`start_send`](Self::start_send); [`Misuse::Lonely`] when a message to this rank itself lacks its other half,
    /// [`Error::Mispaired`] when its halves differ. Where a peer means another message, the other messages of the group are made
    /// all the same. [`Failed`] gives the letters back.
    pub fn start_group<L: Letters>(&mut self, letters: L) -> Started<L> {
        self.start_letters("group", Posted(letters))
    }

    pub(crate) fn start_letters<W: Holder + Owner>(
        &mut self,
        name: &'static str,
        owner: W,
    ) -> Started<W::Given> {
        let mut kept = self.keep(Task::Messages(name), owner);
        match self.check(&kept.task, &mut *kept.owner) {
            Ok(()) => self.start_kept(kept, given::<W>),
            Err(error) => Err(Failed { error: error.into(), buffers: given::<W>(kept) }),
        }
    }
}
