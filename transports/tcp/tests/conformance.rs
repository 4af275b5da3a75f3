//! TCP keeps the contract of links.

use sohu_coll_conformance::Harness;
use sohu_coll_core::link::Links;
use sohu_coll_tcp::TcpLinks;
use std::time::{Duration, Instant};

struct Tcp;

impl Harness for Tcp {
    const BIDS: bool = false;

    fn links(size: u32) -> Vec<Box<dyn Links>> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let links = TcpLinks::local(size, deadline).expect("loopback is there");
        links.into_iter().map(|links| Box::new(links) as Box<dyn Links>).collect()
    }
}

sohu_coll_conformance::conformance!(Tcp, closes);
