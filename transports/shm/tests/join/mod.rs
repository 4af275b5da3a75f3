//! Links between ranks of one process, joined as processes join theirs: by handing over descriptors.

use sohu_coll_core::Rank;
use sohu_coll_shm::{Layout, Segment, ShmLinks};
use std::os::fd::{AsFd, OwnedFd};

/// The links of `size` ranks, those of rank r at index r.
pub fn links(size: u32, staging_bytes: usize, heap_bytes: usize) -> Vec<ShmLinks> {
    let layout = Layout::new(size, staging_bytes, heap_bytes);
    let segments: Vec<Segment> =
        (0..size).map(|_| Segment::create(layout).expect("a memfd can be made")).collect();
    let fds: Vec<OwnedFd> =
        segments.iter().map(|s| s.fd().try_clone_to_owned().expect("a descriptor is free")).collect();
    (0..size)
        .zip(segments)
        .map(|(rank, segment)| {
            let handed: Vec<_> = (0..).zip(&fds).map(|(peer, fd)| (peer != rank).then(|| fd.as_fd())).collect();
            ShmLinks::join(Rank(rank), segment, &handed).expect("segments of one layout join")
        })
        .collect()
}
