//! Links between ranks of one process, joined as processes join theirs: by handing over descriptors.

use sohu_coll_core::link::Links as _;
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_shm::{Fetch, Layout, Offer, Segment, ShmLinks};
use std::os::fd::{AsFd, OwnedFd};

/// The links of `size` ranks, those of rank r at index r.
pub(crate) fn links(size: u32, staging_bytes: usize, heap_bytes: usize) -> Vec<ShmLinks> {
    let layout = Layout::new(size, staging_bytes, heap_bytes);
    let segments: Vec<Segment> =
        (0..size).map(|_| Segment::create(layout).expect("a memfd can be made")).collect();
    let fds: Vec<OwnedFd> =
        segments.iter().map(|s| s.fd().try_clone_to_owned().expect("a descriptor is free")).collect();
    (0..size)
        .zip(segments)
        .map(|(rank, segment)| {
            let handed: Vec<_> =
                (0..).zip(&fds).map(|(peer, fd)| (peer != rank).then(|| fd.as_fd())).collect();
            ShmLinks::join(Rank(rank), segment, &handed).expect("segments of one layout join")
        })
        .collect()
}

/// The same, which fetch private memory from each other.
#[allow(dead_code, reason = "not every test file has private memory")]
pub(crate) fn fetching(size: u32, staging_bytes: usize, heap_bytes: usize) -> Vec<ShmLinks> {
    let mut links = links(size, staging_bytes, heap_bytes);
    let (offer, stand_in) = Offer::new(Fetch::Always);
    let process = offer.process(std::process::id());
    let processes = vec![process.expect("a process can read its own memory"); size as usize];
    links.iter_mut().for_each(|links| links.fetch_from(&processes, stand_in.clone(), usize::MAX));
    links
}

/// The signature of the call number `sequence` of a test.
#[allow(dead_code, reason = "not every test file makes calls of its own")]
pub(crate) fn call(sequence: u32) -> Signature {
    Signature {
        collective: Collective::AllReduce,
        dtype: DType::U8,
        op: ReduceOp::Sum,
        algorithm: 0,
        root: Rank(0),
        count: 1000,
        sequence,
    }
}

/// Begins the first call on all links, and waits until everyone knows that everyone is in it.
#[allow(dead_code, reason = "not every test file makes calls of its own")]
pub(crate) fn begin(links: &mut [ShmLinks]) {
    for link in &mut *links {
        link.begin(&call(0)).expect("a fresh link can begin");
    }
    for _ in 0..2 {
        for link in &mut *links {
            link.verify().expect("all made the same call");
        }
    }
}
