//! Small values inside instructions and options: booleans, sizes, durations, comma-separated
//! records, quoting. Their spellings and error texts are part of the Dockerfile language.

mod csv;
mod duration;
mod number;
mod quote;
mod size;

pub use csv::{CsvError, fields};
pub use duration::{DurationError, format_duration, parse_duration};
pub use number::{NumberError, parse_bool, parse_int, parse_uint};
pub use quote::{quote, quote_list};
pub use size::{SizeError, parse_size};
