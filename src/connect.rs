//! Links between all ranks: makes them over the chosen transport, and is the one place that knows which it is.

use crate::bootstrap::Mesh;
use crate::buffer::Buffer;
use crate::builder::TransportKind;
use crate::memory::Items;
use sohu_coll_core::link::Links;
use sohu_coll_core::{Element, Error, Rank};
use sohu_coll_shm::{Fetch, Heap, Layout, Offer, Process, Segment, ShmError, ShmLinks};
use sohu_coll_tcp::{Listener, TcpLinks};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of the staging rings of all ranks that share a core, and the least of one. Larger than a core's own cache, so that a line is
/// out of the peer's cache again before it is written anew: taking it back from there costs twice the copy. No larger, because large
/// messages then leave the shared cache; see docs/measurements.
const STAGING_BYTES: usize = 2 << 20;
const STAGING_LEAST: usize = 256 << 10;

/// The longest message that is fetched where each rank has a core. Where only one of two ranks sends, it could stage long ones while the other one
/// copies: 4 to 16 MiB take a sixth longer fetched, and 64 MiB twice as long. Ranks that share cores have something else to do: 64 MiB round 4 ranks take 24
/// ms fetched and 30 staged, round 8 ranks 49 and 62.
const FETCHED_MAX: usize = 16 << 20;

/// Among what links take: where private memory is fetched to.
pub(crate) const FETCHED: &str = "fetched";

/// How ranks come by each other's bytes over shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing {
    /// Address space of this rank's registered memory.
    pub(crate) heap_bytes: usize,
    /// Whether private memory is fetched; it is if all say so.
    pub(crate) fetch: Fetch,
    /// Whether it is moved to huge pages if it is lent often.
    pub(crate) huge_pages: bool,
}

/// The links, whichever transport they go over.
#[derive(Debug)]
pub(crate) enum Fabric {
    Shm(Box<ShmLinks>),
    Tcp(Box<TcpLinks>),
}

impl Fabric {
    /// What the links of one of `size` ranks on `cores` cores take from their beginning on.
    pub(crate) fn items(kind: TransportKind, size: u32, cores: u32, sharing: Sharing) -> Items {
        match kind {
            // More ranks than can be are refused when they connect.
            TransportKind::Shm => {
                let size = size.clamp(1, Layout::RANKS_MAX);
                let fetched = (FETCHED, ShmLinks::fetch_bytes(size));
                let fetched = (sharing.fetch != Fetch::Never).then_some(fetched);
                layout(size, cores, 0).parts().into_iter().chain(fetched).collect()
            }
            TransportKind::Tcp => vec![("queues", TcpLinks::queue_bytes(size))],
        }
    }

    /// Links this rank with all others, on `cores` cores.
    ///
    /// # Errors
    /// Names the rank whose link could not be made, and why.
    pub(crate) fn connect(
        kind: TransportKind,
        mesh: &mut Mesh,
        cores: u32,
        sharing: Sharing,
        deadline: Instant,
    ) -> Result<Self, Error> {
        match kind {
            TransportKind::Shm => Self::shm(mesh, cores, sharing, deadline),
            TransportKind::Tcp => Self::tcp(mesh, deadline),
        }
    }

    fn shm(mesh: &mut Mesh, cores: u32, sharing: Sharing, deadline: Instant) -> Result<Self, Error> {
        let (rank, size) = (mesh.rank(), mesh.size());
        if size > Layout::RANKS_MAX {
            let most = Layout::RANKS_MAX;
            return Err(Error::Refused(format!(
                "shared memory connects at most {most} ranks, not {size}; use the tcp transport"
            )));
        }
        let segment = Segment::create(layout(size, cores, sharing.heap_bytes)).map_err(failed)?;
        // Ranks agree on the layout by its length: a rank with another one would be refused when it is mapped.
        let length = (segment.layout().len() as u64).to_le_bytes();
        // A rank alone has nobody to measure its kernel for.
        let (own, stand_in) = Offer::new(if size > 1 { sharing.fetch } else { Fetch::Never });
        let theirs = mesh.swap(&[&length, &own.to_bytes()[..]].concat(), Some(segment.fd()), deadline)?;
        let mut offers = Vec::with_capacity(size as usize);
        for (peer, (blob, _)) in (0..).map(Rank).zip(&theirs) {
            if peer == rank {
                offers.push(own);
                continue;
            }
            let offer = match blob.split_first_chunk() {
                Some((theirs, offer)) if *theirs == length => Offer::from_bytes(offer),
                _ => {
                    return Err(Error::Refused(format!(
                        "{peer} has a segment of another length; is SOHU_COLL_HEAP the same on every rank"
                    )));
                }
            };
            let what = "it does not say where its memory is".into();
            offers.push(offer.ok_or(Error::Corrupt { peer, what })?);
        }
        let fds: Vec<Option<&OwnedFd>> = theirs.iter().map(|(_, fd)| fd.as_ref()).collect();
        let fds: Vec<_> = fds.into_iter().map(|fd| fd.map(AsFd::as_fd)).collect();
        let mut links = ShmLinks::join(rank, segment, &fds).map_err(|(peer, error)| match error {
            ShmError::Hostile(what) => Error::Corrupt { peer, what },
            other => failed(other),
        })?;
        // Of which process each rank is, the system says.
        let processes = offers.iter().zip(mesh.pids()).map(|(offer, pid)| offer.process(pid?));
        let processes: Option<Vec<Process>> = processes.collect();
        // No rank goes on before all have mapped everything: a rank that fails to is told of here.
        let theirs = mesh.swap(&[u8::from(processes.is_some())], None, deadline)?;
        // Plans depend on it, so all do or none.
        if let Some(processes) = processes
            && (0..).map(Rank).zip(&theirs).all(|(peer, (blob, _))| peer == rank || *blob == [1])
        {
            let longest = if size > cores { usize::MAX } else { FETCHED_MAX };
            links.fetch_from(&processes, stand_in, longest);
            if size > cores {
                links.take_turns();
            }
            if sharing.huge_pages {
                links.lend_from_huge_pages();
            }
        }
        Ok(Self::Shm(Box::new(links)))
    }

    fn tcp(mesh: &mut Mesh, deadline: Instant) -> Result<Self, Error> {
        let (rank, size) = (mesh.rank(), mesh.size());
        let listener = Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(|error| Error::System {
            call: "listen on 127.0.0.1".into(),
            errno: error.raw_os_error().unwrap_or(0),
            hint: String::new(),
        })?;
        let own = listener.address().to_string();
        let theirs = mesh.swap(own.as_bytes(), None, deadline)?;
        let mut addresses = Vec::with_capacity(size as usize);
        for (peer, (blob, _)) in (0..).zip(&theirs) {
            let text = if peer == rank.0 { own.as_bytes() } else { blob };
            let address = core::str::from_utf8(text).ok().and_then(|text| text.parse::<SocketAddr>().ok());
            addresses.push(address.ok_or_else(|| Error::Corrupt {
                peer: Rank(peer),
                what: "it sent something else than its address".into(),
            })?);
        }
        let (secret, job) = (mesh.secret(), mesh.job());
        let links = TcpLinks::join(rank, size, listener, &addresses, secret, job, deadline);
        let links = links.map_err(|error| Error::Refused(format!("connecting over tcp: {error}")))?;
        mesh.swap(&[], None, deadline)?;
        Ok(Self::Tcp(Box::new(links)))
    }

    #[inline]
    pub(crate) fn links(&mut self) -> &mut dyn Links {
        match self {
            Self::Shm(links) => &mut **links,
            Self::Tcp(links) => &mut **links,
        }
    }

    pub(crate) fn size(&self) -> u32 {
        match self {
            Self::Shm(links) => links.size(),
            Self::Tcp(links) => links.size(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Shm(links) => links.transport(),
            Self::Tcp(links) => links.transport(),
        }
    }

    /// Whether `bytes` lie in registered memory.
    #[inline]
    pub(crate) fn is_registered(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Shm(links) => links.is_registered(bytes.as_ptr(), bytes.len()),
            Self::Tcp(_) => false,
        }
    }

    /// Whether private memory is fetched.
    pub(crate) fn fetches(&self) -> bool {
        match self {
            Self::Shm(links) => links.fetches(),
            Self::Tcp(_) => false,
        }
    }

    /// Where registered memory comes from. It stays good while a call is on the links, and after them.
    pub(crate) fn memory(&self) -> Memory {
        match self {
            Self::Shm(links) => Memory::Registered(links.heap()),
            Self::Tcp(_) => Memory::Private,
        }
    }

    pub(crate) fn handover_ns(&mut self, rounds: u64) -> Option<f64> {
        match self {
            Self::Shm(links) => links.handover_ns(rounds),
            Self::Tcp(_) => None,
        }
    }

    pub(crate) fn wake_ns(&mut self, rounds: u64) -> Option<f64> {
        match self {
            Self::Shm(links) => links.wake_ns(rounds),
            Self::Tcp(_) => None,
        }
    }
}

/// Where the memory of [`Buffer`]s comes from.
#[derive(Clone, Debug)]
pub(crate) enum Memory {
    Registered(Arc<Heap>),
    /// The transport has no use for registered memory.
    Private,
}

impl Memory {
    /// The heap, where there is one.
    pub(crate) fn heap(&self) -> Option<&Arc<Heap>> {
        match self {
            Self::Registered(heap) => Some(heap),
            Self::Private => None,
        }
    }

    /// Zeroed memory.
    ///
    /// # Errors
    /// Says what there is, when there is not enough.
    pub(crate) fn alloc<T: Element>(&self, bytes: usize) -> Result<Buffer<T>, String> {
        match self {
            Self::Registered(heap) => heap.alloc(bytes).map(Buffer::registered),
            Self::Private => Ok(Buffer::private(bytes)),
        }
    }
}

fn layout(size: u32, cores: u32, heap_bytes: usize) -> Layout {
    let staging = STAGING_BYTES / size.div_ceil(cores) as usize;
    Layout::new(size, staging.max(STAGING_LEAST), heap_bytes)
}

fn failed(error: ShmError) -> Error {
    match error {
        ShmError::System { call, bytes, errno } => Error::System {
            call: format!("{call} for a shared segment of {bytes} bytes"),
            errno,
            hint: "; is there memory, and does ulimit -v allow it".into(),
        },
        ShmError::Hostile(what) => Error::Refused(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_that_share_a_core_share_its_staging_down_to_the_least() {
        const HEAP: usize = 4 << 20;
        for (size, cores, kib) in [
            (1, 1, 2048),
            (2, 2, 2048),
            (2, 64, 2048),
            (3, 2, 1024),
            (4, 2, 1024),
            (8, 2, 512),
            (8, 1, 256),
            (9, 1, 256),
            (64, 1, 256),
        ] {
            assert_eq!(
                layout(size, cores, HEAP),
                Layout::new(size, kib << 10, HEAP),
                "{size} ranks on {cores} cores"
            );
        }
    }
}
