//! The daemon's own log, on standard error: fields rather than sentences, text or JSON.

use tracing_subscriber::EnvFilter;

/// Sets the log up for the process. Crates outside Kiln log from warnings on, unless everything is asked for.
pub fn start(level: &str, json: bool) {
    let level = match level {
        "warning" => "warn",
        "fatal" | "panic" => "error",
        other => other,
    };
    let filter = if level == "trace" {
        EnvFilter::new("trace")
    } else {
        EnvFilter::try_new(format!("{level},hyper=warn,h2=warn,tower=warn,reqwest=warn,rustls=warn"))
            .unwrap_or_else(|_| EnvFilter::new("info"))
    };
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (tests) keeps the first log.
    let _ = if json { log.json().try_init() } else { log.with_ansi(false).try_init() };
}
