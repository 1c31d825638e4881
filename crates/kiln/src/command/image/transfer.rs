//! Progress of pulls, pushes and loads, shown as the steps of a build are.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};

use kiln_progress::{Display, Mode, Options, Size, SolveStatus, Timestamp, Vertex, VertexStatus};
use kiln_proto::images::{Image, TransferProgress};
use kiln_proto::tonic::{Status, Streaming};

use crate::printer::now;

/// The one step that all parts belong to.
const STEP: &str = "transfer";

/// Shows a transfer to its end and returns its result.
pub async fn follow(mut progress: Streaming<TransferProgress>, quiet: bool) -> Result<Vec<Image>, Status> {
    let terminal = std::io::stderr().is_terminal();
    let mode = if quiet { Mode::Quiet } else { Mode::Auto };
    let options = Options { phase: "Transferring".to_owned(), terminal, ..Options::default() };
    let mut display = Display::new(mode, options);
    let started = now();
    let mut begun: BTreeMap<String, Timestamp> = BTreeMap::new();
    let vertex = |completed: Option<Timestamp>, error: String| Vertex {
        digest: STEP.to_owned(),
        name: "transferring image".to_owned(),
        started: Some(started),
        completed,
        error,
        ..Vertex::default()
    };
    write(&display.update(&vertices(vertex(None, String::new())), now(), size()));
    let mut result = Vec::new();
    loop {
        let message = match progress.message().await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(status) => {
                let failed = vertex(Some(now()), status.message().to_owned());
                write(&display.update(&vertices(failed), now(), size()));
                return Err(status);
            }
        };
        if !message.result.is_empty() {
            result = message.result;
        }
        if message.id.is_empty() {
            continue;
        }
        let id = format!("{} {}", message.action, message.id).trim().to_owned();
        let part = VertexStatus {
            started: Some(*begun.entry(id.clone()).or_insert_with(now)),
            id,
            vertex: STEP.to_owned(),
            total: message.total,
            current: message.current,
            timestamp: now(),
            completed: message.done.then(now),
            ..VertexStatus::default()
        };
        let status = SolveStatus { statuses: vec![part], ..SolveStatus::default() };
        write(&display.update(&status, now(), size()));
    }
    let mut end = display.update(&vertices(vertex(Some(now()), String::new())), now(), size());
    end.extend(display.finish(now(), size()));
    write(&end);
    Ok(result)
}

fn vertices(vertex: Vertex) -> SolveStatus {
    SolveStatus { vertexes: vec![vertex], ..SolveStatus::default() }
}

fn size() -> Size {
    crate::printer::size()
}

fn write(text: &[u8]) {
    // Nobody is left to be told that standard error is closed.
    let _ = std::io::stderr().lock().write_all(text);
}
