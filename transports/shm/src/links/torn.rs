//! Elements that came in several pieces. Passes are handed whole elements, in place; the rare one that
//! lies across two lines or chunks is put together in this rank's own memory first.

use super::peer::Peer;
use super::protocol::Front;
use super::{Call, Shared, ShmLinks};
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::Window;
use sohu_coll_mem::ViewMut;

/// The most bytes of an element.
pub(super) const ELEMENT_MAX: usize = 16;

impl ShmLinks {
    /// Tries a pass again that moved nothing, if that was because an element was torn.
    #[cold]
    pub(super) fn try_torn(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        let mut gathered = false;
        for rank in from {
            let peer = self.peers.at_mut(*rank);
            if peer.available() < granule {
                if !peer.gather(granule, &self.call, &mut self.shared)? {
                    return Ok(0);
                }
                gathered = true;
            }
        }
        if gathered { self.try_pass(from, to, limit, granule, work) } else { Ok(0) }
    }
}

impl Peer {
    /// Puts the next element together from what has come. Returns whether it is whole; else what there is of it
    /// is in front, as before.
    fn gather(&mut self, granule: usize, ours: &Call, shared: &mut Shared) -> Result<bool, LinkError> {
        if granule > ELEMENT_MAX || matches!(self.front, None | Some(Front::Landed { .. })) {
            return Ok(false);
        }
        let mut bytes = [0; ELEMENT_MAX];
        let mut have = 0;
        while let Some(front) = self.front {
            // Memory is posted for whole messages, and those hold whole elements.
            let wanted = if matches!(front, Front::Landed { .. }) { 0 } else { granule - have };
            let part = self.available().min(wanted);
            // If not, the peer's process is gone, and no more of the element will come.
            if part > 0 && !self.fetch(part)? {
                return Ok(false);
            }
            self.view(part).copy_to(ViewMut::from(&mut bytes[have..have + part]));
            have += part;
            self.taken += part;
            if self.taken < front.len() {
                self.behind = Some((front, self.taken));
                break;
            }
            self.finish_front(front);
            if have == granule {
                break;
            }
            if self.front.is_none() {
                // Gathered bytes count as received when they are handed over, but lines that follow come
                // after them.
                self.in_at += have as u64;
                let next = self.look(ours, shared);
                self.in_at -= have as u64;
                next?;
            }
        }
        self.gathered = bytes;
        self.front = Some(Front::Gathered { len: have });
        self.taken = 0;
        Ok(have == granule)
    }

    /// The gathered bytes were handed over: what came behind them is in front.
    #[cold]
    pub(super) fn resume(&mut self) {
        let behind = self.behind.take();
        self.front = behind.map(|(front, _)| front);
        self.taken = behind.map_or(0, |(_, taken)| taken);
    }
}
