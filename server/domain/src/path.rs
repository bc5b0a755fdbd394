//! Path of releases that takes a device to a goal.
//!
//! Nodes are releases that the device's channel takes, edges the ways to install one over
//! another: the full image from anywhere, or a delta. An edge may not jump over a stepping
//! stone and may not start below the goal's minimum source. The cheapest path in bytes wins;
//! among equals the one with fewer legs; among those the one whose legs are newer.

use std::collections::BTreeMap;

use tidegate_protocol::Version;

/// A release as a node of the graph, for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Whether it may be installed (stage, channel, quarantine, artifact present).
    pub usable: bool,
    /// Whether a device may not skip it.
    pub stepping_stone: bool,
    /// Oldest release it may be installed over; `None` for any.
    pub min_from: Option<Version>,
    /// Bytes of the smallest full payload; `None` where only deltas may be fetched.
    pub full_bytes: Option<u64>,
    /// Size of each delta in bytes, keyed by its source release.
    pub deltas: BTreeMap<Version, u64>,
}

/// The releases of a product for one platform.
pub type Graph = BTreeMap<Version, Node>;

/// A way to the goal: the releases to install in order, the goal last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The legs; never empty.
    pub legs: Vec<Version>,
    /// Total bytes to fetch.
    pub bytes: u64,
}

/// Reason there is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPath {
    /// The goal may not be installed.
    #[error("{0} is not offered to this device")]
    GoalNotUsable(Version),
    /// The device already runs it, or something newer.
    #[error("{0} or a newer release is already installed")]
    NotForward(Version),
    /// No chain of deltas reaches it.
    #[error("no path of deltas leads to {0}, and full payloads are not allowed")]
    OnlyWhole(Version),
    /// A stepping stone that must be passed is not usable.
    #[error("{0} must not be skipped, but is not offered to this device")]
    Blocked(Version),
    /// The installed release is too old for every path.
    #[error("{goal} can only be installed over {needed} or newer, and no path leads there")]
    SourceTooOld {
        /// The release whose minimum source is not met.
        goal: Version,
        /// Oldest release it may be installed over.
        needed: Version,
    },
}

/// Finds the cheapest path. `from` is `None` for a device with nothing installed: it goes straight
/// to the goal, since there is nothing to migrate.
pub fn solve(graph: &Graph, from: Option<&Version>, goal: &Version) -> Result<Path, NoPath> {
    let node = graph.get(goal).filter(|n| n.usable);
    let node = node.ok_or_else(|| NoPath::GoalNotUsable(goal.clone()))?;
    let Some(from) = from else {
        let bytes = node
            .full_bytes
            .ok_or_else(|| NoPath::OnlyWhole(goal.clone()))?;
        return Ok(Path {
            legs: vec![goal.clone()],
            bytes,
        });
    };
    if from >= goal {
        return Err(NoPath::NotForward(goal.clone()));
    }
    // Versions only rise along an edge, so one pass in order settles every node.
    let mut best: BTreeMap<&Version, Path> = BTreeMap::new();
    let between = (
        std::ops::Bound::Excluded(from),
        std::ops::Bound::Included(goal),
    );
    for (to, node) in graph.range::<Version, _>(between) {
        if !node.usable {
            continue;
        }
        let start = edge(graph, from, to, node).map(|bytes| Path {
            legs: vec![to.clone()],
            bytes,
        });
        let via = best.iter().filter_map(|(mid, path)| {
            let bytes = edge(graph, mid, to, node)?;
            let mut legs = path.legs.clone();
            legs.push(to.clone());
            Some(Path {
                legs,
                bytes: path.bytes.saturating_add(bytes),
            })
        });
        if let Some(path) = start.into_iter().chain(via).min_by(compare) {
            best.insert(to, path);
        }
    }
    best.remove(goal)
        .ok_or_else(|| why_not(graph, from, goal, node))
}

/// The order of paths: bytes, then fewer legs, then newer legs.
fn compare(a: &Path, b: &Path) -> std::cmp::Ordering {
    (a.bytes, a.legs.len())
        .cmp(&(b.bytes, b.legs.len()))
        .then_with(|| b.legs.cmp(&a.legs))
}

/// Bytes to fetch to install `to` over `from`; `None` when that is not allowed.
fn edge(graph: &Graph, from: &Version, to: &Version, node: &Node) -> Option<u64> {
    if node.min_from.as_ref().is_some_and(|min| from < min) {
        return None;
    }
    let between = (
        std::ops::Bound::Excluded(from),
        std::ops::Bound::Excluded(to),
    );
    if graph
        .range::<Version, _>(between)
        .any(|(_, n)| n.stepping_stone)
    {
        return None;
    }
    let delta = node.deltas.get(from).copied();
    delta.into_iter().chain(node.full_bytes).min()
}

fn why_not(graph: &Graph, from: &Version, goal: &Version, node: &Node) -> NoPath {
    let between = (
        std::ops::Bound::Excluded(from),
        std::ops::Bound::Excluded(goal),
    );
    let blocked = graph
        .range::<Version, _>(between)
        .find(|(_, node)| node.stepping_stone && !node.usable);
    if let Some((stone, _)) = blocked {
        return NoPath::Blocked(stone.clone());
    }
    if node.full_bytes.is_none() {
        return NoPath::OnlyWhole(goal.clone());
    }
    let needed = node.min_from.clone().unwrap_or_else(|| goal.clone());
    NoPath::SourceTooOld {
        goal: goal.clone(),
        needed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v(minor: u64) -> Version {
        Version::new(1, minor, 0)
    }

    fn node(full: u64) -> Node {
        Node {
            usable: true,
            stepping_stone: false,
            min_from: None,
            full_bytes: Some(full),
            deltas: BTreeMap::new(),
        }
    }

    #[test]
    fn a_stepping_stone_is_never_jumped() {
        let mut graph = Graph::from([(v(1), node(10)), (v(2), node(10)), (v(3), node(10))]);
        assert_eq!(solve(&graph, Some(&v(0)), &v(3)).unwrap().legs, [v(3)]);
        graph.get_mut(&v(2)).unwrap().stepping_stone = true;
        assert_eq!(
            solve(&graph, Some(&v(0)), &v(3)).unwrap().legs,
            [v(2), v(3)]
        );
        graph.get_mut(&v(2)).unwrap().usable = false;
        assert_eq!(
            solve(&graph, Some(&v(0)), &v(3)),
            Err(NoPath::Blocked(v(2)))
        );
        // A device already past the stepping stone is not affected.
        assert!(solve(&graph, Some(&v(2)), &v(3)).is_ok());
    }

    #[test]
    fn a_minimum_source_is_reached_over_another_release() {
        let mut graph = Graph::from([(v(1), node(10)), (v(3), node(10))]);
        graph.get_mut(&v(3)).unwrap().min_from = Some(v(1));
        assert_eq!(
            solve(&graph, Some(&v(0)), &v(3)).unwrap().legs,
            [v(1), v(3)]
        );
        graph.remove(&v(1));
        let refused = solve(&graph, Some(&v(0)), &v(3));
        assert_eq!(
            refused,
            Err(NoPath::SourceTooOld {
                goal: v(3),
                needed: v(1)
            })
        );
    }

    #[test]
    fn the_cheapest_bytes_win_and_fewer_legs_break_a_tie() {
        let mut graph = Graph::from([(v(1), node(100)), (v(2), node(100))]);
        graph.get_mut(&v(1)).unwrap().deltas.insert(v(0), 5);
        graph.get_mut(&v(2)).unwrap().deltas.insert(v(1), 5);
        let path = solve(&graph, Some(&v(0)), &v(2)).unwrap();
        assert_eq!((path.legs, path.bytes), (vec![v(1), v(2)], 10));
        graph.get_mut(&v(2)).unwrap().deltas.insert(v(0), 10);
        assert_eq!(solve(&graph, Some(&v(0)), &v(2)).unwrap().legs, [v(2)]);
    }

    #[test]
    fn a_bare_device_takes_the_goal_at_once() {
        let mut graph = Graph::from([(v(1), node(1)), (v(2), node(7))]);
        graph.get_mut(&v(1)).unwrap().stepping_stone = true;
        let path = solve(&graph, None, &v(2)).unwrap();
        assert_eq!((path.legs, path.bytes), (vec![v(2)], 7));
    }

    /// Every increasing sequence of usable releases, by recursion.
    fn brute_force(graph: &Graph, from: &Version, goal: &Version) -> Option<Path> {
        let mut found: Vec<Path> = Vec::new();
        let mut stack = vec![Path {
            legs: vec![],
            bytes: 0,
        }];
        while let Some(path) = stack.pop() {
            let at = path.legs.last().unwrap_or(from).clone();
            if at == *goal {
                found.push(path);
                continue;
            }
            for (to, node) in graph
                .iter()
                .filter(|(to, n)| **to > at && *to <= goal && n.usable)
            {
                if let Some(bytes) = edge(graph, &at, to, node) {
                    let mut legs = path.legs.clone();
                    legs.push(to.clone());
                    stack.push(Path {
                        legs,
                        bytes: path.bytes + bytes,
                    });
                }
            }
        }
        found.into_iter().min_by(compare)
    }

    prop_compose! {
        fn any_graph()(nodes in prop::collection::vec(
            (any::<bool>(), prop::bool::weighted(0.3), prop::option::weighted(0.3, 0u64..7),
             prop::option::weighted(0.9, 1u64..20), prop::collection::btree_map(0u64..7, 1u64..20, 0..4)),
            7,
        )) -> Graph {
            nodes.into_iter().zip(1u64..).map(|((usable, stone, min, full, deltas), i)| {
                (v(i), Node {
                    usable,
                    stepping_stone: stone,
                    min_from: min.map(v),
                    full_bytes: full,
                    deltas: deltas.into_iter().map(|(from, b)| (v(from), b)).collect(),
                })
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn the_solver_agrees_with_brute_force(graph in any_graph(), from in 0u64..7, goal in 1u64..8) {
            let (from, goal) = (v(from), v(goal));
            prop_assume!(from < goal && graph[&goal].usable);
            let solved = solve(&graph, Some(&from), &goal).ok();
            prop_assert_eq!(solved, brute_force(&graph, &from, &goal));
        }
    }
}
