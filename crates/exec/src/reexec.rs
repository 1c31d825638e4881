//! The embedded runtime's own entry into the program.

/// Must be the first call in `main`, before threads are started: when the program was executed by this crate as a helper,
/// runs the helper and ends the process; otherwise returns at once.
pub fn dispatch() {
    if std::env::args_os().next().is_some_and(|name| name == crate::embedded::ARGV0) {
        crate::embedded::run_spawner();
    }
}
