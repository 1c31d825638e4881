//! Conversion from text to graph, with a resolver that has everything in memory.

mod contexts;
mod failures;
mod graphs;
mod images;
mod reports;
mod support;
