//! The embedded runtime's own entry into the program.

/// Must be the first call in `main`, before threads and before the runtime: when the program was executed by this crate
/// as a helper, runs the helper and ends the process; otherwise returns at once.
pub fn dispatch() {}
