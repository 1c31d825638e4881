//! Many jobs on several threads, some given up half way: nothing hangs, runs twice at a time, or stays behind.

mod support;

use kiln_solver::BuildOptions;
use std::sync::Arc;
use std::time::Duration;
use support::{Step, World, graph, step};
use tokio::sync::Semaphore;

/// A small generator of numbers, so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A graph of steps of which some equal those of other graphs, by digest or by key or by content only.
fn steps(numbers: &mut Numbers, limit: &Arc<Semaphore>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for index in 0..12_u64 {
        let version = numbers.below(3);
        let mut one = step(&format!("s{index}"));
        one.salt = numbers.below(2).to_string();
        one.limit = Some(limit.clone());
        one.ignore_cache = numbers.below(20) == 0;
        // Equal digests have to mean equal ops.
        if (index + version).is_multiple_of(3) {
            one.value = Some(format!("value{}", index % 2));
        }
        for _ in 0..numbers.below(3).min(index) {
            let input = format!("s{}", numbers.below(index));
            one = if numbers.below(2) == 0 { one.on(&input) } else { one.on_content(&input) };
        }
        // As it does for real ops, the digest tells how many inputs there are.
        let count = one.inputs.len();
        one = one.digest(&format!("s{index}v{version}i{count}"));
        steps.push(one);
    }
    steps
}

/// What the last step gives, by its definition.
fn expected(steps: &[Step]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for one in steps {
        let text = |input: &(String, usize)| texts[input.0[1..].parse::<usize>().expect("index")].as_str();
        let inputs: Vec<&str> = one.inputs.iter().map(text).collect();
        let text = match &one.value {
            Some(value) => value.clone(),
            None => format!("{}({})#0", one.digests[0], inputs.join(",")),
        };
        texts.push(text);
    }
    texts.pop().expect("steps")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_jobs_on_several_threads() {
    for seed in 0..5 {
        many_jobs(seed).await;
    }
}

async fn many_jobs(seed: u64) {
    let world = Arc::new(World::new());
    let limit = Arc::new(Semaphore::new(3));
    let mut numbers = Numbers(seed);
    let mut builds = Vec::new();
    for _ in 0..400 {
        let steps = steps(&mut numbers, &limit);
        let (give_up, wait) = (numbers.below(4) == 0, numbers.below(300));
        let world = world.clone();
        let task = tokio::spawn(async move {
            let (graph, edge) = graph(&steps);
            let job = world.job();
            let options = BuildOptions::default();
            let build = job.build(&graph, &edge, &options);
            if give_up {
                let _ = tokio::time::timeout(Duration::from_micros(wait), build).await;
                return;
            }
            let built = build.await.expect("built");
            assert_eq!(built.output().text, expected(&steps));
        });
        builds.push(task);
    }
    let all = futures::future::join_all(builds);
    let all = tokio::time::timeout(Duration::from_secs(120), all).await.expect("nothing hangs");
    all.into_iter().for_each(|build| build.expect("no panic"));
    // What was given up ends by itself.
    let idle = async {
        while world.solver.active_vertices() > 0 || limit.available_permits() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), idle).await.expect("nothing stays behind");
}
