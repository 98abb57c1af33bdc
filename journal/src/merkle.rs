//! The journal as a Merkle tree, so that its state at a size is one digest, and an event can be proved to be in it.
//!
//! The tree is RFC 6962's (section 2.1) with SHA-256. An event's data in it is be64(position) ‖ be64(recorded_at in µs) ‖ leaf: the
//! content by its leaf digest, its place and its time. [`Tree`] takes events one by one in logarithmic memory; [`checkpoint`] signs
//! a tree's size and root, [`proof`] shows one event to somebody who has only that.

pub mod checkpoint;
pub mod proof;

use std::fmt;
use std::ops::Range;

use sha2::{Digest, Sha256};

/// A node of the tree: 32 bytes of SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeHash(pub [u8; 32]);

impl fmt::Display for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl NodeHash {
    /// The node of one event. `position` counts from 1, the tree's index from 0.
    pub fn of_event(position: i64, recorded_at_micros: i64, leaf: &[u8; 32]) -> Self {
        let mut input = [0_u8; 49];
        // RFC 6962 begins a leaf's input with 0 and an inner node's with 1, so that neither is ever taken for the other.
        input[1..9].copy_from_slice(&position.to_be_bytes());
        input[9..17].copy_from_slice(&recorded_at_micros.to_be_bytes());
        input[17..].copy_from_slice(leaf);
        Self(Sha256::digest(input).into())
    }

    fn of_children(left: Self, right: Self) -> Self {
        let mut input = [1_u8; 65];
        input[1..33].copy_from_slice(&left.0);
        input[33..].copy_from_slice(&right.0);
        Self(Sha256::digest(input).into())
    }
}

/// A tree that grows by one event at a time and remembers only the roots of its complete subtrees: at most 64.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    size: u64,
    /// Roots of complete subtrees, the largest first: one for each bit that is set in the size.
    peaks: Vec<NodeHash>,
}

impl Tree {
    /// Takes the next event in.
    pub fn push(&mut self, event: NodeHash) {
        let mut node = event;
        // Each subtree that the new node completes.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = NodeHash::of_children(left, node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// How many events it holds.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// RFC 6962's Merkle tree hash of all of them.
    pub fn root(&self) -> NodeHash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return NodeHash(Sha256::digest([]).into()) };
        peaks.fold(*last, |right, left| NodeHash::of_children(*left, right))
    }
}

/// Collects an event's audit path (RFC 6962, section 2.1.1) while the whole tree is streamed past it once.
#[derive(Clone, Debug)]
pub struct PathBuilder {
    /// The siblings on the way from the event to the root: which events each is over, and the tree of those.
    siblings: Vec<(Range<u64>, Tree)>,
    /// Numbers of siblings in the order in which their events come, and the current one of them.
    order: Vec<usize>,
    current: usize,
    next: u64,
}

impl PathBuilder {
    /// For the event at `index` (from 0) in a tree of `size`; `None` unless the tree holds it.
    pub fn new(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let mut siblings = Vec::new();
        let mut over = 0..size;
        while over.end - over.start > 1 {
            // The largest power of two that is less than the number of events.
            let left = 1 << (over.end - over.start - 1).ilog2();
            let middle = over.start + left;
            let (mine, sibling) = if index < middle {
                (over.start..middle, middle..over.end)
            } else {
                (middle..over.end, over.start..middle)
            };
            siblings.push((sibling, Tree::default()));
            over = mine;
        }
        siblings.reverse();
        let mut order: Vec<usize> = (0..siblings.len()).collect();
        order.sort_by_key(|number| siblings[*number].0.start);
        Some(Self { siblings, order, current: 0, next: 0 })
    }

    /// Takes the next event of the tree in, from the first one on.
    pub fn push(&mut self, event: NodeHash) {
        if let Some((over, tree)) = self.order.get(self.current).and_then(|number| self.siblings.get_mut(*number))
            && over.contains(&self.next)
        {
            tree.push(event);
            if self.next + 1 == over.end {
                self.current += 1;
            }
        }
        self.next += 1;
    }

    /// The path, once the whole tree was seen: from the event's sibling to the root's child.
    pub fn path(&self) -> Vec<NodeHash> {
        self.siblings.iter().map(|(_, tree)| tree.root()).collect()
    }
}

/// The root that an event and its path lead to (RFC 9162, section 2.1.3.2); `None` where the path is not as long as the
/// event's place in a tree of this size demands.
pub fn root_of_path(event: NodeHash, index: u64, size: u64, path: &[NodeHash]) -> Option<NodeHash> {
    if index >= size {
        return None;
    }
    let (mut node, mut index, mut last) = (event, index, size - 1);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if index & 1 == 1 || index == last {
            node = NodeHash::of_children(*sibling, node);
            // Levels at which the node is a right edge without a sibling are passed over.
            while index & 1 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            node = NodeHash::of_children(node, *sibling);
        }
        index >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE_MAX: usize = 200;

    /// RFC 6962's definition, word for word.
    fn naive_root(events: &[NodeHash]) -> NodeHash {
        match events {
            [] => NodeHash(Sha256::digest([]).into()),
            [event] => *event,
            _ => {
                let k = events.len().next_power_of_two() / 2;
                NodeHash::of_children(naive_root(&events[..k]), naive_root(&events[k..]))
            }
        }
    }

    fn naive_path(m: usize, events: &[NodeHash]) -> Vec<NodeHash> {
        if events.len() == 1 {
            return Vec::new();
        }
        let k = events.len().next_power_of_two() / 2;
        let (mut path, sibling) = if m < k {
            (naive_path(m, &events[..k]), naive_root(&events[k..]))
        } else {
            (naive_path(m - k, &events[k..]), naive_root(&events[..k]))
        };
        path.push(sibling);
        path
    }

    fn events() -> Vec<NodeHash> {
        (1..=SIZE_MAX).map(|n| NodeHash::of_event(n as i64, 1_000_000 + n as i64, &[n as u8; 32])).collect()
    }

    #[test]
    fn every_prefix_has_the_root_of_rfc_6962() {
        let events = events();
        let mut tree = Tree::default();
        assert_eq!(tree.root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for size in 1..=SIZE_MAX {
            tree.push(events[size - 1]);
            assert_eq!((tree.size(), tree.root()), (size as u64, naive_root(&events[..size])), "{size}");
        }
    }

    #[test]
    fn every_event_of_every_tree_has_the_path_of_rfc_6962_and_no_other_proves_it() {
        let events = events();
        for size in 1..=SIZE_MAX {
            let root = naive_root(&events[..size]);
            // Every event of the smaller trees and of those around powers of two; of the others some, and both ends.
            let step = if size <= 33 || (size + 1).next_power_of_two() - size < 3 { 1 } else { 11 };
            for index in (0..size).step_by(step).chain([size - 1]) {
                let mut builder = PathBuilder::new(index as u64, size as u64).unwrap();
                events[..size].iter().for_each(|event| builder.push(*event));
                let path = builder.path();
                assert_eq!(path, naive_path(index, &events[..size]), "{index} of {size}");
                let leads_to = |event: usize, index: usize, size: usize, path: &[NodeHash]| {
                    root_of_path(events[event], index as u64, size as u64, path) == Some(root)
                };
                assert!(leads_to(index, index, size, &path), "{index} of {size}");
                assert!(!leads_to((index + 1) % SIZE_MAX, index, size, &path), "another event, {index} of {size}");
                assert!(size == 1 || !leads_to(index, (index + 1) % size, size, &path), "elsewhere, {index} of {size}");
                assert!(!leads_to(index, size, size, &path), "an index that the tree does not hold");
                for n in 0..path.len() {
                    let mut wrong = path.clone();
                    wrong[n].0[n % 32] ^= 1;
                    assert!(!leads_to(index, index, size, &wrong), "node {n} changed, {index} of {size}");
                }
                let mut longer = path.clone();
                longer.push(root);
                assert!(!leads_to(index, index, size, &longer), "a path too long, {index} of {size}");
                assert!(path.is_empty() || !leads_to(index, index, size, &path[1..]), "too short, {index} of {size}");
            }
            assert!(PathBuilder::new(size as u64, size as u64).is_none());
        }
    }
}
