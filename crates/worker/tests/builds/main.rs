//! Builds through the solver, with a real store, real steps and a client at the other end of a session. Needs root.
//!
//! It is its own test program: the embedded runtime executes the program that it is part of, which has to say so before
//! any thread is started.

mod bench;
mod files;
mod remote;
mod steps;

use std::time::Instant;

type Test = (&'static str, fn());

fn main() {
    kiln_exec::reexec::dispatch();
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if !rustix::process::getuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let tests: Vec<Test> = [files::TESTS, steps::TESTS, remote::TESTS].concat();
    let mut failed = Vec::new();
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(test);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:?})", start.elapsed());
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

/// Runs an async test to its end.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}
