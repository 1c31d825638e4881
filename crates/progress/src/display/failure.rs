//! The output of failed steps, repeated at the end where it is easy to find.

use std::io::Write as _;

use crate::trace::VertexState;
use crate::{Trace, sanitize};

const RULE: &str = "------\n";

/// A live display shows only the last rows of a running step, so all that was kept of a failed one is written.
pub(super) fn write_kept(out: &mut Vec<u8>, trace: &Trace) {
    for vertex in trace.visible().filter(|vertex| vertex.is_failed()) {
        heading(out, vertex);
        if vertex.logs.dropped() > 0 {
            writeln!(out, "[{} lines left out]", vertex.logs.dropped()).expect("a Vec takes every write");
        }
        for line in vertex.logs.lines() {
            out.extend_from_slice(sanitize::output(line).as_bytes());
            out.push(b'\n');
        }
        out.extend_from_slice(RULE.as_bytes());
    }
}

/// Begins the block of one failed vertex.
pub(super) fn heading(out: &mut Vec<u8>, vertex: &VertexState) {
    writeln!(out, "{RULE} > {}:", sanitize::text(&vertex.name)).expect("a Vec takes every write");
}

/// Ends it.
pub(super) fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(RULE.as_bytes());
}
