//! Status events as the wire has them.

use kiln_proto::control::{self, StatusResponse};
use kiln_proto::pb;
use kiln_proto::prost_types;

use crate::Timestamp;
use crate::event::{
    Position, ProgressGroup, Range, SolveStatus, SourceInfo, Vertex, VertexLog, VertexStatus, VertexWarning,
};

impl From<StatusResponse> for SolveStatus {
    fn from(response: StatusResponse) -> Self {
        Self {
            vertexes: response.vertexes.into_iter().map(vertex).collect(),
            statuses: response.statuses.into_iter().map(status).collect(),
            logs: response.logs.into_iter().map(log).collect(),
            warnings: response.warnings.into_iter().map(warning).collect(),
        }
    }
}

fn time(time: prost_types::Timestamp) -> Timestamp {
    Timestamp::from_parts(time.seconds, time.nanos)
}

fn vertex(vertex: control::Vertex) -> Vertex {
    Vertex {
        digest: vertex.digest,
        inputs: vertex.inputs,
        name: vertex.name,
        started: vertex.started.map(time),
        completed: vertex.completed.map(time),
        cached: vertex.cached,
        error: vertex.error,
        progress_group: vertex.progress_group.map(|group| ProgressGroup {
            id: group.id,
            name: group.name,
            weak: group.weak,
        }),
    }
}

fn status(status: control::VertexStatus) -> VertexStatus {
    VertexStatus {
        id: status.id,
        vertex: status.vertex,
        name: status.name,
        total: status.total,
        current: status.current,
        timestamp: status.timestamp.map(time).unwrap_or_default(),
        started: status.started.map(time),
        completed: status.completed.map(time),
    }
}

fn log(log: control::VertexLog) -> VertexLog {
    VertexLog {
        vertex: log.vertex,
        stream: log.stream,
        data: log.msg,
        timestamp: log.timestamp.map(time).unwrap_or_default(),
    }
}

fn warning(warning: control::VertexWarning) -> VertexWarning {
    VertexWarning {
        vertex: warning.vertex,
        level: warning.level,
        short: warning.short,
        detail: warning.detail,
        url: warning.url,
        source_info: warning.info.map(|info| SourceInfo {
            filename: info.filename,
            data: info.data,
            language: info.language,
        }),
        ranges: warning.ranges.into_iter().map(range).collect(),
    }
}

fn range(range: pb::Range) -> Range {
    let position = |position: Option<pb::Position>| {
        position.map_or_else(Position::default, |position| Position {
            line: position.line,
            character: position.character,
        })
    };
    Range { start: position(range.start), end: position(range.end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_part() {
        let stamp = |seconds| Some(prost_types::Timestamp { seconds, nanos: 5 });
        let response = StatusResponse {
            vertexes: vec![control::Vertex {
                digest: "d".into(),
                started: stamp(1),
                progress_group: Some(pb::ProgressGroup { id: "g".into(), name: "n".into(), weak: true }),
                ..Default::default()
            }],
            statuses: vec![control::VertexStatus {
                id: "s".into(),
                timestamp: stamp(2),
                ..Default::default()
            }],
            logs: vec![control::VertexLog { msg: "x".into(), stream: 2, ..Default::default() }],
            warnings: vec![control::VertexWarning {
                short: "w".into(),
                ranges: vec![pb::Range { start: Some(pb::Position { line: 3, character: 1 }), end: None }],
                ..Default::default()
            }],
        };
        let found = SolveStatus::from(response);
        assert_eq!(found.vertexes[0].started, Some(Timestamp::from_parts(1, 5)));
        assert!(found.vertexes[0].progress_group.as_ref().is_some_and(|group| group.weak));
        assert_eq!(found.statuses[0].timestamp, Timestamp::from_parts(2, 5));
        assert_eq!((found.logs[0].stream, &found.logs[0].data[..]), (2, &b"x"[..]));
        assert_eq!(found.warnings[0].ranges[0].start.line, 3);
    }
}
