//! One line of JSON an event, for programs that read along.

use crate::event::SolveStatus;

pub(super) fn line(status: &SolveStatus) -> Vec<u8> {
    let mut out = serde_json::to_vec(status).expect("an event has only string keys");
    out.push(b'\n');
    out
}
