//! All links of a rank, by the rank at the other end.

use super::peer::Peer;
use sohu_coll_core::Rank;

/// The links to every other rank, in the order of their ranks, without a hole for the own one: loops over all peers
/// are part of every small call.
pub(super) struct Peers {
    own: Rank,
    list: Box<[Peer]>,
}

impl Peers {
    /// `list` has a link for each rank but `own`, in order.
    pub(super) fn new(own: Rank, list: Vec<Peer>) -> Self {
        debug_assert!(list.is_sorted_by_key(|peer| peer.rank) && list.iter().all(|peer| peer.rank != own));
        Self { own, list: list.into() }
    }

    /// How many ranks there are, the own one included.
    pub(super) fn ranks(&self) -> usize {
        self.list.len() + 1
    }

    #[inline]
    fn place(&self, rank: Rank) -> usize {
        debug_assert!(rank != self.own, "a link from {rank} to itself");
        rank.index() - usize::from(rank > self.own)
    }

    /// The link to `rank`, which is another one.
    #[inline]
    pub(super) fn at(&self, rank: Rank) -> &Peer {
        &self.list[self.place(rank)]
    }

    /// As [`at`](Self::at).
    #[inline]
    pub(super) fn at_mut(&mut self, rank: Rank) -> &mut Peer {
        let place = self.place(rank);
        &mut self.list[place]
    }

    /// The link to the one other rank, if there is but one.
    #[inline]
    pub(super) fn only(&mut self) -> Option<&mut Peer> {
        if let [one] = &mut *self.list { Some(one) } else { None }
    }

    #[inline]
    pub(super) fn iter(&self) -> core::slice::Iter<'_, Peer> {
        self.list.iter()
    }

    #[inline]
    pub(super) fn iter_mut(&mut self) -> core::slice::IterMut<'_, Peer> {
        self.list.iter_mut()
    }
}
