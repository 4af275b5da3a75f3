//! Shared memory keeps the contract of links.

mod join;

use sohu_coll_conformance::{Harness, Memory};
use sohu_coll_core::link::Links;

type Boxed = Vec<Box<dyn Links>>;

/// Links, and `len` bytes of the registered memory of each.
fn lending(size: u32, staging_bytes: usize, len: usize) -> (Boxed, Vec<Memory>) {
    let links = join::links(size, staging_bytes, 1 << 20);
    let memory = links
        .iter()
        .map(|link| Box::new(link.heap().alloc(len).expect("the heap is empty")) as Memory)
        .collect();
    (links.into_iter().map(|links| Box::new(links) as Box<dyn Links>).collect(), memory)
}

struct Shm;

impl Harness for Shm {
    const IN_ONE_GO: bool = true;

    fn links(size: u32) -> Boxed {
        lending(size, 1 << 20, 1).0
    }

    fn lending(size: u32, len: usize) -> (Boxed, Vec<Memory>) {
        lending(size, 1 << 20, len)
    }
}

mod shm {
    sohu_coll_conformance::conformance!(super::Shm);
}

/// Links that fetch private memory, and lend it.
struct Fetching;

impl Harness for Fetching {
    const IN_ONE_GO: bool = true;
    const LENDS_PRIVATE: bool = true;

    fn links(size: u32) -> Boxed {
        let links = join::fetching(size, 1 << 20, 1 << 20).into_iter();
        links.map(|links| Box::new(links) as Box<dyn Links>).collect()
    }
}

mod fetching {
    sohu_coll_conformance::conformance!(super::Fetching);
}

/// The least staging there can be: large messages go round the ring many times, and fall back on slots.
struct Narrow;

impl Harness for Narrow {
    const IN_ONE_GO: bool = true;
    const LARGE_BYTES: usize = 1 << 20;
    const CALLS: u32 = 1_000;

    fn links(size: u32) -> Boxed {
        lending(size, 4096, 1).0
    }

    fn lending(size: u32, len: usize) -> (Boxed, Vec<Memory>) {
        lending(size, 4096, len)
    }
}

mod narrow {
    sohu_coll_conformance::conformance!(super::Narrow);
}
