//! `kilnd`, the builder daemon.

use std::process::ExitCode;

use clap::Parser;
use kilnd::settings::flags::Flags;

fn main() -> ExitCode {
    // This program is its own runtime helper: see kiln-exec.
    kiln_exec::reexec::dispatch();
    let flags = Flags::parse();
    if flags.version {
        println!("{}", kilnd::version::line());
        return ExitCode::SUCCESS;
    }
    match kilnd::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(next) = cause {
                text = format!("{text}: {next}");
                cause = next.source();
            }
            eprintln!("kilnd: {text}");
            ExitCode::FAILURE
        }
    }
}
