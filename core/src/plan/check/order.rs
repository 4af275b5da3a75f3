//! In which order the passes of all ranks can run, and whether they all can.
//!
//! Time is slices: slice k of a pass needs slice k of what it waits for by slices and of what it receives,
//! the last slice of what it waits for as a whole, and room on the links it sends on. With chunks of many
//! slices, some slice waits for itself exactly when (a) passes wait for one another in a circle whatever the
//! room, or (b) a pass waits for the whole of another that can not get on without it, room considered.

use super::Reason;
use crate::plan::{Pass, Passes, Room, Source, Wait};
use crate::rank::{ChannelId, Rank};

/// The passes of all ranks, numbered through.
pub(super) struct Net<'a> {
    nodes: Vec<(Rank, &'a Pass)>,
    /// The number of each rank's first pass.
    bases: Vec<usize>,
}

impl<'a> Net<'a> {
    pub(super) fn new(passes: &'a [Passes]) -> Self {
        let (mut nodes, mut bases) = (Vec::new(), Vec::new());
        for (rank, passes) in (0..).zip(passes) {
            bases.push(nodes.len());
            nodes.extend(passes.passes.iter().map(|pass| (Rank(rank), pass)));
        }
        Self { nodes, bases }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn rank(&self, node: usize) -> Rank {
        self.nodes[node].0
    }

    pub(super) fn pass(&self, node: usize) -> &'a Pass {
        self.nodes[node].1
    }

    /// What `node` waits for on its own rank.
    fn after(&self, node: usize) -> impl Iterator<Item = (usize, Wait)> + '_ {
        let base = self.bases[self.rank(node).index()];
        self.pass(node).after.iter().map(move |edge| (base + edge.on as usize, edge.wait))
    }
}

/// One direction of one link.
type Lane = (Rank, Rank, ChannelId);

/// Which send meets which receive.
pub(super) struct Messages {
    /// Lane, sender, receiver; in order on each lane, lane by lane.
    pairs: Vec<(Lane, usize, usize)>,
    /// For each node, the nodes it receives from.
    senders: Vec<Vec<usize>>,
}

impl Messages {
    /// Pairs sends and receives in order on each lane. The error names the node that is left over.
    pub(super) fn pair(net: &Net<'_>) -> Result<Self, (usize, Reason)> {
        let mut sends: Vec<(Lane, usize)> = Vec::new();
        let mut receives: Vec<(Lane, usize)> = Vec::new();
        for (node, &(rank, pass)) in net.nodes.iter().enumerate() {
            sends.extend(pass.to.iter().map(|&peer| ((rank, peer, pass.channel), node)));
            receives.extend(pass.sources.iter().filter_map(|source| match *source {
                Source::Peer(peer) => Some(((peer, rank, pass.channel), node)),
                Source::Local(_) => None,
            }));
        }
        sends.sort_unstable();
        receives.sort_unstable();
        let mut senders = vec![Vec::new(); net.len()];
        let mut pairs = Vec::with_capacity(sends.len());
        let (mut sends, mut receives) = (sends.into_iter().peekable(), receives.into_iter().peekable());
        loop {
            match (sends.peek().copied(), receives.peek().copied()) {
                (Some((lane, from)), Some((other, into))) if lane == other => {
                    pairs.push((lane, from, into));
                    senders[into].push(from);
                    sends.next();
                    receives.next();
                }
                (Some((lane, from)), other) if other.is_none_or(|(other, _)| lane < other) => {
                    return Err((from, Reason::Untaken { peer: lane.1 }));
                }
                (_, Some((lane, into))) => return Err((into, Reason::Unsent { peer: lane.0 })),
                (_, None) => return Ok(Self { pairs, senders }),
            }
        }
    }

    /// Sender and receiver of every message.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.pairs.iter().map(|&(_, from, into)| (from, into))
    }

    /// The node whose message `node` takes from `peer`.
    pub(super) fn sender(&self, net: &Net<'_>, node: usize, peer: Rank) -> usize {
        let mut senders = self.senders[node].iter().copied();
        senders.find(|&from| net.rank(from) == peer).expect("every receive was paired with a send")
    }

    /// An order in which the passes can run one after the other. The error names two that wait for each other.
    pub(super) fn order(&self, net: &Net<'_>) -> Result<Vec<usize>, (usize, usize)> {
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); net.len()];
        let mut missing: Vec<usize> = self.senders.iter().map(Vec::len).collect();
        for (from, into) in self.all() {
            next[from].push(into);
        }
        for (node, missing) in missing.iter_mut().enumerate() {
            for (on, _) in net.after(node) {
                next[on].push(node);
                *missing += 1;
            }
        }
        let mut order: Vec<usize> = (0..net.len()).filter(|&node| missing[node] == 0).collect();
        let mut at = 0;
        while at < order.len() {
            for &node in &next[order[at]] {
                missing[node] -= 1;
                if missing[node] == 0 {
                    order.push(node);
                }
            }
            at += 1;
        }
        let Some(stuck) = (0..net.len()).find(|&node| missing[node] > 0) else { return Ok(order) };
        let waits = |node: usize| net.after(node).map(|e| e.0).chain(self.senders[node].iter().copied());
        let blocked =
            |node: usize| waits(node).find(|&on| missing[on] > 0).expect("a stuck pass waits for one");
        // Going back from wait to wait leads into the circle within as many moves as there are passes.
        let inside = (0..net.len()).fold(stuck, |node, _| blocked(node));
        Err((inside, blocked(inside)))
    }

    /// Whether the plan ends on links with that much room. The error names two passes that can not
    /// both get on.
    pub(super) fn ends(&self, net: &Net<'_>, room: Room) -> Result<(), (usize, usize)> {
        let mut waits: Vec<Vec<usize>> =
            (0..net.len()).map(|node| net.after(node).map(|e| e.0).collect()).collect();
        let mut before: Option<(Lane, usize)> = None;
        for &(lane, from, into) in &self.pairs {
            waits[into].push(from);
            match room {
                Room::Slice => waits[from].push(into),
                // The message before must have been taken as far as this one is sent.
                Room::Chunk => waits[from].extend(before.filter(|b| b.0 == lane).map(|b| b.1)),
            }
            before = Some((lane, into));
        }
        let component = components(&waits);
        for node in 0..net.len() {
            for (on, wait) in net.after(node) {
                if wait == Wait::Whole && component[on] == component[node] {
                    return Err((node, on));
                }
            }
        }
        Ok(())
    }

    /// Messages on the longest chain of waits.
    pub(super) fn hops(&self, net: &Net<'_>, order: &[usize]) -> u32 {
        let mut hops = vec![0; net.len()];
        for &node in order {
            let local = net.after(node).map(|e| hops[e.0]).max().unwrap_or(0);
            let remote = self.senders[node].iter().map(|&from| hops[from] + 1).max().unwrap_or(0);
            hops[node] = local.max(remote);
        }
        hops.into_iter().max().unwrap_or(0)
    }
}

/// The strongly connected component of each node (Tarjan's algorithm, without recursion: plans of many
/// ranks are deep).
fn components(next: &[Vec<usize>]) -> Vec<usize> {
    const UNSEEN: usize = usize::MAX;
    let mut index = vec![UNSEEN; next.len()];
    let mut low = vec![0; next.len()];
    let mut component = vec![UNSEEN; next.len()];
    let mut stack = Vec::new();
    let mut calls: Vec<(usize, usize)> = Vec::new();
    let mut count = 0;
    for root in 0..next.len() {
        if index[root] == UNSEEN {
            calls.push((root, 0));
        }
        while let Some((node, edge)) = calls.pop() {
            if edge == 0 {
                index[node] = count;
                low[node] = count;
                count += 1;
                stack.push(node);
            } else {
                low[node] = low[node].min(low[next[node][edge - 1]]);
            }
            let open = |n: usize| component[n] == UNSEEN;
            let mut at = edge;
            let mut call = None;
            while let Some(&to) = next[node].get(at) {
                at += 1;
                if index[to] == UNSEEN {
                    call = Some(to);
                    break;
                }
                if open(to) {
                    low[node] = low[node].min(index[to]);
                }
            }
            if let Some(to) = call {
                calls.push((node, at));
                calls.push((to, 0));
            } else if low[node] == index[node] {
                while let Some(member) = stack.pop() {
                    component[member] = node;
                    if member == node {
                        break;
                    }
                }
            }
        }
    }
    component
}
