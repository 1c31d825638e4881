use super::*;
use crate::event::{Vertex, VertexLog, VertexStatus, VertexWarning};

/// Milliseconds after the beginning of the build.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_parts(1_785_000_000, 0).shifted(ms * 1_000_000)
}

fn vertex(
    digest: &str,
    name: &str,
    started: impl Into<Option<i64>>,
    completed: impl Into<Option<i64>>,
) -> Vertex {
    Vertex {
        digest: digest.into(),
        name: name.into(),
        started: started.into().map(at),
        completed: completed.into().map(at),
        ..Vertex::default()
    }
}

fn log(digest: &str, ms: i64, data: &str) -> SolveStatus {
    let log = VertexLog { vertex: digest.into(), stream: 1, data: data.to_owned().into(), timestamp: at(ms) };
    SolveStatus { logs: vec![log], ..SolveStatus::default() }
}

fn part(digest: &str, id: &str, current: i64, total: i64, ms: i64, completed: Option<i64>) -> SolveStatus {
    let status = VertexStatus {
        id: id.into(),
        vertex: digest.into(),
        total,
        current,
        timestamp: at(ms),
        started: Some(at(300)),
        completed: completed.map(at),
        ..VertexStatus::default()
    };
    SolveStatus { statuses: vec![status], ..SolveStatus::default() }
}

fn vertices(list: Vec<Vertex>) -> SolveStatus {
    SolveStatus { vertexes: list, ..SolveStatus::default() }
}

fn warning(digest: &str, short: &str) -> SolveStatus {
    let warning =
        VertexWarning { vertex: digest.into(), short: short.to_owned().into(), ..VertexWarning::default() };
    SolveStatus { warnings: vec![warning], ..SolveStatus::default() }
}

/// Plays events at their times, and the end at the time of the last.
fn play(mode: Mode, options: Options, events: Vec<(i64, SolveStatus)>) -> String {
    let size = Size { width: 70, height: 24 };
    let mut display = Display::new(mode, options);
    let mut out = Vec::new();
    let mut end = 0;
    for (ms, event) in events {
        out.extend(display.update(&event, at(ms), size));
        end = ms;
    }
    out.extend(display.finish(at(end), size));
    String::from_utf8(out).expect("the tests write UTF-8")
}

/// The live display's last picture, without control sequences.
fn picture(options: Options, size: Size, events: Vec<(i64, SolveStatus)>, finish: bool) -> String {
    let mut display = Display::new(Mode::Tty, Options { redraw_nanos: 0, ..options });
    let mut now = at(0);
    let mut last = Vec::new();
    for (ms, event) in events {
        now = at(ms);
        last = display.update(&event, now, size);
    }
    if finish {
        last = display.finish(now, size);
    }
    let text = String::from_utf8(last).expect("the tests write UTF-8");
    text.lines().map(|line| crate::sanitize::text(line).replace('\r', "")).collect::<Vec<_>>().join("\n")
}

fn small_build() -> Vec<(i64, SolveStatus)> {
    let mut cached = vertex("c", "[2/3] WORKDIR /src", 120, 121);
    cached.cached = true;
    vec![
        (0, vertices(vec![vertex("a", "[internal] load build definition from Dockerfile", 0, None)])),
        (50, part("a", "transferring dockerfile:", 120, 0, 50, None)),
        (100, part("a", "transferring dockerfile:", 240, 0, 100, Some(400))),
        (101, vertices(vec![vertex("a", "[internal] load build definition from Dockerfile", 0, 100)])),
        (130, vertices(vec![cached, vertex("r", "[3/3] RUN make", 130, None)])),
        (300, log("r", 300, "cc -c a.c\ncc -c")),
        (900, log("r", 900, " b.c\n")),
        (1500, vertices(vec![vertex("r", "[3/3] RUN make", 130, 1400)])),
    ]
}

fn failing_build() -> Vec<(i64, SolveStatus)> {
    let mut failed = vertex("r", "[2/2] RUN false", 130, 1400);
    failed.error = "process \"/bin/sh -c false\" did not complete successfully: exit code: 1".into();
    let mut canceled = vertex("x", "[other 1/1] RUN sleep 9", 130, 1410);
    canceled.error = "context canceled".into();
    vec![
        (
            130,
            vertices(vec![
                vertex("r", "[2/2] RUN false", 130, None),
                vertex("x", "[other 1/1] RUN sleep 9", 130, None),
            ]),
        ),
        (300, log("r", 300, "about to fail\n\x1b[31mred\x1b[2J\x1b[0m\nlast words")),
        (1500, vertices(vec![failed, canceled])),
    ]
}

#[test]
fn plain_tells_a_build() {
    let options =
        Options { plain_description: "building with \"default\" instance".into(), ..Options::default() };
    insta::assert_snapshot!(play(Mode::Auto, options, small_build()));
}

#[test]
fn plain_tells_a_failure() {
    insta::assert_snapshot!(play(Mode::Plain, Options::default(), failing_build()).replace('\x1b', "ESC"));
}

#[test]
fn plain_on_a_terminal_drops_what_moves_the_cursor() {
    let options = Options { terminal: true, ..Options::default() };
    let text = play(Mode::Plain, options, failing_build());
    assert!(text.contains("\x1b[31mred\x1b[0m"), "{text:?}");
    assert!(!text.contains("\x1b[2J"), "{text:?}");
}

#[test]
fn plain_stays_with_a_step_and_turns_after_a_while() {
    let mut events =
        vec![(0, vertices(vec![vertex("a", "[a] RUN a", 0, None), vertex("b", "[b] RUN b", 0, None)]))];
    for second in 1..16 {
        let ms = second * 1000;
        events.push((ms, log("a", ms, &format!("a says {second}\n"))));
        events.push((ms, log("b", ms, &format!("b says {second}\n"))));
    }
    events.push((16_000, vertices(vec![vertex("b", "[b] RUN b", 0, 16_000)])));
    events.push((17_000, vertices(vec![vertex("a", "[a] RUN a", 0, 17_000)])));
    insta::assert_snapshot!(play(Mode::Plain, Options::default(), events));
}

#[test]
fn plain_tells_transfers_in_large_steps_only() {
    let mut events = vec![(0, vertices(vec![vertex("p", "[1/1] FROM base", 0, None)]))];
    for step in 0..=100 {
        let ms = 300 + step * 100;
        events.push((ms, part("p", "sha256:aaaa", step * 10_000_000, 1_000_000_000, ms, None)));
    }
    events.push((11_000, part("p", "sha256:aaaa", 1_000_000_000, 1_000_000_000, 11_000, Some(11_000))));
    events.push((11_500, warning("p", "slow registry")));
    events.push((12_000, vertices(vec![vertex("p", "[1/1] FROM base", 0, 12_000)])));
    let text = play(Mode::Plain, Options::default(), events);
    assert_eq!(text.matches("sha256:aaaa").count(), 22, "{text}");
    assert!(text.contains("#1 sha256:aaaa 1.00GB / 1.00GB 10.7s done\n"), "{text}");
    assert!(text.ends_with("#1 WARN: slow registry\n#1 DONE 12.0s\n"), "{text}");
}

#[test]
fn tty_draws_a_running_build() {
    let mut events = small_build();
    events.truncate(7);
    events.push((950, part("a", "sha256:bbbb", 12_345_678, 45_000_000, 950, None)));
    let options = Options { tty_description: "docker:default".into(), ..Options::default() };
    insta::assert_snapshot!(picture(options, Size { width: 70, height: 24 }, events, false));
}

#[test]
fn tty_draws_the_end() {
    insta::assert_snapshot!(picture(Options::default(), Size { width: 70, height: 24 }, small_build(), true));
    insta::assert_snapshot!(picture(
        Options::default(),
        Size { width: 70, height: 24 },
        failing_build(),
        true
    ));
}

#[test]
fn tty_keeps_running_steps_on_a_low_screen() {
    let mut list = vec![vertex("long", "[long] RUN sleep", 0, None)];
    list.extend((0..30).map(|n| vertex(&format!("v{n}"), &format!("[{n}/30] RUN true"), n, n + 1)));
    let text = picture(Options::default(), Size { width: 40, height: 8 }, vec![(100, vertices(list))], false);
    insta::assert_snapshot!(text);
}

#[test]
fn tty_never_exceeds_the_screen() {
    for width in 1..60 {
        for height in 1..12 {
            let text = picture(Options::default(), Size { width, height }, small_build(), false);
            assert!(text.lines().count() <= height.max(1), "{width}x{height}:\n{text}");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}x{height}:\n{text}");
        }
    }
}

#[test]
fn tty_redraws_in_place_with_colours() {
    let (colors, _) = Colors::parse(None);
    let options = Options { colors, ..Options::default() };
    let mut events = small_build();
    events.drain(1..7);
    insta::assert_snapshot!(play(Mode::Tty, options, events).replace('\x1b', "ESC").replace('\r', "CR"));
}

#[test]
fn rawjson_is_one_object_a_line() {
    let mut failed = failing_build();
    failed.push((1600, warning("r", "careful")));
    failed.push((1600, part("r", "s", 0, 0, 5, None)));
    insta::assert_snapshot!(play(Mode::RawJson, Options::default(), failed));
}

#[test]
fn quiet_says_nothing() {
    assert_eq!(play(Mode::Quiet, Options::default(), failing_build()), "");
    let mut display = Display::new(Mode::Quiet, Options::default());
    display.update(&warning("?", "kept for the metadata file"), at(0), Size::default());
    assert_eq!(display.warnings().len(), 1);
}

#[test]
fn modes_have_names() {
    assert_eq!("none".parse(), Ok(Mode::Quiet));
    assert_eq!("".parse(), Ok(Mode::Auto));
    assert_eq!("fancy".parse::<Mode>().unwrap_err().to_string(), "invalid progress mode fancy");
}
