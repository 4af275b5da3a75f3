//! A call of one short message, or of one each way, begun in one go.
//!
//! What most programs make: a ping and a pong, and every step of a ring of more than two ranks. The answer to what is received and the
//! message that is sent go out, and if what the peers have to say has come, the call is over and nothing was noted of it. Else it is
//! out for a few polls more, since a rank that shares its core with a peer yields that first. What is not over with that goes on as if
//! it had begun in parts: to the peers it is the same.

use super::super::record::{Kind, RECORD_BYTES, Record};
use super::super::route::{put_answer, put_head};
use super::{Bytes, Courier, Item, State, Transfer, Verdict, Way};
use crate::exec::Progress;
use crate::kernel::{self, Store};
use crate::link::LEND_MIN;
use crate::pipe::{Pipes, Strand};
use crate::rank::Rank;
use sohu_coll_mem::words::between_looks;
use sohu_coll_mem::{View, ViewMut};

/// The longest message of an errand. A longer one takes so long that it does not matter how it begins.
const ERRAND_MAX: usize = 4 << 10;

/// Polls in which an errand that is out looks for its peers, and nothing comes: the first at once, and one behind each of the two times
/// that a rank yields its core before it does anything else. What takes longer has time to be noted.
const POLLS: u32 = 3;

/// An errand that is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    sent: Option<Sent>,
    got: Option<Got>,
    /// Polls that are left.
    polls: u32,
}

/// What came of a look for the peers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Both are through.
    Both,
    /// One of them said what it was expected to say.
    One,
    Nothing,
    /// Something that does not end here.
    Other,
}

/// A message that is sent: how far it is.
#[derive(Clone, Copy, Debug)]
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
#[derive(Clone, Copy, Debug)]
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

impl Errand {
    /// Looks once for what the peers have to say.
    #[inline]
    fn look(&mut self, items: &mut [Item<'_>], pipes: &mut dyn Pipes) -> Found {
        let mut found = Found::Nothing;
        let got = self.got.as_mut().filter(|got| got.came.is_none());
        let sent = self.sent.as_mut().filter(|sent| !sent.agreed);
        // Of both first: the lines come from other cores.
        let got = got.filter(|got| pipes.has_come(got.peer, Strand::Bytes));
        let sent = sent.filter(|sent| pipes.has_come(sent.peer, Strand::Answers));
        if let Some(got) = got {
            match take(got, items, pipes) {
                true if got.whole => found = Found::One,
                true => {}
                false => return Found::Other,
            }
        }
        if let Some(sent) = sent {
            match hear(sent, items, pipes) {
                true if sent.agreed => found = Found::One,
                true => {}
                false => return Found::Other,
            }
        }
        if self.ends().iter().flatten().all(|(_, whole)| *whole) { Found::Both } else { found }
    }

    /// The peers, and whether each is through: of the send, and of the receive.
    #[inline]
    fn ends(&self) -> [Option<(Rank, bool)>; 2] {
        [self.sent.map(|sent| (sent.peer, sent.whole)), self.got.map(|got| (got.peer, got.whole))]
    }

    /// The peers that something is missing from, with the items that want it.
    pub(super) fn missing(&self) -> impl Iterator<Item = (Rank, usize)> {
        let sent = self.sent.filter(|sent| !sent.whole).map(|sent| (sent.peer, sent.item));
        let got = self.got.filter(|got| !got.whole).map(|got| (got.peer, got.item));
        [sent, got].into_iter().flatten()
    }
}

impl Courier {
    /// Makes a call of these items as an errand, if it is one. Says whether it is over; nothing where nothing was put.
    #[inline]
    pub(super) fn open_errand(
        &mut self,
        items: &mut [Item<'_>],
        looks: u32,
        pipes: &mut dyn Pipes,
    ) -> Option<bool> {
        let [send, recv] = self.errand_of(items, pipes)?;
        // The answer first: that is put whole, or nothing is.
        let got = match recv {
            Some(item) => Some(self.answer(item, items, pipes)?),
            None => None,
        };
        let sent = send.map(|item| self.put(item, items, pipes));
        let mut errand = Errand { sent, got, polls: POLLS };
        if sent.is_some_and(|sent| sent.put != Some(items[sent.item].len())) {
            self.begin_errand(errand, items);
            return Some(false);
        }
        let mut left = looks;
        loop {
            match errand.look(items, pipes) {
                Found::Both if self.end_errand(&errand, pipes) => return Some(true),
                Found::Both | Found::Other => self.begin_errand(errand, items),
                Found::One | Found::Nothing if left > 0 => {
                    left -= 1;
                    between_looks();
                    continue;
                }
                Found::One | Found::Nothing => self.errand = Some(errand),
            }
            return Some(false);
        }
    }

    /// Goes on with the errand that is out. Says how far it is, unless it is one no more.
    #[inline]
    pub(super) fn poll_errand(&mut self, items: &mut [Item<'_>], pipes: &mut dyn Pipes) -> Option<Progress> {
        let mut errand = self.errand.take()?;
        let found = errand.look(items, pipes);
        errand.polls -= u32::from(found == Found::Nothing);
        match found {
            Found::Both if self.end_errand(&errand, pipes) => {
                let over = State {
                    begun: true,
                    verdict: Some(Verdict::Accepted),
                    moved: true,
                    clear: true,
                    ..State::default()
                };
                self.states.resize(items.len(), over);
                self.ended = true;
                return Some(Progress::Done);
            }
            Found::One => {}
            Found::Nothing if errand.polls > 0 => {}
            Found::Both | Found::Nothing | Found::Other => {
                self.begin_errand(errand, items);
                return None;
            }
        }
        self.errand = Some(errand);
        Some(if found == Found::One { Progress::Moved } else { Progress::Idle })
    }

    /// Counts the messages of an errand that is through, unless what was put needs more help.
    #[inline]
    fn end_errand(&mut self, errand: &Errand, pipes: &mut dyn Pipes) -> bool {
        let ends = errand.ends();
        // An error is told by the method that is called next.
        if !ends.iter().flatten().all(|(peer, _)| pipes.is_clear(*peer) == Ok(true)) {
            return false;
        }
        for (way, end) in [Way::Send, Way::Recv].into_iter().zip(ends) {
            let Some((peer, _)) = end else { continue };
            let count = &mut self.counts[peer.index()][way as usize];
            *count = count.wrapping_add(1);
        }
        true
    }

    /// Begins the call of an errand in the ordinary way, with what was done of it.
    fn begin_errand(&mut self, errand: Errand, items: &mut [Item<'_>]) {
        self.join(items, 0..items.len()).expect("an errand is for others");
        if let Some(Sent { item, peer, put, agreed, .. }) = errand.sent {
            self.resume_one((item, peer, Way::Send), put, agreed);
        }
        if let Some(Got { item, peer, came, .. }) = errand.got {
            self.resume_one((item, peer, Way::Recv), came, came.is_some());
        }
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

    /// The call has begun, and this much of one of its messages was done before.
    fn resume_one(&mut self, (item, peer, way): (usize, Rank, Way), moved: Option<usize>, agreed: bool) {
        let place = self.places[peer.index()][way as usize].expect("it has an item");
        self.routes[place].resume(&mut self.states[item], moved, agreed);
    }
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

/// Whether the view holds this record.
#[inline]
fn is(view: View<'_>, record: [u8; RECORD_BYTES]) -> bool {
    let mut words = [0; RECORD_BYTES / 8];
    view.load_words(&mut words);
    words.map(u64::to_le_bytes).as_flattened() == record
}
