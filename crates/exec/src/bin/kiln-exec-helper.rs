//! Nothing but the embedded runtime's helper, for tests and programs whose own `main` cannot be it.

fn main() {
    kiln_exec::reexec::dispatch();
    eprintln!("this program is started by kiln-exec");
    std::process::exit(2);
}
