//! Large graphs: no recursion, nothing quadratic, and what a cached build costs.

mod support;

use kiln_solver::{ExportOptions, export_records};
use std::time::{Duration, Instant};
use support::{Step, World, step};

fn chain(length: usize) -> Vec<Step> {
    let name = |index: usize| format!("s{index}");
    (0..length)
        .map(|index| {
            let one = step(&name(index));
            // Values instead of nested texts: the text would grow with the chain.
            let one = one.value(&format!("v{index}"));
            if index == 0 { one } else { one.on(&name(index - 1)) }
        })
        .collect()
}

/// A small stack, as the threads of a runtime have at least: what recurses once a step overflows it.
fn on_a_small_stack(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(|| {
        tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(test());
    });
    thread.expect("thread").join().expect("no panic");
}

#[test]
fn chains_of_five_thousand() {
    on_a_small_stack(async || {
        let world = World::new();
        let steps = chain(5_000);
        let built = world.build(&steps).await.expect("built");
        assert!(steps.iter().all(|step| step.counts.runs() == 1));
        assert_eq!(export_records(built.keys(), ExportOptions::default()).len(), 5_000);
        drop(built);
        let world = world.restarted();
        let built = world.build(&steps).await.expect("built");
        assert!(steps.iter().all(|step| step.counts.runs() == 1));
        drop(built);
        // The whole chain known by content only, from the bottom up.
        let mut changed = chain(5_000);
        changed[0] = step("s0").digest("other").value("v0");
        for one in &mut changed[1..] {
            one.content = vec![0];
        }
        world.build(&changed).await.expect("built");
    });
}

#[test]
fn wide_graphs_of_ten_thousand() {
    on_a_small_stack(async || {
        let world = World::new();
        let mut steps = vec![step("base")];
        let mut top = step("top").value("top");
        for index in 0..10_000 {
            let name = format!("w{index}");
            steps.push(step(&name).on("base").value(&name));
            top = top.on(&name);
        }
        steps.push(top);
        world.build(&steps).await.expect("built");
        world.build(&steps).await.expect("built");
        assert!(steps.iter().all(|step| step.counts.runs() == 1));
    });
}

#[test]
fn ladders_do_not_multiply() {
    // Each step uses the one before twice: 2^500 paths.
    on_a_small_stack(async || {
        let world = World::new();
        let mut steps = chain(500);
        for index in 1..steps.len() {
            let below = steps[index - 1].name.clone();
            steps[index] = steps[index].clone().on(&below);
        }
        let built = world.build(&steps).await.expect("built");
        world.build(&steps).await.expect("built");
        assert!(steps.iter().all(|step| step.counts.runs() == 1));
        assert_eq!(export_records(built.keys(), ExportOptions::default()).len(), 500);
    });
}

#[test]
fn time_grows_with_the_chain_and_no_faster() {
    on_a_small_stack(async || {
        let measure = async |length: usize| {
            let world = World::new();
            let steps = chain(length);
            world.build(&steps).await.expect("built");
            let cached = Instant::now();
            world.build(&steps).await.expect("built");
            cached.elapsed()
        };
        measure(500).await;
        let (short, long) = (measure(1_000).await, measure(8_000).await);
        println!("cached chain: 1,000 steps {short:?}, 8,000 steps {long:?}");
        // Eight times the work; quadratic would be 64 times.
        assert!(long < short * 30 + Duration::from_millis(50), "1,000 steps {short:?}, 8,000 steps {long:?}");
    });
}
