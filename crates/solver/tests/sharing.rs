//! Concurrent jobs, cancellation, failures, progress.

mod support;

use kiln_solver::{BuildOptions, Decision, SolveErrorKind};
use std::sync::Arc;
use support::{Events, Step, World, graph, settle, step, until};
use tokio::sync::Semaphore;

fn gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

/// Starts a build in a job of its own.
macro_rules! start {
    ($world:expr, $steps:expr) => {{
        let (graph, edge) = graph(&$steps);
        let job = $world.job();
        tokio::spawn(async move { job.build(&graph, &edge, &BuildOptions::default()).await })
    }};
}

#[tokio::test]
async fn equal_vertices_of_two_jobs_run_once() {
    let (world, gate) = (World::new(), gate());
    let steps = [step("base"), step("slow").on("base").gated(&gate)];
    let (one, two) = (start!(world, steps), start!(world, steps));
    until(|| steps[1].counts.runs() == 1).await;
    settle().await;
    assert_eq!(world.solver.active_vertices(), 2);
    gate.add_permits(1);
    let one = one.await.expect("task").expect("built");
    let two = two.await.expect("task").expect("built");
    assert_eq!(one.output(), two.output());
    assert_eq!(steps.each_ref().map(|step| step.counts.runs()), [1, 1]);
}

#[tokio::test]
async fn different_vertices_with_equal_keys_run_once() {
    let (world, gate) = (World::new(), gate());
    let steps = |salt: &str| [step("base").salt(salt), step("slow").salt(salt).on("base").gated(&gate)];
    let (mine, yours) = (steps("mine"), steps("yours"));
    let one = start!(world, mine);
    until(|| mine[1].counts.runs() == 1).await;
    let events = Arc::new(Events::default());
    let (second, edge) = graph(&yours);
    let job = world.job_with(events.clone());
    let vertex = edge.vertex.clone();
    let two = tokio::spawn(async move { job.build(&second, &edge, &BuildOptions::default()).await });
    until(|| events.decisions(&vertex).iter().any(|one| matches!(one, Decision::SharedWith { .. }))).await;
    settle().await;
    gate.add_permits(1);
    let one = one.await.expect("task").expect("built");
    let two = two.await.expect("task").expect("built");
    assert_eq!(one.output(), two.output());
    assert_eq!((mine[0].counts.runs() + yours[0].counts.runs(), yours[1].counts.runs()), (1, 0));
    assert!(events.logs().contains("run slow"), "the output of the other job's step is seen here too");
}

#[tokio::test]
async fn the_one_who_started_may_leave() {
    let (world, gate) = (World::new(), gate());
    let steps = |salt: &str| [step("base").salt(salt), step("slow").salt(salt).on("base").gated(&gate)];
    let (mine, yours) = (steps("mine"), steps("yours"));
    let (same, one) = (start!(world, mine), start!(world, mine));
    until(|| mine[1].counts.runs() == 1).await;
    let two = start!(world, yours);
    settle().await;
    one.abort();
    same.abort();
    settle().await;
    assert_eq!(mine[1].counts.cancelled(), 0, "others wait for it");
    gate.add_permits(1);
    two.await.expect("task").expect("built");
    assert_eq!((mine[1].counts.runs(), yours[1].counts.runs()), (1, 0));
}

#[tokio::test]
async fn the_last_one_who_leaves_stops_it() {
    let (world, gate) = (World::new(), gate());
    let steps = [step("base"), step("slow").on("base").gated(&gate), step("top").on("slow")];
    let (one, two) = (start!(world, steps), start!(world, steps));
    until(|| steps[1].counts.runs() == 1).await;
    one.abort();
    settle().await;
    assert_eq!(steps[1].counts.cancelled(), 0);
    two.abort();
    until(|| steps[1].counts.cancelled() == 1).await;
    settle().await;
    assert_eq!(world.solver.active_vertices(), 0);
    // It is not held against the next.
    gate.add_permits(1);
    world.build(&steps).await.expect("built");
    assert_eq!(steps.each_ref().map(|step| step.counts.runs()), [1, 2, 1]);
}

#[tokio::test]
async fn ending_a_job_ends_its_builds() {
    let (world, gate) = (World::new(), gate());
    let steps = [step("slow").gated(&gate)];
    let (graph, edge) = graph(&steps);
    let job = world.job();
    let build = {
        let (job, graph, edge) = (job.clone(), graph.clone(), edge.clone());
        tokio::spawn(async move { job.build(&graph, &edge, &BuildOptions::default()).await })
    };
    until(|| steps[0].counts.runs() == 1).await;
    job.discard();
    let error = build.await.expect("task").err().expect("ended");
    assert!(matches!(error.kind, SolveErrorKind::JobClosed));
    until(|| steps[0].counts.cancelled() == 1).await;
    let error = job.build(&graph, &edge, &BuildOptions::default()).await.err().expect("ended");
    assert!(error.is_cancelled());
}

#[tokio::test]
async fn an_orderly_op_ends_by_itself_before_it_runs_again() {
    let (world, gate) = (World::new(), gate());
    let mut slow = step("slow").gated(&gate);
    slow.orderly = true;
    let steps = [slow];
    let one = start!(world, steps);
    until(|| steps[0].counts.runs() == 1).await;
    one.abort();
    assert!(one.await.is_err());
    // The new build begins while the old run is still on its way out.
    let two = start!(world, steps);
    until(|| steps[0].counts.runs() == 2).await;
    assert_eq!(steps[0].counts.cancelled(), 100);
    gate.add_permits(1);
    two.await.expect("task").expect("built");
    assert_eq!((steps[0].counts.cancelled(), steps[0].counts.runs()), (100, 2));
}

#[tokio::test]
async fn what_a_search_began_is_not_stopped_when_the_search_fails() {
    let (world, gate) = (World::new(), gate());
    // The context is wanted for its content first, then, since the base is new, for running the copy.
    let steps = [
        step("base"),
        step("context").digest("session:1").gated(&gate),
        step("copy").on("base").on_content("context"),
        step("run").on("copy"),
        step("last").on("run"),
    ];
    let build = start!(world, steps);
    until(|| steps[1].counts.runs() == 1).await;
    settle().await;
    gate.add_permits(1);
    build.await.expect("task").expect("built");
    assert_eq!(steps.each_ref().map(|step| step.counts.runs()), [1; 5]);
    assert_eq!(steps[1].counts.cancelled(), 0);
}

#[tokio::test]
async fn independent_steps_run_at_the_same_time() {
    let (world, gate) = (World::new(), gate());
    let mut steps: Vec<Step> = vec![step("base")];
    let mut top = step("final").on("base");
    for index in 0..48 {
        let name = format!("stage{index}");
        steps.push(step(&name).on("base").gated(&gate));
        top = top.on_content(&name);
    }
    steps.push(top);
    let build = start!(world, steps);
    until(|| steps[1..49].iter().all(|step| step.counts.runs() == 1)).await;
    gate.add_permits(48);
    build.await.expect("task").expect("built");
}

#[tokio::test]
async fn a_step_does_not_wait_for_an_unrelated_source() {
    let (world, slow, gate) = (World::new(), gate(), gate());
    // The second base takes its time to resolve; the first stage is new and has to run anyway.
    let mut second = step("second");
    second.map_gate = Some(slow.clone());
    let steps = [
        step("first"),
        step("stage").on("first").gated(&gate),
        second,
        step("top").on("second").on_content("stage"),
    ];
    let build = start!(world, steps);
    until(|| steps[1].counts.runs() == 1).await;
    slow.add_permits(1);
    gate.add_permits(1);
    build.await.expect("task").expect("built");
}

#[tokio::test]
async fn ops_share_their_semaphore() {
    let (world, gate) = (World::new(), gate());
    let limit = Arc::new(Semaphore::new(2));
    let mut steps: Vec<Step> = Vec::new();
    let mut top = step("top");
    for index in 0..6 {
        let mut one = step(&format!("s{index}")).gated(&gate);
        one.limit = Some(limit.clone());
        top = top.on(&one.name.clone());
        steps.push(one);
    }
    steps.push(top);
    let build = start!(world, steps);
    let running = || steps[..6].iter().map(|step| step.counts.runs()).sum::<usize>();
    for round in 1..=3 {
        until(|| running() == 2 * round).await;
        settle().await;
        assert_eq!(running(), 2 * round);
        gate.add_permits(2);
    }
    build.await.expect("task").expect("built");
}

#[tokio::test]
async fn a_failure_goes_to_all_and_names_its_vertex() {
    let (world, gate) = (World::new(), gate());
    let steps = |text: Option<&str>| {
        let mut bad = step("bad").on("base").gated(&gate);
        bad.fail = text.map(str::to_string);
        [step("base"), bad, step("top").on("bad")]
    };
    let failing = steps(Some("exit code: 7"));
    let (one, two) = (start!(world, failing), start!(world, failing));
    until(|| failing[1].counts.runs() == 1).await;
    settle().await;
    gate.add_permits(1);
    let vertex = graph(&failing[..2]).1.vertex;
    for build in [one, two] {
        let error = build.await.expect("task").err().expect("fails");
        assert_eq!(error.to_string(), "exit code: 7");
        assert_eq!(error.vertex.as_ref(), Some(&vertex));
        assert_eq!(error.op_error(), Some(&support::Failure("exit code: 7".into())));
    }
    assert_eq!((failing[1].counts.runs(), failing[2].counts.runs()), (1, 0));
    gate.add_permits(1);
    world.build(&steps(None)).await.expect("a later job tries again");
}

#[tokio::test]
async fn a_job_that_joins_does_not_inherit_a_failure() {
    let (world, gate) = (World::new(), gate());
    let steps = [step("base"), step("bad").on("base").gated(&gate).failing("no")];
    let (graph, edge) = graph(&steps);
    let first = world.job();
    gate.add_permits(3);
    let options = BuildOptions::default();
    first.build(&graph, &edge, &options).await.err().expect("fails");
    first.build(&graph, &edge, &options).await.err().expect("fails");
    assert_eq!(steps[1].counts.runs(), 1, "the same job need not ask twice");
    world.job().build(&graph, &edge, &options).await.err().expect("fails");
    assert_eq!(steps[1].counts.runs(), 2);
    drop(first);
}

#[tokio::test]
async fn a_failing_cache_map_fails_the_build() {
    let world = World::new();
    let mut base = step("base");
    base.fail_map = Some("no such image".into());
    let events = Arc::new(Events::default());
    let (graph, edge) = graph(&[base, step("run").on("base")]);
    let built = world.job_with(events.clone()).build(&graph, &edge, &BuildOptions::default()).await;
    assert_eq!(built.err().expect("fails").to_string(), "no such image");
    let base = events.last("base").expect("seen");
    assert_eq!(base.error.as_deref(), Some("no such image"));
    assert!(events.last("run").expect("seen").started.is_none());
}

#[tokio::test]
async fn a_failure_stops_the_siblings() {
    let (world, gate) = (World::new(), gate());
    let steps = [step("slow").gated(&gate), step("bad").failing("no"), step("top").on("slow").on("bad")];
    let error = world.build(&steps).await.err().expect("fails");
    assert_eq!(error.to_string(), "no");
    until(|| steps[0].counts.cancelled() == steps[0].counts.runs()).await;
}

#[tokio::test]
async fn a_panicking_op_is_an_error() {
    let world = World::new();
    let mut bad = step("bad");
    bad.panics = true;
    let error = world.build(&[bad]).await.err().expect("fails");
    assert_eq!(error.to_string(), "internal error: an operation panicked: this op panics");
}

#[tokio::test]
async fn ignoring_and_not_ignoring_are_two_runs() {
    let (world, gate) = (World::new(), gate());
    let (plain, forced) = ([step("slow").gated(&gate)], [step("slow").gated(&gate).ignoring()]);
    let one = start!(world, plain);
    until(|| plain[0].counts.runs() == 1).await;
    let two = start!(world, forced);
    until(|| forced[0].counts.runs() == 1).await;
    // One who does not insist takes what the one who does is making.
    let third = [step("slow").gated(&gate)];
    let three = start!(world, third);
    settle().await;
    gate.add_permits(2);
    for build in [one, two, three] {
        build.await.expect("task").expect("built");
    }
    assert_eq!(third[0].counts.runs(), 0);
}

#[tokio::test]
async fn a_job_that_joins_sees_what_happened() {
    let (world, gate) = (World::new(), gate());
    let steps = [step("slow").gated(&gate)];
    let one = start!(world, steps);
    until(|| steps[0].counts.runs() == 1).await;
    let events = Arc::new(Events::default());
    let (graph, edge) = graph(&steps);
    let job = world.job_with(events.clone());
    let two = tokio::spawn(async move { job.build(&graph, &edge, &BuildOptions::default()).await });
    until(|| events.logs() == "run slow\n").await;
    let running = events.last("slow").expect("seen");
    assert!(running.started.is_some() && running.completed.is_none());
    gate.add_permits(1);
    one.await.expect("task").expect("built");
    two.await.expect("task").expect("built");
    let ended = events.last("slow").expect("seen");
    assert!(ended.completed > ended.started && !ended.cached && ended.error.is_none());
}

#[tokio::test]
async fn steps_below_a_hit_are_shown_as_cached() {
    let world = World::new();
    let steps = || [step("base"), step("a").on("base"), step("b").on("a")];
    world.text(&steps()).await;
    let events = Arc::new(Events::default());
    let (graph, edge) = graph(&steps());
    world.job_with(events.clone()).build(&graph, &edge, &BuildOptions::default()).await.expect("built");
    for name in ["a", "b"] {
        let vertex = events.last(name).expect("seen");
        assert!(
            vertex.cached && vertex.started.is_some() && vertex.completed.is_some(),
            "{name}: {vertex:?}"
        );
    }
}

#[tokio::test]
async fn what_runs_when_a_job_ends_is_shown_as_ended() {
    let (world, gate) = (World::new(), gate());
    let steps = [step("slow").gated(&gate)];
    let events = Arc::new(Events::default());
    let (graph, edge) = graph(&steps);
    let job = world.job_with(events.clone());
    let build = {
        let job = job.clone();
        tokio::spawn(async move { job.build(&graph, &edge, &BuildOptions::default()).await })
    };
    until(|| events.last("slow").is_some_and(|vertex| vertex.started.is_some())).await;
    job.discard();
    build.await.expect("task").err().expect("ended");
    let vertex = events.last("slow").expect("seen");
    assert_eq!((vertex.completed.is_some(), vertex.error.as_deref()), (true, Some("context canceled")));
}

#[tokio::test]
async fn an_op_can_build_by_itself() {
    let world = World::new();
    let inner = [step("inner base"), step("inner").on("inner base")];
    let mut outer = step("outer");
    outer.sub = Some(Arc::new(graph(&inner)));
    let events = Arc::new(Events::default());
    let (outer_graph, edge) = graph(&[outer]);
    let job = world.job_with(events.clone());
    let built = job.build(&outer_graph, &edge, &BuildOptions::default()).await.expect("built");
    assert_eq!(built.output().text, "outer(inner(inner base()#0)#0)#0");
    assert!(events.last("inner").is_some_and(|vertex| vertex.completed.is_some()));
    assert_eq!(world.solver.active_vertices(), 3);
    let records = kiln_solver::export_records(built.keys(), kiln_solver::ExportOptions::default());
    assert_eq!(records.len(), 3, "what was built inside is exported along: {records:?}");
    drop(job);
    assert_eq!(world.solver.active_vertices(), 0);
}

#[tokio::test]
async fn many_edges_in_one_job() {
    let world = World::new();
    let steps = [step("base"), step("a").on("base"), step("b").on("a")];
    let job = world.job();
    let options = BuildOptions::default();
    for count in 1..=3 {
        let (graph, edge) = graph(&steps[..count]);
        job.build(&graph, &edge, &options).await.expect("built");
    }
    assert!(steps.iter().all(|step| step.counts.runs() == 1 && step.counts.maps() == 1));
    assert_eq!(job.vertices().len(), 3);
    let unknown = kiln_solver::Edge::new("sha256:nothing".into(), 0);
    let error = job.build(&graph(&steps).0, &unknown, &options).await.err().expect("unknown");
    assert!(matches!(error.kind, SolveErrorKind::UnknownEdge(_)));
}
