//! What is found again and what runs again.

mod support;

use kiln_solver::{BuildOptions, CacheSource, Decision, MissReason, RecordId};
use std::sync::Arc;
use support::{Events, World, cache, graph, step};

#[tokio::test]
async fn a_cached_chain_runs_nothing() {
    let world = World::new();
    let steps = [step("base"), step("a").on("base"), step("b").on("a")];
    assert_eq!(world.text(&steps).await, "b(a(base()#0)#0)#0");
    for step in &steps {
        assert_eq!(step.counts.runs(), 1);
    }
    assert_eq!(world.solver.active_vertices(), 0, "the job has ended");
    assert_eq!(world.text(&steps).await, "b(a(base()#0)#0)#0");
    let world = world.restarted();
    assert_eq!(world.text(&steps).await, "b(a(base()#0)#0)#0");
    for step in &steps {
        assert_eq!(step.counts.runs(), 1, "{} ran again", step.name);
    }
}

#[tokio::test]
async fn a_change_runs_only_what_is_above_it() {
    let world = World::new();
    let steps = |middle: &str| [step("base"), step("a").digest(middle).on("base"), step("b").on("a")];
    world.text(&steps("one")).await;
    let changed = steps("two");
    world.text(&changed).await;
    assert_eq!([0, 1, 2].map(|index| changed[index].counts.runs()), [0, 1, 1]);
    let back = steps("one");
    world.text(&back).await;
    assert_eq!([0, 1, 2].map(|index| back[index].counts.runs()), [0, 0, 0]);
}

#[tokio::test]
async fn equal_keys_hit_although_definitions_differ() {
    let world = World::new();
    world.text(&[step("base"), step("a").on("base")]).await;
    // Another vertex (other digest), same cache map.
    let again = [step("base").salt("x"), step("a").salt("y").on("base")];
    assert_eq!(world.text(&again).await, "a(base()#0)#0");
    assert_eq!(again[0].counts.runs() + again[1].counts.runs(), 0);
}

#[tokio::test]
async fn a_diamond_runs_each_once() {
    let world = World::new();
    let steps = [step("base"), step("l").on("base"), step("r").on("base"), step("top").on("l").on("r")];
    assert_eq!(world.text(&steps).await, "top(l(base()#0)#0,r(base()#0)#0)#0");
    assert!(steps.iter().all(|step| step.counts.runs() == 1));
    assert_eq!(world.text(&steps).await, "top(l(base()#0)#0,r(base()#0)#0)#0");
    assert!(steps.iter().all(|step| step.counts.runs() == 1));
}

#[tokio::test]
async fn equal_content_is_a_hit_and_leads_on() {
    let world = World::new();
    let steps = |context: &str, value: &str| {
        [
            step("base"),
            step("context").digest(context).value(value),
            step("copy").on("base").on_content("context"),
            step("run").on("copy"),
            step("last").on("run"),
        ]
    };
    world.text(&steps("session:1", "files")).await;
    // A new session: its key is unknown, what it holds is not.
    let again = steps("session:2", "files");
    let events = Arc::new(Events::default());
    let (graph, edge) = graph(&again);
    world.job_with(events.clone()).build(&graph, &edge, &BuildOptions::default()).await.expect("built");
    assert_eq!(again.each_ref().map(|step| step.counts.runs()), [0, 1, 0, 0, 0]);
    assert_eq!(again[2].counts.contents(), 1);
    assert!(events.last("last").is_some_and(|vertex| vertex.cached));
    assert!(events.last("copy").is_some_and(|vertex| vertex.cached && vertex.completed.is_some()));
    assert!(events.last("context").is_some_and(|vertex| !vertex.cached));
    let changed = steps("session:3", "other files");
    world.text(&changed).await;
    assert_eq!(changed.each_ref().map(|step| step.counts.runs()), [0, 1, 1, 1, 1]);
}

#[tokio::test]
async fn session_keys_are_not_kept() {
    use kiln_solver::KeyStore;
    let world = World::new();
    let steps =
        |session: &str| [step("context").digest(session).value("files"), step("copy").on_content("context")];
    world.text(&steps("session:1")).await;
    let keys = world.keys.all_records().expect("records");
    assert_eq!(keys.len(), 1, "only the copy: {keys:?}");
    // Reading the same session again gives the same vertex but no record.
    let again = steps("session:1");
    world.text(&again).await;
    assert_eq!(again.each_ref().map(|step| step.counts.runs()), [1, 0]);
}

#[tokio::test]
async fn a_content_hit_is_a_definition_hit_the_next_time() {
    let world = World::new();
    let steps = |source: &str| {
        [
            step("source").digest(source).value("same"),
            step("copy").on_content("source"),
            step("run").on("copy"),
        ]
    };
    world.text(&steps("one")).await;
    let second = steps("two");
    world.text(&second).await;
    assert_eq!(second.each_ref().map(|step| step.counts.runs()), [1, 0, 0]);
    let third = steps("two");
    world.text(&third).await;
    assert_eq!(third.each_ref().map(|step| step.counts.runs()), [0, 0, 0]);
    assert_eq!(third[1].counts.contents(), 0, "found without looking at content");
}

#[tokio::test]
async fn content_of_a_changed_step_can_be_what_it_was() {
    let world = World::new();
    let steps = |op: &str| {
        [
            step("base"),
            step("tool").digest(op).on("base").value("same output"),
            step("copy").on("base").on_content("tool"),
            step("last").on("copy"),
        ]
    };
    world.text(&steps("v1")).await;
    let changed = steps("v2");
    world.text(&changed).await;
    assert_eq!(changed.each_ref().map(|step| step.counts.runs()), [0, 1, 0, 0]);
}

#[tokio::test]
async fn selectors_tell_parts_of_an_input_apart() {
    let world = World::new();
    let with = |part: &str| {
        let mut copy = step("copy").on("base");
        copy.selectors.insert(0, part.to_string());
        [step("base"), copy]
    };
    world.text(&with("/a")).await;
    let (same, other) = (with("/a"), with("/b"));
    world.text(&same).await;
    world.text(&other).await;
    assert_eq!((same[1].counts.runs(), other[1].counts.runs()), (0, 1));
}

#[tokio::test]
async fn outputs_are_told_apart() {
    let world = World::new();
    let mut two = step("two");
    two.outputs = 2;
    let steps =
        [two, step("a").on_output("two", 0), step("b").on_output("two", 1), step("top").on("a").on("b")];
    assert_eq!(world.text(&steps).await, "top(a(two()#0)#0,b(two()#1)#0)#0");
    assert_eq!(steps[0].counts.runs(), 1);
    assert_eq!(world.text(&steps).await, "top(a(two()#0)#0,b(two()#1)#0)#0");
    assert_eq!(steps[0].counts.runs(), 1);
    let bad = [step("one"), step("a").on_output("one", 7)];
    let error = world.build(&bad).await.err().expect("no such output");
    assert_eq!(error.to_string(), "output 7 was asked for, but the op has 1");
}

#[tokio::test]
async fn ignoring_the_cache_runs_and_saves() {
    let world = World::new();
    let steps = || [step("base"), step("a").on("base"), step("b").on("a")];
    world.text(&steps()).await;
    let [base, a, b] = steps();
    let forced = [base, a.ignoring(), b];
    world.text(&forced).await;
    assert_eq!(forced.each_ref().map(|step| step.counts.runs()), [0, 1, 1], "nor what is above it");
    let again = steps();
    world.text(&again).await;
    assert_eq!(again.each_ref().map(|step| step.counts.runs()), [0, 0, 0]);
}

#[tokio::test]
async fn ignoring_the_cache_does_not_forbid_equal_content() {
    let world = World::new();
    let steps =
        || [step("base"), step("gen").on("base").value("same"), step("copy").on("base").on_content("gen")];
    world.text(&steps()).await;
    let [base, gen_, copy] = steps();
    let forced = [base, gen_.ignoring(), copy];
    world.text(&forced).await;
    assert_eq!(forced.each_ref().map(|step| step.counts.runs()), [0, 1, 0]);
}

#[tokio::test]
async fn sources_are_asked_page_by_page_until_found() {
    let world = World::new();
    let image = |tag: &str| {
        let mut image = step("image").value("layers");
        image.digests = vec![tag.to_string(), "chain".to_string()];
        [image, step("run").on("image")]
    };
    world.text(&image("tag1")).await;
    let same = image("tag1");
    world.text(&same).await;
    assert_eq!((same[0].counts.maps(), same[0].counts.runs(), same[1].counts.runs()), (1, 0, 0));
    let retagged = image("tag2");
    world.text(&retagged).await;
    assert_eq!((retagged[0].counts.maps(), retagged[0].counts.runs(), retagged[1].counts.runs()), (2, 0, 0));
}

#[tokio::test]
async fn a_pruned_result_in_the_middle_is_not_needed() {
    let world = World::new();
    let steps = || [step("base"), step("a").on("base"), step("b").on("a")];
    world.text(&steps()).await;
    world.results.remove(&RecordId::new("a(base()#0)#0@a/")).expect("was there");
    world.results.remove(&RecordId::new("base()#0@base/")).expect("was there");
    let again = steps();
    world.text(&again).await;
    assert_eq!(again.each_ref().map(|step| step.counts.runs()), [0, 0, 0]);
    // What is new above needs it.
    let [base, a, b] = steps();
    let above = [base, a, b.digest("b2")];
    assert_eq!(world.text(&above).await, "b2(a(base()#0)#0)#0");
    assert_eq!(above.each_ref().map(|step| step.counts.runs()), [1, 1, 1]);
    let third = steps();
    world.text(&third).await;
    assert_eq!(third.each_ref().map(|step| step.counts.runs()), [0, 0, 0]);
}

#[tokio::test]
async fn unreferenced_records_are_released() {
    use kiln_solver::KeyStore;
    let world = World::new();
    world.text(&[step("base"), step("a").on("base")]).await;
    world.results.remove(&RecordId::new("base()#0@base/")).expect("was there");
    assert_eq!(world.solver.release_unreferenced().expect("walk"), 1);
    assert_eq!(world.keys.all_records().expect("all").len(), 1);
    let again = [step("base"), step("a").on("base")];
    world.text(&again).await;
    assert_eq!(again[1].counts.runs(), 0, "the key of the base still leads there");
}

#[tokio::test]
async fn imported_caches_are_looked_into_and_kept() {
    let elsewhere = World::new();
    let steps = || [step("base"), step("a").on("base"), step("b").on("a")];
    elsewhere.text(&steps()).await;
    let (mut import, ..) = cache("remote");
    import.keys = elsewhere.keys.clone();
    import.results = elsewhere.results.clone();
    let world = World::new();
    let source = CacheSource::lazy("remote", async move {
        tokio::task::yield_now().await;
        Some(import)
    });
    let options = BuildOptions { cache_sources: vec![source, CacheSource::lazy("broken", async { None })] };
    let imported = steps();
    assert_eq!(
        world.build_with(&imported, &options).await.expect("built").output().text,
        "b(a(base()#0)#0)#0"
    );
    assert_eq!(imported.each_ref().map(|step| step.counts.runs()), [0, 0, 0]);
    // Now it is in the solver's own cache, with the keys that lead there.
    let alone = steps();
    world.text(&alone).await;
    assert_eq!(alone.each_ref().map(|step| step.counts.runs()), [0, 0, 0]);
    // Something new on top of an imported result.
    let [base, a, b] = steps();
    let more = [base, a, b, step("c").on("b")];
    world.build_with(&more, &options).await.expect("built");
    assert_eq!(more.each_ref().map(|step| step.counts.runs()), [0, 0, 0, 1]);
    world.text(&more).await;
    assert_eq!(more[3].counts.runs(), 1);
}

#[tokio::test]
async fn a_record_that_does_not_load_is_made_again() {
    let elsewhere = World::new();
    let steps = || [step("base"), step("a").on("base")];
    elsewhere.text(&steps()).await;
    struct Liar;
    #[async_trait::async_trait]
    impl kiln_solver::ResultStore<support::Step> for Liar {
        async fn save(
            &self,
            _: &support::Text,
            _: std::time::SystemTime,
        ) -> Result<RecordId, kiln_solver::StoreError> {
            unreachable!("imports are not written to")
        }
        async fn load(
            &self,
            record: &RecordId,
            _: &kiln_solver::OpContext<support::Step>,
        ) -> Result<support::Text, kiln_solver::StoreError> {
            Err(kiln_solver::StoreError::not_found(format!("no {record}")))
        }
        fn exists(&self, _: &RecordId) -> bool {
            true
        }
    }
    let import = kiln_solver::Cache::new("remote", elsewhere.keys.clone(), Arc::new(Liar));
    let options = BuildOptions { cache_sources: vec![CacheSource::ready(import)] };
    let world = World::new();
    let again = steps();
    let (graph, edge) = graph(&again);
    let events = Arc::new(Events::default());
    let built = world.job_with(events.clone()).build(&graph, &edge, &options).await.expect("built");
    assert_eq!(built.output().text, "a(base()#0)#0");
    assert_eq!(again.each_ref().map(|step| step.counts.runs()), [1, 1]);
    let reasons = events.decisions(&edge.vertex);
    let lost = |reason: &Decision| matches!(reason, Decision::Miss(MissReason::LoadFailed { .. }));
    assert!(reasons.iter().any(lost), "{reasons:?}");
}

#[tokio::test]
async fn reasons_say_which_input_differs() {
    let world = World::new();
    let steps = |one: &str, two: &str| {
        [step("one").digest(one), step("two").digest(two), step("top").on("one").on("two")]
    };
    world.text(&steps("1", "2")).await;
    let reasons = async |steps: [support::Step; 3]| {
        let events = Arc::new(Events::default());
        let (graph, edge) = graph(&steps);
        world.job_with(events.clone()).build(&graph, &edge, &BuildOptions::default()).await.expect("built");
        events.decisions(&edge.vertex)
    };
    let hit = reasons(steps("1", "2")).await;
    let [.., Decision::Hit { cache, content: false, .. }] = &hit[..] else { panic!("{hit:?}") };
    assert_eq!(cache, "local");
    let miss = reasons(steps("1", "other")).await;
    let expected = Decision::Miss(MissReason::InputsDiffer { changed: vec![1], matched: vec![0] });
    assert!(miss.contains(&expected), "{miss:?}");
    let [one, two, top] = steps("1", "2");
    let ignored = reasons([one, two, top.ignoring()]).await;
    assert!(ignored.contains(&Decision::Miss(MissReason::IgnoreCache)), "{ignored:?}");
}

#[tokio::test]
async fn moving_unrelated_steps_changes_nothing() {
    let world = World::new();
    let (base, l, r) = (step("base"), step("l").on("base"), step("r").on("base"));
    let top = step("top").on_content("l").on_content("r");
    world.text(&[base.clone(), l.clone(), r.clone(), top.clone()]).await;
    let unrelated = step("unrelated").on("base");
    world.text(&[base.clone(), unrelated.clone(), r.clone(), l.clone(), top.clone()]).await;
    assert_eq!(unrelated.counts.runs(), 0, "nobody needs it");
    assert!([&base, &l, &r, &top].iter().all(|step| step.counts.runs() == 1));
}

#[test]
fn the_memory_store_keeps_its_promises() {
    kiln_solver::testsuite::key_store(kiln_solver::MemoryKeyStore::new);
}
