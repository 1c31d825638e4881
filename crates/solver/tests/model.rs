//! Random graphs, built over and over with changes, against a model: a result is always what running
//! everything afresh gives, and what is known to be cached does not run.

mod support;

use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use support::{Step, World, step};

#[derive(Clone, Debug)]
struct Node {
    inputs: Vec<(usize, bool)>,
    /// A small value: many steps give equal content.
    version: u8,
    constant: bool,
    ignore: bool,
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let node = (
        prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..3),
        0u8..3,
        any::<bool>(),
        0u8..12,
    );
    prop::collection::vec(node, 1..12).prop_map(|raw| {
        let place = |position: usize, inputs: Vec<(prop::sample::Index, bool)>| {
            if position == 0 {
                return Vec::new();
            }
            inputs.into_iter().map(|(index, content)| (index.index(position), content)).collect()
        };
        let node = |(position, (inputs, version, constant, ignore))| Node {
            inputs: place(position, inputs),
            version,
            constant,
            ignore: ignore == 0,
        };
        raw.into_iter().enumerate().map(node).collect()
    })
}

/// Builds of one graph shape with other versions each.
fn builds() -> impl Strategy<Value = Vec<Vec<Node>>> {
    let change = prop::collection::vec((any::<prop::sample::Index>(), 0u8..3, 0u8..12), 0..3);
    (nodes(), prop::collection::vec(change, 1..6)).prop_map(|(first, changes)| {
        let mut all = vec![first];
        for change in changes {
            let mut next = all.last().expect("one").clone();
            next.iter_mut().for_each(|node| node.ignore = false);
            for (index, version, ignore) in change {
                let at = index.index(next.len());
                next[at].version = version;
                next[at].ignore = ignore == 0;
            }
            all.push(next);
        }
        all
    })
}

fn steps(nodes: &[Node]) -> Vec<Step> {
    let make = |(index, node): (usize, &Node)| {
        let mut one = step(&format!("n{index}")).digest(&format!("n{index}v{}", node.version));
        if node.constant {
            one = one.value(&format!("constant{}", index % 3));
        }
        for (input, content) in &node.inputs {
            let name = format!("n{input}");
            one = if *content { one.on_content(&name) } else { one.on(&name) };
        }
        one.ignore_cache = node.ignore;
        one
    };
    nodes.iter().enumerate().map(make).collect()
}

/// The result of every node, by the definition of the ops.
fn expected(nodes: &[Node]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let inputs: Vec<&str> = node.inputs.iter().map(|(input, _)| texts[*input].as_str()).collect();
        texts.push(if node.constant {
            format!("constant{}", index % 3)
        } else {
            format!("n{index}v{}({})#0", node.version, inputs.join(","))
        });
    }
    texts
}

/// What is needed for the last node.
fn needed(nodes: &[Node]) -> HashSet<usize> {
    let mut needed = HashSet::from([nodes.len() - 1]);
    for index in (0..nodes.len()).rev().filter(|index| *index < nodes.len()) {
        if needed.contains(&index) {
            needed.extend(nodes[index].inputs.iter().map(|(input, _)| *input));
        }
    }
    needed
}

/// A node with all below it, as text.
fn definition(nodes: &[Node], index: usize) -> String {
    let node = &nodes[index];
    let inputs: Vec<String> = node.inputs.iter().map(|(input, _)| definition(nodes, *input)).collect();
    format!("n{index}v{}({})", node.version, inputs.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn results_are_right_and_known_steps_do_not_run(builds in builds(), at_once: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let world = World::new();
            let mut seen: HashSet<String> = HashSet::new();
            if at_once {
                // All builds of the history at the same time, then each alone.
                let all: Vec<Vec<Step>> = builds.iter().map(|nodes| steps(nodes)).collect();
                let texts = futures::future::join_all(all.iter().map(|steps| world.text(steps))).await;
                for (nodes, text) in builds.iter().zip(texts) {
                    assert_eq!(&text, expected(nodes).last().expect("one"));
                    seen.insert(definition(nodes, nodes.len() - 1));
                }
            }
            for nodes in &builds {
                let steps = steps(nodes);
                let text = world.text(&steps).await;
                assert_eq!(&text, expected(nodes).last().expect("one"));
                let needed = needed(nodes);
                let top = nodes.len() - 1;
                let forced = needed.iter().any(|index| nodes[*index].ignore);
                let by_name: HashMap<usize, usize> =
                    steps.iter().map(|step| step.counts.runs()).enumerate().collect();
                for (index, runs) in &by_name {
                    assert!(*runs <= 1, "n{index} ran {runs} times in one build");
                    assert!(*runs == 0 || needed.contains(index), "n{index} is not needed");
                }
                if !forced && seen.contains(&definition(nodes, top)) {
                    assert!(by_name.values().all(|runs| *runs == 0), "built before: {by_name:?}");
                }
                seen.insert(definition(nodes, top));
                assert_eq!(world.solver.active_vertices(), 0);
            }
        });
    }
}
