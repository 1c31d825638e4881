use super::*;
use crate::event::ProgressGroup;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_parts(1_000 + seconds, 0)
}

fn vertex(digest: &str, started: Option<i64>, completed: Option<i64>) -> Vertex {
    Vertex {
        digest: digest.into(),
        name: format!("[{digest}]"),
        started: started.map(at),
        completed: completed.map(at),
        ..Vertex::default()
    }
}

fn member(digest: &str, weak: bool, started: Option<i64>, completed: Option<i64>) -> Vertex {
    let group = ProgressGroup { id: "group".into(), name: "[group]".into(), weak };
    Vertex { progress_group: Some(group), cached: true, ..vertex(digest, started, completed) }
}

fn vertices(list: &[Vertex]) -> SolveStatus {
    SolveStatus { vertexes: list.to_vec(), ..SolveStatus::default() }
}

#[test]
fn a_vertex_shows_once_it_started() {
    let mut trace = Trace::new();
    trace.update(&vertices(&[vertex("a", None, None), vertex("b", None, None)]), at(0));
    assert_eq!((trace.counts(), trace.visible().count()), ((0, 2), 0));
    trace.update(&vertices(&[vertex("b", Some(1), None)]), at(1));
    trace.update(&vertices(&[vertex("a", Some(2), Some(3))]), at(3));
    let names: Vec<&str> = trace.visible().map(|vertex| vertex.name.as_str()).collect();
    assert_eq!(names, ["[b]", "[a]"]);
    assert_eq!(trace.counts(), (1, 2));
}

#[test]
fn an_announcement_without_times_does_not_undo_what_is_known() {
    let mut trace = Trace::new();
    trace.update(&vertices(&[vertex("a", Some(1), Some(2))]), at(2));
    trace.update(&vertices(&[Vertex { name: "other".into(), ..vertex("a", None, None) }]), at(3));
    let known = trace.visible().next().unwrap();
    assert!(known.is_completed());
    assert_eq!(known.name, "[a]");
}

#[test]
fn work_in_several_spans_adds_up() {
    let mut trace = Trace::new();
    trace.update(&vertices(&[vertex("a", Some(1), Some(2))]), at(2));
    trace.update(&vertices(&[vertex("a", Some(5), None)]), at(5));
    assert!(!trace.visible().next().unwrap().is_completed());
    trace.update(&vertices(&[vertex("a", Some(5), Some(7))]), at(7));
    let total = crate::intervals::total_seconds(trace.visible().next().unwrap().intervals(), at(9));
    assert!((total - 3.0).abs() < 1e-9, "{total}");
}

#[test]
fn a_group_is_one_vertex_and_hides_while_weak() {
    let mut trace = Trace::new();
    trace.update(&vertices(&[member("a", true, Some(1), Some(2)), member("b", false, None, None)]), at(2));
    assert_eq!((trace.counts(), trace.visible().count()), ((0, 0), 0));
    trace.update(&vertices(&[member("b", false, Some(3), None)]), at(3));
    assert_eq!(trace.counts(), (0, 1));
    let group = trace.visible().next().unwrap();
    assert_eq!((group.name.as_str(), group.cached), ("[group]", true));
    let mut last = member("b", false, Some(3), Some(4));
    last.cached = false;
    trace.update(&vertices(&[last]), at(4));
    let group = trace.visible().next().unwrap();
    assert!(group.is_completed() && !group.cached);
    assert_eq!(trace.counts(), (1, 1));
}

#[test]
fn output_of_a_member_belongs_to_its_group() {
    let mut trace = Trace::new();
    trace.update(&vertices(&[member("a", false, Some(1), None)]), at(1));
    let log = VertexLog { vertex: "a".into(), stream: 1, data: "hi\n".into(), timestamp: at(3) };
    trace.update(&SolveStatus { logs: vec![log], ..SolveStatus::default() }, at(3));
    let lines: Vec<_> = trace.visible().next().unwrap().logs.lines().map(<[u8]>::to_vec).collect();
    assert_eq!(lines, [b"2.000 hi".to_vec()]);
}

#[test]
fn news_of_unknown_vertices_is_let_go() {
    let mut trace = Trace::new();
    let status = SolveStatus {
        statuses: vec![VertexStatus { id: "s".into(), vertex: "?".into(), ..VertexStatus::default() }],
        logs: vec![VertexLog { vertex: "?".into(), data: "x".into(), ..VertexLog::default() }],
        warnings: vec![VertexWarning { vertex: "?".into(), short: "w".into(), ..VertexWarning::default() }],
        ..SolveStatus::default()
    };
    trace.update(&status, at(0));
    assert!(trace.vertices().is_empty());
    assert_eq!(trace.warnings().len(), 1, "a warning counts wherever it was found");
}

#[test]
fn the_daemons_clock_may_be_wrong() {
    let mut trace = Trace::new();
    trace.update(&vertices(&[vertex("a", Some(1), None)]), at(101));
    assert_eq!(trace.started(), Some(at(101)));
    assert_eq!(trace.remote(at(102)), at(2));
}
