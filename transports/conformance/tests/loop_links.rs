//! The reference keeps its own contract, also when it is made to stumble.

use sohu_coll_conformance::{Faults, Harness, LoopLinks, conformance};
use sohu_coll_core::link::Links;

struct Whole;

impl Harness for Whole {
    fn links(size: u32) -> Vec<Box<dyn Links>> {
        LoopLinks::boxed(size, Faults::NONE)
    }
}

mod whole {
    super::conformance!(super::Whole, closes);
}

/// One byte at a time.
struct Crumbs;

impl Harness for Crumbs {
    const LARGE_BYTES: usize = 1 << 17;
    const CALLS: u32 = 1_000;

    fn links(size: u32) -> Vec<Box<dyn Links>> {
        LoopLinks::boxed(size, Faults { max_piece: 1, window_bytes: 1 << 12, ..Faults::NONE })
    }
}

mod crumbs {
    super::conformance!(super::Crumbs, closes);
}

/// Odd pieces, a narrow window, and every second move refused.
struct Moody;

impl Harness for Moody {
    const LARGE_BYTES: usize = 1 << 19;
    const CALLS: u32 = 1_000;

    fn links(size: u32) -> Vec<Box<dyn Links>> {
        let faults =
            Faults { seed: 3, max_piece: 333, refuse_percent: 50, window_bytes: 4099, ..Faults::NONE };
        LoopLinks::boxed(size, faults)
    }
}

mod moody {
    super::conformance!(super::Moody, closes);
}

/// Every second exchange goes on by the ordinary methods.
struct Forgetful;

impl Harness for Forgetful {
    const LARGE_BYTES: usize = 1 << 17;
    const CALLS: u32 = 1_000;

    fn links(size: u32) -> Vec<Box<dyn Links>> {
        LoopLinks::boxed(size, Faults { seed: 4, misses_percent: 50, refuse_percent: 10, ..Faults::NONE })
    }
}

mod forgetful {
    super::conformance!(super::Forgetful, closes);
}

#[cfg(test)]
mod breaks {
    use super::{Faults, Links, LoopLinks};
    use sohu_coll_core::error::LinkError;
    use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
    use sohu_coll_mem::{View, ViewMut};

    fn call() -> Signature {
        Signature {
            collective: Collective::AllGather,
            dtype: DType::U8,
            op: ReduceOp::Sum,
            algorithm: 0,
            root: Rank(0),
            count: 10,
            sequence: 0,
        }
    }

    fn broken_after(bytes: u64) -> Vec<LoopLinks> {
        let mut links = LoopLinks::fabric(3, Faults { break_after: Some((Rank(1), bytes)), ..Faults::NONE });
        for link in &mut links {
            link.begin(&call()).unwrap();
        }
        links
    }

    #[test]
    fn the_bytes_before_the_break_arrive_and_then_the_link_is_closed() {
        for before in [0, 1, 7, 10] {
            let mut links = broken_after(before);
            let mut sent = 0;
            let error = loop {
                match links[1].send(&[Rank(0), Rank(2)], View::from(&[5u8; 20][..])) {
                    Ok(count) => sent += count as u64,
                    Err(error) => break error,
                }
            };
            assert_eq!((sent, error), (before, LinkError::Closed { peer: Rank(0) }));
            for rank in [0, 2] {
                let mut got = [0; 20];
                if before > 0 {
                    let taken = links[rank].recv(Rank(1), ViewMut::from(&mut got[..]));
                    assert_eq!(taken, Ok(before as usize));
                }
                let again = links[rank].recv(Rank(1), ViewMut::from(&mut got[..]));
                assert_eq!(again, Err(LinkError::Closed { peer: Rank(1) }));
            }
        }
    }

    #[test]
    fn a_break_closes_what_others_send_to_the_rank() {
        let mut links = broken_after(0);
        links[1].send(&[Rank(2)], View::from(&[1u8][..])).unwrap_err();
        let refused = links[0].send(&[Rank(1)], View::from(&[1u8][..]));
        assert_eq!(refused, Err(LinkError::Closed { peer: Rank(1) }));
    }

    #[test]
    fn other_links_of_the_survivors_go_on() {
        let mut links = broken_after(0);
        links[1].send(&[Rank(2)], View::from(&[1u8][..])).unwrap_err();
        let mut got = [0];
        assert_eq!(links[0].send(&[Rank(2)], View::from(&[9u8][..])), Ok(1));
        assert_eq!(links[2].recv(Rank(0), ViewMut::from(&mut got[..])), Ok(1));
        assert_eq!(got, [9]);
    }
}
