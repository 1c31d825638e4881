//! The program `kiln`, and, under the name `docker-buildx`, a plugin of the Docker CLI.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kiln::program::main(std::env::args_os())
}
