//! Two binary trees at once: half of the vector goes through each, and who passes on in one is a leaf of the other.
//!
//! `log2(n)` hops (all-reduce: twice as many), and no rank sends or receives much more than the vector, since
//! an inner node has two children but only half of the bytes. Source: Sanders, Speck, Träff: Two-tree algorithms for
//! full bandwidth broadcast, reduction and scan (2009).
//!
//! Invariant: a tree never waits for one that is written after it, so links that they share can not tie them up.
//! The authors mirror the second tree, or move it by one. Then some neighbours in one are neighbours in the other
//! too, mostly in opposite roles, and an all-reduce waits there for one tree before it goes on with the other;
//! so it is another permutation here.

use crate::after;
use sohu_coll_core::plan::{Algorithm, Job, Writer, input, output, scratch};
use sohu_coll_core::{Collective, Rank};

/// Two binary trees that both begin, and end, at the root; at rank 0 where the collective has none.
#[derive(Clone, Copy, Debug)]
pub struct DoubleTree;

impl Algorithm for DoubleTree {
    fn name(&self) -> &'static str {
        "double_tree"
    }

    /// Two ranks have one tree between them.
    fn fits(&self, job: &Job) -> bool {
        matches!(job.collective, Collective::AllReduce | Collective::Broadcast | Collective::Reduce)
            && job.size >= 3
    }

    /// The first half for one tree, the second for the other.
    fn chunks(&self, job: &Job) -> u32 {
        2 * job.pieces
    }

    fn write(&self, job: &Job, p: &mut Writer) {
        for piece in 0..job.pieces {
            for second in [false, true] {
                let node = Node::new(job, p.rank(), second);
                let chunk = if second { job.pieces + piece } else { piece };
                match job.collective {
                    Collective::AllReduce => node.all_reduce(p, chunk),
                    Collective::Broadcast => node.broadcast(p, chunk),
                    _ => node.reduce(p, chunk),
                }
            }
        }
    }
}

/// One rank's neighbours in one of the trees.
#[derive(Debug)]
struct Node {
    /// `None` for the root of both trees, which has one child in each.
    parent: Option<Rank>,
    children: Vec<Rank>,
}

impl Node {
    fn new(job: &Job, rank: Rank, second: bool) -> Self {
        let (size, root) = (job.size, job.root);
        let distance = (rank.0 + size - root.0) % size;
        let place = if second { place(distance, size) } else { distance };
        let rank = |place| after(root, if second { distance_of(place, size) } else { place }, size);
        Self {
            parent: (place > 0).then(|| rank(parent(place, size))),
            children: children(place, size).map(rank).collect(),
        }
    }

    /// Up to the root, and down again.
    fn all_reduce(&self, p: &mut Writer, chunk: u32) {
        let (own, result) = (input(chunk, 1), output(chunk, 1));
        match self.parent {
            Some(parent) if self.children.is_empty() => p.send(own, parent),
            _ => {
                p.copy(own, result);
                for &child in &self.children {
                    p.recv_reduce(result, child);
                }
            }
        }
        match self.parent {
            Some(parent) => {
                if !self.children.is_empty() {
                    p.send(result, parent);
                }
                p.recv(result, parent);
            }
            None => p.finishes(result),
        }
        for &child in &self.children {
            p.send(result, child);
        }
    }

    fn broadcast(&self, p: &mut Writer, chunk: u32) {
        let result = output(chunk, 1);
        let data = if self.parent.is_some() { result } else { input(chunk, 1) };
        if let Some(parent) = self.parent {
            p.recv(data, parent);
        }
        for &child in &self.children {
            p.send(data, child);
        }
        p.copy(data, result);
    }

    fn reduce(&self, p: &mut Writer, chunk: u32) {
        let own = input(chunk, 1);
        let total = match self.parent {
            Some(parent) if self.children.is_empty() => return p.send(own, parent),
            Some(_) => scratch(chunk, 1),
            None => output(chunk, 1),
        };
        p.copy(own, total);
        for &child in &self.children {
            p.recv_reduce(total, child);
        }
        match self.parent {
            Some(parent) => p.send(total, parent),
            None => p.finishes(total),
        }
    }
}

// Places: 0 is the root, the others are numbered as one comes by them in the tree from left to right. A place whose
// lowest bit is 2^k is k levels above the lowest: odd places are leaves, even ones have children.

/// The place above; the topmost one's is the root, 0.
fn parent(place: u32, size: u32) -> u32 {
    let below = place & (place - 1);
    let bit = place - below;
    let above = below | (bit << 1);
    if above < size { above } else { below }
}

/// The places below, at most two.
fn children(place: u32, size: u32) -> impl Iterator<Item = u32> {
    let (left, mut reach) = match place {
        0 => (None, 1 << (size - 1).ilog2()),
        _ => {
            let half = (1 << place.trailing_zeros()) / 2;
            ((half > 0).then(|| place - half), half)
        }
    };
    // Where the tree ends before the right child's place, what there is of its part has its top further down.
    while place + reach >= size {
        reach /= 2;
    }
    left.into_iter().chain((reach > 0).then_some(place + reach))
}

/// In the second tree, the place of the rank that has place `first` in the first one: inner nodes become leaves, leaves
/// become inner nodes, and from 7 ranks on no two ranks are neighbours in both. (Where one is left over, the last
/// is a leaf of both.)
fn place(first: u32, size: u32) -> u32 {
    let paired = (size - 1) / 2 * 2;
    match first {
        _ if first == 0 || first > paired => first,
        _ if first.is_multiple_of(2) => first - 1,
        _ => (first + 2) % paired + 1,
    }
}

/// The other way round: the place in the first tree.
fn distance_of(second: u32, size: u32) -> u32 {
    let paired = (size - 1) / 2 * 2;
    match second {
        _ if second == 0 || second > paired => second,
        _ if !second.is_multiple_of(2) => second + 1,
        _ => (second + 2 * paired - 4) % paired + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(size: u32, root: u32, second: bool) -> Vec<Node> {
        let job = Job { root: Rank(root), ..Job::new(Collective::Broadcast, size) };
        (0..size).map(|rank| Node::new(&job, Rank(rank), second)).collect()
    }

    #[test]
    fn both_are_trees_from_the_root_as_deep_as_a_logarithm() {
        for size in 3..=65 {
            for second in [false, true] {
                let nodes = nodes(size, size / 3, second);
                for (rank, node) in (0..).map(Rank).zip(&nodes) {
                    assert!(node.children.len() <= 2, "{rank} of {size}: {node:?}");
                    for child in &node.children {
                        assert_eq!(nodes[child.index()].parent, Some(rank), "{child} of {size}");
                    }
                    let way = core::iter::successors(Some(rank), |rank| nodes[rank.index()].parent);
                    let way: Vec<Rank> = way.take(size as usize).collect();
                    assert_eq!(way.last(), Some(&Rank(size / 3)), "{rank} of {size} hangs below the root");
                    assert!(way.len() as u32 <= size.next_power_of_two().ilog2() + 1, "{way:?} of {size}");
                }
                let edges: usize = nodes.iter().map(|n| n.children.len()).sum();
                assert_eq!(edges as u32, size - 1, "every rank but the root is the child of one");
                assert_eq!(nodes[(size / 3) as usize].children.len(), 1);
            }
        }
    }

    #[test]
    fn whoever_passes_on_in_one_tree_is_a_leaf_of_the_other() {
        for size in 3..=65 {
            let (first, second) = (nodes(size, 1, false), nodes(size, 1, true));
            for rank in (0..size as usize).filter(|rank| *rank != 1) {
                let leaf = |nodes: &[Node]| nodes[rank].children.is_empty();
                assert!(leaf(&first) || leaf(&second), "rank {rank} of {size}");
            }
            let both = (0..size as usize)
                .filter(|&rank| first[rank].children.is_empty() && second[rank].children.is_empty());
            assert_eq!(both.count() as u32, (size - 1) % 2, "leaves of both among {size}");
        }
    }

    #[test]
    fn from_7_ranks_on_the_trees_share_no_link() {
        for size in 7..=65 {
            let pairs = |second| -> Vec<(u32, Option<Rank>)> {
                (0..).zip(nodes(size, 0, second)).map(|(rank, node)| (rank, node.parent)).collect()
            };
            let (first, second) = (pairs(false), pairs(true));
            for &(rank, parent) in first.iter().filter(|(_, parent)| parent.is_some()) {
                let turned = parent.map(|parent| (parent.0, Some(Rank(rank))));
                let shared = second.iter().any(|&pair| pair == (rank, parent) || Some(pair) == turned);
                assert!(!shared, "{rank} and {parent:?} of {size}");
            }
        }
    }
}
