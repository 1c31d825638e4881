//! Reads what the daemon finds around itself. The only place of the daemon that looks at the environment.

use std::path::PathBuf;

use crate::settings::Surroundings;

/// Per-step limits of logs, from the environment as BuildKit has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLogLimits {
    /// Bytes that one step may write; negative: no limit.
    pub size_bytes_max: i64,
    /// Bytes a second that one step may write; negative: no limit.
    pub bytes_per_second_max: i64,
}

impl Default for StepLogLimits {
    fn default() -> StepLogLimits {
        StepLogLimits { size_bytes_max: 2 << 20, bytes_per_second_max: 200 << 10 }
    }
}

/// Reads the environment. Has to be called before the daemon enters a user namespace, where everybody is root.
pub fn read() -> Surroundings {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let program = std::env::args_os().next().map(PathBuf::from);
    let program = program.as_ref().and_then(|path| path.file_name()?.to_str()).unwrap_or("kilnd").to_owned();
    Surroundings {
        program,
        host_root: rustix::process::getuid().is_root() && !in_user_namespace(),
        home: folder("HOME"),
        xdg_config_home: folder("XDG_CONFIG_HOME"),
        xdg_data_home: folder("XDG_DATA_HOME"),
        xdg_runtime_dir: folder("XDG_RUNTIME_DIR"),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The limits of step logs.
pub fn step_log_limits() -> StepLogLimits {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let usual = StepLogLimits::default();
    StepLogLimits {
        size_bytes_max: number("BUILDKIT_STEP_LOG_MAX_SIZE").unwrap_or(usual.size_bytes_max),
        bytes_per_second_max: number("BUILDKIT_STEP_LOG_MAX_SPEED").unwrap_or(usual.bytes_per_second_max),
    }
}

/// Whether ids here are not those of the host: the first namespace maps all of them.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    !whole && !map.is_empty()
}
