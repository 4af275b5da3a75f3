use super::*;

fn wire(latency_ns: f64, bytes_per_ns: f64) -> Wire {
    Wire { latency_ns, bytes_per_ns, lanes: 1 }
}

fn host(cores: u32) -> Host {
    Host { cores, bytes_per_ns: 10.0, slice_ns: 0.0, switch_ns: 0.0 }
}

/// Two hosts of one rank each, a card each, a switch between them, and a slow line beside it.
fn two_hosts() -> (Topology, [SiteId; 2]) {
    let mut t = Topology::new();
    let switch = t.add_switch();
    let ranks = [0, 1].map(|_| {
        let h = t.add_host(host(1));
        let (rank, nic) = (t.add_rank(h), t.add_nic(h));
        t.join_both(rank, nic, wire(100.0, 20.0));
        t.join_both(nic, switch, wire(500.0, 12.0));
        rank
    });
    t.join_both(ranks[0], ranks[1], wire(5000.0, 1.0));
    (t, ranks)
}

#[test]
fn uniform_ranks_are_one_link_apart() {
    let t = Topology::uniform(3, wire(60.0, 30.0), host(2));
    assert_eq!((t.size(), t.links().len()), (3, 6));
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            let path = t.shortest_path(t.site_of(Rank(from)), t.site_of(Rank(to))).unwrap();
            assert_eq!((path.links.len(), path.latency_ns), (1, 60.0));
        }
        assert_eq!(t.neighbours(t.site_of(Rank(from))).count(), 2);
        assert_eq!(t.host(t.host_of(Rank(from))).cores, 2);
    }
}

#[test]
fn no_ranks_and_one_rank_have_no_links() {
    assert_eq!(Topology::uniform(0, wire(1.0, 1.0), host(1)).links().len(), 0);
    let one = Topology::uniform(1, wire(1.0, 1.0), host(1));
    let here = one.site_of(Rank(0));
    let path = one.shortest_path(here, here).unwrap();
    assert_eq!((path.links.len(), path.latency_ns), (0, 0.0));
    assert_eq!(one.bottleneck(&path), None);
}

#[test]
fn the_path_of_least_latency_wins_over_the_one_of_fewest_links() {
    let (t, [a, b]) = two_hosts();
    let path = t.shortest_path(a, b).unwrap();
    assert_eq!((path.links.len(), path.latency_ns), (4, 1200.0));
    let slowest = t.link(t.bottleneck(&path).unwrap());
    assert_eq!((slowest.wire.bytes_per_ns, slowest.from), (12.0, t.link(path.links[0]).to));
}

#[test]
fn of_equal_paths_the_one_with_fewer_links_wins() {
    let mut t = Topology::new();
    let (a, b, c) = (t.add_switch(), t.add_switch(), t.add_switch());
    t.join(a, b, wire(1.0, 1.0));
    t.join(b, c, wire(1.0, 1.0));
    let straight = t.join(a, c, wire(2.0, 1.0));
    assert_eq!(t.shortest_path(a, c).unwrap().links, [straight]);
}

#[test]
fn ranks_pass_nothing_on() {
    let mut t = Topology::new();
    let h = t.add_host(host(1));
    let ranks = [0; 3].map(|_| t.add_rank(h));
    t.join(ranks[0], ranks[1], wire(1.0, 1.0));
    t.join(ranks[1], ranks[2], wire(1.0, 1.0));
    assert_eq!(t.shortest_path(ranks[0], ranks[2]), None);
}

#[test]
fn links_are_directed() {
    let mut t = Topology::new();
    let (a, b) = (t.add_switch(), t.add_switch());
    t.join(a, b, wire(1.0, 1.0));
    assert!(t.shortest_path(a, b).is_some());
    assert_eq!(t.shortest_path(b, a), None);
}

#[test]
fn lanes_count_for_the_bottleneck() {
    let mut t = Topology::new();
    let (a, b, c) = (t.add_switch(), t.add_switch(), t.add_switch());
    t.join(a, b, Wire { latency_ns: 1.0, bytes_per_ns: 5.0, lanes: 4 });
    let single = t.join(b, c, wire(1.0, 15.0));
    let path = t.shortest_path(a, c).unwrap();
    assert_eq!(t.bottleneck(&path), Some(single));
}

#[test]
#[should_panic(expected = "no such link")]
fn a_rate_that_is_no_number_is_refused() {
    let mut t = Topology::new();
    let (a, b) = (t.add_switch(), t.add_switch());
    t.join(a, b, wire(1.0, f64::NAN));
}
