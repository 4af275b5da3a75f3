//! A call of one short message, or of one each way, begun in one go.
//!
//! What most programs make: a ping and a pong, and every step of a ring of more than two ranks. The answer to what is received and the
//! message that is sent go out, and if what the peers have to say has come, the call is over and nothing was noted of it. What is not
//! over with that goes on as if it had begun in parts: to the peers it is the same.

use super::super::record::{Kind, RECORD_BYTES, Record};
use super::super::route::{put_answer, put_head};
use super::{Bytes, Courier, Item, Muddle, Transfer, Way};
use crate::kernel::{self, Store};
use crate::link::LEND_MIN;
use crate::pipe::{Pipes, Strand};
use crate::rank::Rank;
use sohu_coll_mem::words::between_looks;
use sohu_coll_mem::{View, ViewMut};

/// The longest message of an errand. A longer one takes so long that it does not matter how it begins.
const ERRAND_MAX: usize = 4 << 10;

/// A message that is sent: how far it is.
#[derive(Clone, Copy)]
struct Sent {
    item: usize,
    peer: Rank,
    /// The answer of a receiver that expects it.
    expected: [u8; RECORD_BYTES],
    /// Bytes that were put behind the head, if that was.
    put: Option<usize>,
    /// Whether the receiver was heard to expect it.
    agreed: bool,
    /// Whether all of it was put, and the receiver expects it.
    whole: bool,
}

/// A message that is received, and was answered: how far it is.
#[derive(Clone, Copy)]
struct Got {
    item: usize,
    peer: Rank,
    /// The head of what is expected.
    expected: [u8; RECORD_BYTES],
    /// Bytes that came behind the head, if that did and is what was expected.
    came: Option<usize>,
    /// Whether all of it came.
    whole: bool,
}

impl Courier {
    /// Makes a call of these items as an errand, if it is one. Says whether it is over; nothing where nothing was put.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    #[inline]
    pub(super) fn open_errand(
        &mut self,
        items: &mut [Item<'_>],
        looks: u32,
        pipes: &mut dyn Pipes,
    ) -> Result<Option<bool>, Muddle> {
        let Some([send, recv]) = self.errand_of(items, pipes) else { return Ok(None) };
        // The answer first: that is put whole, or nothing is.
        let mut got = match recv {
            Some(item) => {
                let Some(got) = self.answer(item, items, pipes) else { return Ok(None) };
                Some(got)
            }
            None => None,
        };
        let mut sent = send.map(|item| self.put(item, items, pipes));
        let is_out = sent.is_none_or(|sent| sent.put == Some(items[sent.item].len()));
        let mut left = if is_out { looks } else { 0 };
        // Until both are whole, or what came is nothing that ends here.
        loop {
            let mut goes_on = left > 0;
            if let Some(got) = got.as_mut().filter(|got| got.came.is_none()) {
                goes_on &= Self::take(got, items, pipes);
            }
            if let Some(sent) = sent.as_mut().filter(|sent| !sent.agreed) {
                goes_on &= Self::hear(sent, items, pipes);
            }
            if !goes_on || sent.is_none_or(|sent| sent.whole) && got.is_none_or(|got| got.whole) {
                break;
            }
            left -= 1;
            between_looks();
        }
        let ends = [sent.map(|sent| (sent.peer, sent.whole)), got.map(|got| (got.peer, got.whole))];
        // An error is told by the method that is called next.
        if ends.iter().flatten().all(|(peer, whole)| *whole && pipes.is_clear(*peer) == Ok(true)) {
            for (way, end) in [Way::Send, Way::Recv].into_iter().zip(ends) {
                let Some((peer, _)) = end else { continue };
                let count = &mut self.counts[peer.index()][way as usize];
                *count = count.wrapping_add(1);
            }
            return Ok(Some(true));
        }
        self.begin(items)?;
        if let Some(Sent { item, peer, put, agreed, .. }) = sent {
            self.resume_one((item, peer, Way::Send), put, agreed);
        }
        if let Some(Got { item, peer, came, .. }) = got {
            self.resume_one((item, peer, Way::Recv), came, came.is_some());
        }
        Ok(Some(false))
    }

    /// The items of an errand, if the call is one: the send and the receive.
    #[inline]
    fn errand_of(&self, items: &[Item<'_>], pipes: &dyn Pipes) -> Option<[Option<usize>; 2]> {
        let mut pair = [None; 2];
        for (index, item) in items.iter().enumerate() {
            let Transfer { way, peer, .. } = item.transfer;
            let is_lent =
                || way == Way::Send && item.len() >= LEND_MIN && pipes.lends(peer, View::from(item.bytes()));
            if peer == self.rank || item.len() > ERRAND_MAX || is_lent() {
                return None;
            }
            if pair[way as usize].replace(index).is_some() {
                return None;
            }
        }
        (!items.is_empty()).then_some(pair)
    }

    /// The next record of one way with the peer of an item.
    #[inline]
    fn record(&self, kind: Kind, item: &Item<'_>) -> [u8; RECORD_BYTES] {
        let transfer = &item.transfer;
        Record::of(kind, transfer, self.counts[transfer.peer.index()][transfer.way as usize]).to_bytes()
    }

    /// Answers the message that is to be received, if there is room for that.
    #[inline]
    fn answer(&self, index: usize, items: &[Item<'_>], pipes: &mut dyn Pipes) -> Option<Got> {
        let (item, peer) = (&items[index], items[index].transfer.peer);
        let put = put_answer(peer, &self.record(Kind::Answer, item), pipes);
        let expected = self.record(Kind::Head, item);
        (put == Ok(RECORD_BYTES)).then_some(Got { item: index, peer, expected, came: None, whole: false })
    }

    /// Puts what there is room for of the message that is sent.
    #[inline]
    fn put(&self, index: usize, items: &[Item<'_>], pipes: &mut dyn Pipes) -> Sent {
        let (item, peer) = (&items[index], items[index].transfer.peer);
        let put = put_head(peer, &self.record(Kind::Head, item), View::from(item.bytes()), pipes);
        let put = put.ok().and_then(|put| put.checked_sub(RECORD_BYTES));
        let expected = self.record(Kind::Answer, item);
        Sent { item: index, peer, expected, put, agreed: false, whole: false }
    }

    /// Takes what has come of the message that is received, if it is what was expected. Says whether to look on: whether nothing has come,
    /// or all.
    #[inline]
    fn take(got: &mut Got, items: &mut [Item<'_>], pipes: &mut dyn Pipes) -> bool {
        let Bytes::In(into) = &mut items[got.item].bytes else { unreachable!("a receive has room") };
        let len = into.len();
        let mut goes_on = true;
        // An error is told by the method that is called next, as all that was not expected.
        let _ = pipes.take(got.peer, Strand::Bytes, RECORD_BYTES + len, &mut |view| {
            goes_on = view.len() == RECORD_BYTES + len;
            if view.len() < RECORD_BYTES || !is(view.first(RECORD_BYTES), got.expected) {
                goes_on = false;
                return 0;
            }
            let bytes = view.slice(RECORD_BYTES..view.len());
            kernel::copy(bytes, ViewMut::from(&mut into[..bytes.len()]), None, Store::Cached);
            got.came = Some(bytes.len());
            view.len()
        });
        got.whole = got.came == Some(len);
        goes_on
    }

    /// Hears the answer to the message that is sent, if it has come and is what was expected. Says whether to look on.
    #[inline]
    fn hear(sent: &mut Sent, items: &[Item<'_>], pipes: &mut dyn Pipes) -> bool {
        let mut goes_on = true;
        let _ = pipes.take(sent.peer, Strand::Answers, RECORD_BYTES, &mut |view| {
            sent.agreed = view.len() == RECORD_BYTES && is(view, sent.expected);
            goes_on = sent.agreed;
            if sent.agreed { RECORD_BYTES } else { 0 }
        });
        sent.whole = sent.agreed && sent.put == Some(items[sent.item].len());
        goes_on
    }

    /// The call has begun, and this much of one of its messages was done before.
    fn resume_one(&mut self, (item, peer, way): (usize, Rank, Way), moved: Option<usize>, agreed: bool) {
        let place = self.places[peer.index()][way as usize].expect("it has an item");
        self.routes[place].resume(&mut self.states[item], moved, agreed);
    }
}

/// Whether the view holds this record.
#[inline]
fn is(view: View<'_>, record: [u8; RECORD_BYTES]) -> bool {
    let mut words = [0; RECORD_BYTES / 8];
    view.load_words(&mut words);
    words.map(u64::to_le_bytes).as_flattened() == record
}
