//! Which platforms this machine can run, natively or by emulation, and how a step of a foreign one is run.
//!
//! Nothing is registered on the host: since Linux 6.7 a user namespace can have a `binfmt_misc` of its own, so an emulated
//! step gets a user namespace (with the same ids) in which the kernel knows the emulator. On older kernels the emulator goes
//! in front of the step's process, which then cannot execute further foreign programs by itself.

mod machine;
mod probe;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::{Arch, Error, Result};
use machine::Machine;

/// One platform that steps can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulator {
    pub arch: Arch,
    /// The emulator's program; `None` where the kernel runs the platform itself (natively or by a system registration).
    pub program: Option<PathBuf>,
}

/// How a step of a foreign platform runs.
#[derive(Debug)]
pub(crate) enum Emulation {
    /// In a user namespace with this line in the `register` of its `binfmt_misc`.
    UserNamespace { registration: String },
    /// With this program in front of it.
    InFront { program: PathBuf },
}

/// What has been found stays true for that long: emulators are installed while the daemon runs.
const FRESH: Duration = Duration::from_secs(20);

/// Platforms this machine can run, the native one first, in the order in which a worker announces them. Tries each foreign
/// machine's code once; later calls are answered from memory for a while.
pub fn supported_platforms(emulator_dirs: &[PathBuf]) -> Vec<Emulator> {
    type Found = Option<(Instant, Vec<PathBuf>, Vec<Emulator>)>;
    static FOUND: Mutex<Found> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((at, dirs, platforms)) = found.as_ref()
        && at.elapsed() < FRESH
        && dirs == emulator_dirs
    {
        return platforms.clone();
    }
    let platforms = find(emulator_dirs);
    *found = Some((Instant::now(), emulator_dirs.to_vec(), platforms.clone()));
    platforms
}

fn find(emulator_dirs: &[PathBuf]) -> Vec<Emulator> {
    let native = native();
    let mut platforms = vec![Emulator { arch: native.clone(), program: None }];
    if native.architecture == "amd64" {
        let variants = probe::amd64_variants();
        platforms.extend(variants.iter().map(|v| Emulator { arch: Arch::new("amd64", *v), program: None }));
    }
    let foreign: Vec<&Machine> =
        Machine::ALL.iter().filter(|m| m.architecture != native.architecture).collect();
    for (machine, runs) in foreign.iter().zip(probe::kernel_runs(&foreign)) {
        let program = match runs {
            true => None,
            false => match machine.emulator_in(emulator_dirs) {
                Some(program) => Some(program),
                None => continue,
            },
        };
        for variant in machine.variants {
            platforms
                .push(Emulator { arch: Arch::new(machine.architecture, *variant), program: program.clone() });
        }
    }
    platforms
}

/// This machine's own platform, without variant unless images have one for it.
pub fn native() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::new("amd64", ""),
        "aarch64" => Arch::new("arm64", ""),
        "x86" => Arch::new("386", ""),
        "arm" => Arch::new("arm", "v7"),
        "powerpc64" if cfg!(target_endian = "little") => Arch::new("ppc64le", ""),
        "powerpc64" => Arch::new("ppc64", ""),
        "loongarch64" => Arch::new("loong64", ""),
        other => Arch::new(other, ""),
    }
}

/// The smallest program of an architecture: it ends with code 0. For checks that steps of it run.
pub fn smallest_program(architecture: &str) -> Option<Vec<u8>> {
    Machine::find(architecture).map(Machine::probe_program)
}

/// Directories in which emulators are looked for by default.
pub fn default_dirs() -> Vec<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec()
}

/// How to run a step of `wanted`; `None` when the kernel does it by itself.
pub(crate) fn for_step(
    wanted: &Arch,
    emulator_dirs: &[PathBuf],
    user_namespaces: bool,
) -> Result<Option<Emulation>> {
    let native = native();
    if wanted.architecture == native.architecture && matches!(wanted.variant.as_str(), "" | "v1" | "v8") {
        return Ok(None);
    }
    let platforms = supported_platforms(emulator_dirs);
    let list = |of: &dyn Fn(&Emulator) -> bool| {
        platforms.iter().filter(|p| of(p)).map(|p| p.arch.to_string()).collect::<Vec<_>>().join(", ")
    };
    if wanted.architecture == "amd64" && matches!(wanted.variant.as_str(), "v2" | "v3" | "v4") {
        // An emulator of amd64 does all of them that qemu knows; natively the processor decides.
        let emulated = platforms.iter().any(|p| p.arch.architecture == "amd64" && p.program.is_some());
        if !emulated && !platforms.iter().any(|p| p.arch == *wanted) {
            let available = list(&|p| p.arch.architecture == "amd64");
            return Err(Error::NoVariant { wanted: wanted.to_string(), available });
        }
    }
    let Some(platform) = platforms.iter().find(|p| p.arch.architecture == wanted.architecture) else {
        let emulator = Machine::find(&wanted.architecture).map(Machine::emulator_name);
        return Err(Error::NoEmulator {
            wanted: wanted.to_string(),
            emulator: emulator.unwrap_or_else(|| format!("qemu-{}-static", wanted.architecture)),
            available: list(&|_| true),
        });
    };
    let Some(program) = &platform.program else { return Ok(None) };
    if user_namespaces
        && own_binfmt()
        && let Some(machine) = Machine::find(&wanted.architecture)
    {
        return Ok(Some(Emulation::UserNamespace { registration: machine.registration(program) }));
    }
    Ok(Some(Emulation::InFront { program: program.clone() }))
}

/// The kernel has a `binfmt_misc` for each user namespace, and lets us make these.
fn own_binfmt() -> bool {
    let namespaces_max = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    crate::kernel::version() >= (6, 7)
        && namespaces_max.trim() != "0"
        && Path::new("/proc/self/ns/user").exists()
}
