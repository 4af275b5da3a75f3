//! The graph that plans run on: sites, and directed links between them.
//!
//! Sites are ranks, the hosts they run on, switches and network cards. The graph is pure data: it is built
//! by discovery, by measurement or by hand, and answers questions about neighbours, paths and bottlenecks.
//! Invariant: every link and every rank names sites of the same graph, ranks are numbered `0..size` without a
//! gap, and every rate is positive, so walks over the graph need no checks of their own.

use crate::link::LinkCaps;
use crate::rank::Rank;
use core::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

#[cfg(test)]
mod tests;

/// A site's number in its topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub u32);

/// A directed link's number in its topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// What is at a place of the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Site {
    /// A rank, and the host whose cores it runs on.
    Rank {
        /// Its number.
        rank: Rank,
        /// Where it runs.
        host: SiteId,
    },
    /// A machine: cores and memory.
    Host(Host),
    /// Something that passes on what comes.
    Switch,
    /// A network card of a host.
    Nic {
        /// Whose card.
        host: SiteId,
    },
}

/// What the ranks of one machine share, as numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// Cores; rank k of the host runs on core `k % cores`.
    pub cores: u32,
    /// Bytes that one core reads and writes per nanosecond, together: a copy of n bytes touches 2n.
    pub bytes_per_ns: f64,
    /// What starting one slice of a pass costs, in nanoseconds.
    pub slice_ns: f64,
    /// What it costs a core to go on with another rank, in nanoseconds.
    pub switch_ns: f64,
}

/// What one directed link is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wire {
    /// One-way time of a minimal message, in nanoseconds.
    pub latency_ns: f64,
    /// Bytes per nanosecond of one lane.
    pub bytes_per_ns: f64,
    /// Messages that travel side by side, each at the rate of one lane.
    pub lanes: u32,
}

impl Wire {
    /// Bytes per nanosecond of all lanes together.
    pub fn total_bytes_per_ns(&self) -> f64 {
        self.bytes_per_ns * f64::from(self.lanes)
    }
}

impl From<LinkCaps> for Wire {
    fn from(caps: LinkCaps) -> Self {
        Self { latency_ns: caps.latency_ns, bytes_per_ns: caps.bytes_per_ns, lanes: 1 }
    }
}

/// A directed link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Where it starts.
    pub from: SiteId,
    /// Where it ends.
    pub to: SiteId,
    /// What it is like.
    pub wire: Wire,
}

/// A way from one site to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Its links, in order; none where both ends are the same site.
    pub links: Vec<LinkId>,
    /// The sum of their latencies, in nanoseconds.
    pub latency_ns: f64,
}

/// The graph of sites and links.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    sites: Vec<Site>,
    links: Vec<Link>,
    /// For each site, the links that start there, in the order they were joined.
    out: Vec<Vec<LinkId>>,
    /// Where each rank is.
    ranks: Vec<SiteId>,
}

impl Topology {
    /// The most ranks that [`uniform`](Self::uniform) joins: it has a link for every pair.
    pub const UNIFORM_MAX: u32 = 2048;

    /// A graph without sites.
    pub fn new() -> Self {
        Self::default()
    }

    /// `size` ranks on one host, with a link of their own from each to each.
    ///
    /// # Panics
    /// When `size` is more than [`UNIFORM_MAX`](Self::UNIFORM_MAX), or a number is as [`add_host`](Self::add_host)
    /// and [`join`](Self::join) refuse it.
    pub fn uniform(size: u32, wire: Wire, host: Host) -> Self {
        assert!(size <= Self::UNIFORM_MAX, "{size} ranks, each joined to each");
        let mut topology = Self::new();
        let host = topology.add_host(host);
        let ranks: Vec<SiteId> = (0..size).map(|_| topology.add_rank(host)).collect();
        for &from in &ranks {
            for &to in ranks.iter().filter(|to| **to != from) {
                topology.join(from, to, wire);
            }
        }
        topology
    }

    /// Adds a host.
    ///
    /// # Panics
    /// When it has no core, a rate that is not positive, or a cost that is negative.
    pub fn add_host(&mut self, host: Host) -> SiteId {
        assert!(
            host.cores > 0 && host.bytes_per_ns > 0.0 && host.slice_ns >= 0.0 && host.switch_ns >= 0.0,
            "no such host: {host:?}"
        );
        self.add(Site::Host(host))
    }

    /// Adds the next rank, on a host.
    ///
    /// # Panics
    /// When `host` is no host of this topology.
    pub fn add_rank(&mut self, host: SiteId) -> SiteId {
        let _ = self.host(host);
        let rank = Rank(self.ranks.len() as u32);
        let site = self.add(Site::Rank { rank, host });
        self.ranks.push(site);
        site
    }

    /// Adds a switch.
    pub fn add_switch(&mut self) -> SiteId {
        self.add(Site::Switch)
    }

    /// Adds a network card to a host.
    ///
    /// # Panics
    /// When `host` is no host of this topology.
    pub fn add_nic(&mut self, host: SiteId) -> SiteId {
        let _ = self.host(host);
        self.add(Site::Nic { host })
    }

    fn add(&mut self, site: Site) -> SiteId {
        let id = SiteId(u32::try_from(self.sites.len()).expect("fewer than 2^32 sites fit in memory"));
        self.sites.push(site);
        self.out.push(Vec::new());
        id
    }

    /// Adds a link in one direction.
    ///
    /// # Panics
    /// When a site is not of this topology, both are the same, there is no lane, the rate is not positive or
    /// the latency is negative.
    pub fn join(&mut self, from: SiteId, to: SiteId, wire: Wire) -> LinkId {
        let known = |site: SiteId| (site.0 as usize) < self.sites.len();
        assert!(known(from) && known(to) && from != to, "no link from {from:?} to {to:?}");
        assert!(
            wire.latency_ns >= 0.0 && wire.bytes_per_ns > 0.0 && wire.lanes > 0,
            "no such link: {wire:?}"
        );
        let id = LinkId(u32::try_from(self.links.len()).expect("fewer than 2^32 links fit in memory"));
        self.links.push(Link { from, to, wire });
        self.out[from.0 as usize].push(id);
        id
    }

    /// Adds a link in both directions.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    pub fn join_both(&mut self, one: SiteId, other: SiteId, wire: Wire) -> [LinkId; 2] {
        [self.join(one, other, wire), self.join(other, one, wire)]
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.ranks.len() as u32
    }

    /// Every site; [`SiteId`]s index it.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Every link; [`LinkId`]s index it.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// One link.
    ///
    /// # Panics
    /// When it is not of this topology.
    pub fn link(&self, id: LinkId) -> &Link {
        &self.links[id.0 as usize]
    }

    /// Where a rank is.
    ///
    /// # Panics
    /// When there is no such rank.
    pub fn site_of(&self, rank: Rank) -> SiteId {
        self.ranks[rank.index()]
    }

    /// The host that a rank runs on.
    ///
    /// # Panics
    /// When there is no such rank.
    pub fn host_of(&self, rank: Rank) -> SiteId {
        match self.sites[self.site_of(rank).0 as usize] {
            Site::Rank { host, .. } => host,
            ref other => unreachable!("{rank} is at {other:?}"),
        }
    }

    /// What a host is like.
    ///
    /// # Panics
    /// When the site is no host of this topology.
    pub fn host(&self, id: SiteId) -> &Host {
        match self.sites.get(id.0 as usize) {
            Some(Site::Host(host)) => host,
            other => panic!("{id:?} is no host but {other:?}"),
        }
    }

    /// The sites that links from `site` lead to, with the links.
    ///
    /// # Panics
    /// When the site is not of this topology.
    pub fn neighbours(&self, site: SiteId) -> impl Iterator<Item = (SiteId, LinkId)> + '_ {
        self.out[site.0 as usize].iter().map(|&id| (self.link(id).to, id))
    }

    /// The path of least latency; of equal ones the one with fewer links, then the one joined first. Ranks
    /// pass nothing on: they are only ends of a path. `None` when there is no way.
    ///
    /// # Panics
    /// When a site is not of this topology.
    pub fn shortest_path(&self, from: SiteId, to: SiteId) -> Option<Path> {
        let mut best: Vec<Option<Reached>> = vec![None; self.sites.len()];
        let mut open = BinaryHeap::new();
        let start = Reached { latency_ns: 0.0, hops: 0, site: from, by: None };
        best[from.0 as usize] = Some(start);
        open.push(Reverse(start));
        while let Some(Reverse(here)) = open.pop() {
            if here.site == to {
                return Some(self.path_back(&best, here));
            }
            let outdated = best[here.site.0 as usize].is_some_and(|b| b < here);
            let ends_here =
                here.site != from && matches!(self.sites[here.site.0 as usize], Site::Rank { .. });
            if outdated || ends_here {
                continue;
            }
            for (site, by) in self.neighbours(here.site) {
                let latency_ns = here.latency_ns + self.link(by).wire.latency_ns;
                let there = Reached { latency_ns, hops: here.hops + 1, site, by: Some(by) };
                if best[site.0 as usize].is_none_or(|b| there < b) {
                    best[site.0 as usize] = Some(there);
                    open.push(Reverse(there));
                }
            }
        }
        None
    }

    fn path_back(&self, best: &[Option<Reached>], end: Reached) -> Path {
        let mut links = Vec::with_capacity(end.hops as usize);
        let mut here = end;
        while let Some(by) = here.by {
            links.push(by);
            here =
                best[self.link(by).from.0 as usize].expect("a reached site was reached from a reached one");
        }
        links.reverse();
        Path { links, latency_ns: end.latency_ns }
    }

    /// The slowest link of a path, all lanes counted; the first of equal ones. `None` when it has no links.
    ///
    /// # Panics
    /// When the path is not of this topology.
    pub fn bottleneck(&self, path: &Path) -> Option<LinkId> {
        let rate = |id: &LinkId| self.link(*id).wire.total_bytes_per_ns();
        path.links.iter().copied().min_by(|a, b| rate(a).total_cmp(&rate(b)))
    }
}

/// A site on the way of a search, in the order in which the search visits.
#[derive(Clone, Copy, Debug)]
struct Reached {
    latency_ns: f64,
    hops: u32,
    site: SiteId,
    by: Option<LinkId>,
}

impl Ord for Reached {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |r: &Self| (r.hops, r.site, r.by);
        self.latency_ns.total_cmp(&other.latency_ns).then_with(|| key(self).cmp(&key(other)))
    }
}

impl PartialOrd for Reached {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Reached {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Reached {}
