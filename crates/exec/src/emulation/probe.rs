//! What this machine's kernel and processor run by themselves.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};

use super::machine::Machine;
use crate::sys;

/// Which of `machines` have programs that the kernel executes: natively, or by an emulator that is registered system-wide so
/// that it also works in other root file systems.
///
/// One process tries one program after the other. The kernel refuses most, which costs the process nothing; it becomes the
/// one that is taken, and the next process goes on behind that.
pub fn kernel_runs(machines: &[&Machine]) -> Vec<bool> {
    let mut runs = vec![false; machines.len()];
    let Ok(programs) = machines.iter().map(|machine| Program::new(machine)).collect::<io::Result<Vec<_>>>()
    else {
        return runs;
    };
    let mut next = 0;
    while next < programs.len() {
        match first_that_starts(&programs[next..]) {
            Ok(Some(started)) => {
                runs[next + started.place] = started.well;
                next += started.place + 1;
            }
            Ok(None) | Err(_) => break,
        }
    }
    runs
}

/// A small program that the kernel can be asked to execute.
struct Program {
    path: CString,
    _file: File,
}

impl Program {
    fn new(machine: &Machine) -> io::Result<Self> {
        let mut written = File::from(memfd_create("kiln-probe", MemfdFlags::CLOEXEC)?);
        written.write_all(&machine.probe_program())?;
        // A file that is open for writing cannot be executed.
        let file = File::open(format!("/proc/self/fd/{}", written.as_raw_fd()))?;
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(Self { path, _file: file })
    }
}

/// The first of some programs that the kernel took, and whether it ended as it should.
struct Started {
    place: usize,
    well: bool,
}

fn first_that_starts(programs: &[Program]) -> io::Result<Option<Started>> {
    let (mut tried, trying) = {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        (File::from(reader), writer)
    };
    let paths: Vec<CString> = programs.iter().map(|program| program.path.clone()).collect();
    // What is executed if all goes wrong; the closure comes before it.
    let mut command = Command::new("/proc/self/fd/none");
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let attempts = move || {
        for path in &paths {
            rustix::io::write(&trying, b".")?;
            // Returns only when the kernel refuses the program.
            sys::execve_alone(path);
        }
        Err(io::Error::from_raw_os_error(libc::ENOEXEC))
    };
    // SAFETY: between fork and execution the closure only makes system calls with memory that was made before.
    unsafe { command.pre_exec(attempts) };
    let spawned = command.spawn();
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => return Ok(None),
        Err(error) => return Err(error),
    };
    let status = child.wait()?;
    let mut attempts = Vec::new();
    tried.read_to_end(&mut attempts)?;
    Ok(Some(Started { place: attempts.len().saturating_sub(1), well: status.success() }))
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
