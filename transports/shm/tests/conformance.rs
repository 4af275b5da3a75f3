//! Shared memory keeps the contract of links.

mod join;

use sohu_coll_conformance::Harness;
use sohu_coll_core::link::Links;

struct Shm;

impl Harness for Shm {
    fn links(size: u32) -> Vec<Box<dyn Links>> {
        let links = join::links(size, 1 << 20, 1 << 20);
        links.into_iter().map(|links| Box::new(links) as Box<dyn Links>).collect()
    }
}

mod shm {
    sohu_coll_conformance::conformance!(super::Shm);
}

/// The least staging there can be: large messages go round the ring many times, and fall back on slots.
struct Narrow;

impl Harness for Narrow {
    const LARGE_BYTES: usize = 1 << 20;
    const CALLS: u32 = 1_000;

    fn links(size: u32) -> Vec<Box<dyn Links>> {
        let links = join::links(size, 4096, 1 << 20);
        links.into_iter().map(|links| Box::new(links) as Box<dyn Links>).collect()
    }
}

mod narrow {
    sohu_coll_conformance::conformance!(super::Narrow);
}
