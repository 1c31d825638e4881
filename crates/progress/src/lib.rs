//! What a running build looks like: its status model and the displays drawn from it.
//!
//! Status arrives as [`SolveStatus`] events, is folded into a [`Trace`] and drawn by a [`Display`]. Nothing here
//! reads a clock, the environment or a terminal's size, and nothing writes to a stream: the caller passes the time
//! and the size in and gets bytes back. So every picture can be tested as a value.
//!
//! The texts are those which people and scripts know from `docker build`; they are BuildKit's `progressui` formats.
#![forbid(unsafe_code)]

pub mod color;
pub mod display;
pub mod event;
pub mod intervals;
pub mod sanitize;
pub mod source;
pub mod terminal;
pub mod timestamp;
pub mod trace;
pub mod units;
pub mod warnings;
mod wire;

pub use color::Colors;
pub use display::{Display, Mode, Options, ParseModeError, Size};
pub use event::{
    Position, ProgressGroup, Range, SolveStatus, SourceInfo, Vertex, VertexLog, VertexStatus, VertexWarning,
};
pub use timestamp::Timestamp;
pub use trace::Trace;
