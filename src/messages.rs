//! Sends and receives of two ranks, one at a time or many at once.

use crate::communicator::Communicator;
use crate::letter::{Letter, Posted};
use crate::pending::{Failed, Pending};
use sohu_coll_core::transfer::Item;
use sohu_coll_core::{DType, Element, Error, Misuse, Rank, Transfer, Way};

/// Sends and receives that go on all at once: see [`Communicator::group`].
#[derive(Debug)]
pub struct Group<'a> {
    items: Vec<Item<'a>>,
    /// The first that made no sense.
    wrong: Option<Misuse>,
}

impl<'a> Group<'a> {
    /// Sends `data` to rank `to`.
    pub fn send<T: Element>(&mut self, data: &'a [T], to: u32) -> &mut Self {
        self.send_bytes(T::DTYPE, bytemuck::cast_slice(data), to)
    }

    /// Receives `data` from rank `from`.
    pub fn recv<T: Element>(&mut self, data: &'a mut [T], from: u32) -> &mut Self {
        self.recv_bytes(T::DTYPE, bytemuck::cast_slice_mut(data), from)
    }

    /// As [`send`](Self::send), for callers that learn the element type at run time.
    pub fn send_bytes(&mut self, dtype: DType, data: &'a [u8], to: u32) -> &mut Self {
        match whole("send", dtype, data.len()) {
            Ok(()) => self.items.push(Item::send(dtype, data, Rank(to))),
            Err(misuse) => _ = self.wrong.get_or_insert(misuse),
        }
        self
    }

    /// As [`recv`](Self::recv), for callers that learn the element type at run time.
    pub fn recv_bytes(&mut self, dtype: DType, data: &'a mut [u8], from: u32) -> &mut Self {
        match whole("recv", dtype, data.len()) {
            Ok(()) => self.items.push(Item::recv(dtype, data, Rank(from))),
            Err(misuse) => _ = self.wrong.get_or_insert(misuse),
        }
        self
    }
}

/// Whether so many bytes are a whole number of elements.
pub(crate) fn whole(call: &'static str, dtype: DType, bytes: usize) -> Result<(), Misuse> {
    let element = dtype.size();
    if bytes.is_multiple_of(element) {
        return Ok(());
    }
    Err(Misuse::Bytes { call, bytes, dtype: dtype.name(), element })
}

impl Communicator {
    /// Sends `data` to rank `to`, which receives as many elements of the same type. Returns when that rank has accepted the
    /// message and `data` is no longer needed; the last of it may still be on its way. It waits for the other rank whatever the
    /// size, so that both learn of a difference, and so that no program works with small messages only.
    ///
    /// Messages from one rank to another meet in the order in which they are made, on their own or in groups. They have no tags,
    /// and concern nobody else. What a rank sends to itself it sends in a [`group`](Self::group).
    ///
    /// # Errors
    /// [`Misuse::Peer`] and [`Misuse::Lonely`] when `to` is no other rank; [`Error::Mispaired`] when the two ranks mean different
    /// messages, on both of them: nothing was written and the communicator stays usable. Else as described at
    /// [`Communicator`].
    pub fn send<T: Element>(&mut self, data: &[T], to: u32) -> Result<(), Error> {
        self.send_bytes(T::DTYPE, bytemuck::cast_slice(data), to)
    }

    /// Receives `data` from rank `from`, which [sends](Self::send) as many elements of the same type.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn recv<T: Element>(&mut self, data: &mut [T], from: u32) -> Result<(), Error> {
        self.recv_bytes(T::DTYPE, bytemuck::cast_slice_mut(data), from)
    }

    /// As [`send`](Self::send), for callers that learn the element type at run time.
    ///
    /// # Errors
    /// As for [`send`](Self::send), and [`Misuse::Bytes`] when `data` is no whole number of elements.
    pub fn send_bytes(&mut self, dtype: DType, data: &[u8], to: u32) -> Result<(), Error> {
        whole("send", dtype, data.len()).map_err(|misuse| self.named(misuse.into()))?;
        self.transfer("send", &mut [Item::send(dtype, data, Rank(to))])
    }

    /// As [`recv`](Self::recv), for callers that learn the element type at run time.
    ///
    /// # Errors
    /// As for [`send_bytes`](Self::send_bytes).
    pub fn recv_bytes(&mut self, dtype: DType, data: &mut [u8], from: u32) -> Result<(), Error> {
        whole("recv", dtype, data.len()).map_err(|misuse| self.named(misuse.into()))?;
        self.transfer("recv", &mut [Item::recv(dtype, data, Rank(from))])
    }

    /// Makes the sends and receives that `fill` adds, all at once: each goes on as soon as its peer is ready, so that their
    /// order does not matter, but among those to one rank, or from one rank. Returns when all are done.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), sohu_coll::Error> {
    /// # let mut comm = sohu_coll::Communicator::from_env()?;
    /// // Round the ring: everybody sends and receives, and nobody waits for who is not ready.
    /// let (rank, size) = (comm.rank(), comm.size());
    /// let mine = vec![rank; 1000];
    /// let mut theirs = vec![0; 1000];
    /// comm.group(|group| {
    ///     group.send(&mine, (rank + 1) % size).recv(&mut theirs, (rank + size - 1) % size);
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A send to this rank itself meets its receive in the same group. An empty group does nothing. All is checked before the first
    /// byte moves. Where a peer means another message, the other messages of the group are made all the same.
    ///
    /// # Errors
    /// As for [`send`](Self::send), the first of the group in the order in which they were added; [`Misuse::Lonely`] when
    /// a message to this rank itself lacks its other half.
    pub fn group<'a>(&mut self, fill: impl FnOnce(&mut Group<'a>)) -> Result<(), Error> {
        let spare = self.idle_lane().map(|lane| lane.mail.take_spare());
        let mut group = Group { items: spare.unwrap_or_default(), wrong: None };
        fill(&mut group);
        let made = match group.wrong {
            Some(wrong) => Err(self.named(wrong.into())),
            None => self.transfer("group", &mut group.items),
        };
        if let Some(lane) = self.idle_lane() {
            lane.mail.keep_spare(group.items);
        }
        made
    }

    fn transfer(&mut self, name: &'static str, items: &mut [Item<'_>]) -> Result<(), Error> {
        if self.is_mailing() {
            return self.transfer_beside(name, items);
        }
        let made = self.lane().transfer(items, name == "group");
        made.map_err(|error| self.named(error))
    }

    /// Makes messages while others are pending: beside those, which may wait for what these bring their peers. Whoever drives
    /// needs their bytes meanwhile, so they are copied.
    #[cold]
    fn transfer_beside(&mut self, name: &'static str, items: &mut [Item<'_>]) -> Result<(), Error> {
        let copy = |item: &Item<'_>| {
            let Transfer { way, dtype, peer, .. } = *item.transfer();
            match way {
                Way::Send => Letter::send_bytes(dtype, item.bytes().to_vec(), peer.0),
                Way::Recv => Letter::recv_bytes(dtype, item.bytes().to_vec(), peer.0),
            }
        };
        let letters: Vec<Letter<Vec<u8>>> = items.iter().map(copy).collect();
        let made = self.start_letters(name, Posted(letters)).and_then(Pending::wait);
        let (letters, made) = match made {
            Ok(letters) => (letters, Ok(())),
            Err(Failed { error, buffers }) => (buffers, Err(*error)),
        };
        for (item, letter) in items.iter_mut().zip(&letters) {
            // What did not come is as it was.
            if let Some(bytes) = item.bytes_mut() {
                bytes.copy_from_slice(letter.data());
            }
        }
        made
    }
}
