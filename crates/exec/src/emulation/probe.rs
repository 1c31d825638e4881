//! What this machine's kernel and processor run by themselves.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

use super::machine::Machine;

/// The kernel executes programs of the machine: natively, or by an emulator that is registered system-wide so that it also
/// works in other root file systems.
pub fn kernel_runs(machine: &Machine) -> bool {
    let run = || -> std::io::Result<bool> {
        let mut file = std::fs::File::from(memfd_create("kiln-probe", MemfdFlags::CLOEXEC)?);
        file.write_all(&machine.probe_program())?;
        // A file that is open for writing cannot be executed.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let readable = std::fs::File::open(&path)?;
        drop(file);
        let mut command = Command::new(format!("/proc/self/fd/{}", readable.as_raw_fd()));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status()?.success())
    };
    run().unwrap_or(false)
}

/// `v2`, `v3`, `v4` of x86-64, as far as this processor goes.
pub fn amd64_variants() -> &'static [&'static str] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let v2 = has!("cmpxchg16b")
            && has!("popcnt")
            && has!("sse3")
            && has!("ssse3")
            && has!("sse4.1")
            && has!("sse4.2");
        let v3 = v2
            && has!("avx2")
            && has!("bmi1")
            && has!("bmi2")
            && has!("f16c")
            && has!("fma")
            && has!("lzcnt")
            && has!("movbe");
        let v4 = v3
            && has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl");
        const ALL: [&str; 3] = ["v2", "v3", "v4"];
        &ALL[..usize::from(v2) + usize::from(v3) + usize::from(v4)]
    }
    #[cfg(not(target_arch = "x86_64"))]
    &[]
}
