//! Machines that may be emulated: how their programs are recognised and what runs them.

use std::path::{Path, PathBuf};

/// A foreign machine.
pub struct Machine {
    /// As in image configs.
    pub architecture: &'static str,
    /// Variants that are announced; the first one is what the architecture alone means.
    pub variants: &'static [&'static str],
    /// As in names of qemu's programs.
    qemu: &'static str,
    /// `e_machine` of its programs (linux/elf-em.h).
    elf_machine: u16,
    bits: u8,
    big_endian: bool,
    /// Machine code that ends the process with code 0.
    exit_code: &'static [u8],
}

/// The header of 32-bit and 64-bit ELF files, and one entry of their program table.
const HEADER_BYTES: [u16; 2] = [52, 64];
const ENTRY_BYTES: [u16; 2] = [32, 56];
/// Where the probing program is loaded; free in every address space, and above the lowest mapping allowed.
const LOAD_ADDRESS: u64 = 0x40_0000;

impl Machine {
    /// In the order in which platforms are announced.
    pub const ALL: &'static [Self] = &[
        Self {
            architecture: "amd64",
            variants: &[""],
            qemu: "x86_64",
            elf_machine: 62,
            bits: 64,
            big_endian: false,
            // mov eax, 60; xor edi, edi; syscall
            exit_code: &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05],
        },
        Self {
            architecture: "arm64",
            variants: &[""],
            qemu: "aarch64",
            elf_machine: 183,
            bits: 64,
            big_endian: false,
            // mov x0, 0; mov x8, 93; svc 0
            exit_code: &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4],
        },
        Self {
            architecture: "riscv64",
            variants: &[""],
            qemu: "riscv64",
            elf_machine: 243,
            bits: 64,
            big_endian: false,
            // li a0, 0; li a7, 93; ecall
            exit_code: &[0x13, 0x05, 0x00, 0x00, 0x93, 0x08, 0xd0, 0x05, 0x73, 0x00, 0x00, 0x00],
        },
        Self {
            architecture: "ppc64le",
            variants: &[""],
            qemu: "ppc64le",
            elf_machine: 21,
            bits: 64,
            big_endian: false,
            // li 0, 1; li 3, 0; sc
            exit_code: &[0x01, 0x00, 0x00, 0x38, 0x00, 0x00, 0x60, 0x38, 0x02, 0x00, 0x00, 0x44],
        },
        Self {
            architecture: "s390x",
            variants: &[""],
            qemu: "s390x",
            elf_machine: 22,
            bits: 64,
            big_endian: true,
            // lghi %r2, 0; svc 1
            exit_code: &[0xa7, 0x29, 0x00, 0x00, 0x0a, 0x01],
        },
        Self {
            architecture: "386",
            variants: &[""],
            qemu: "i386",
            elf_machine: 3,
            bits: 32,
            big_endian: false,
            // mov eax, 1; xor ebx, ebx; int 0x80
            exit_code: &[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80],
        },
        Self {
            architecture: "mips64le",
            variants: &[""],
            qemu: "mips64el",
            elf_machine: 8,
            bits: 64,
            big_endian: false,
            // li v0, 5058; li a0, 0; syscall
            exit_code: &[0xc2, 0x13, 0x02, 0x24, 0x00, 0x00, 0x04, 0x24, 0x0c, 0x00, 0x00, 0x00],
        },
        Self {
            architecture: "mips64",
            variants: &[""],
            qemu: "mips64",
            elf_machine: 8,
            bits: 64,
            big_endian: true,
            exit_code: &[0x24, 0x02, 0x13, 0xc2, 0x24, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0c],
        },
        Self {
            architecture: "loong64",
            variants: &[""],
            qemu: "loongarch64",
            elf_machine: 258,
            bits: 64,
            big_endian: false,
            // ori a0, zero, 0; ori a7, zero, 93; syscall 0
            exit_code: &[0x04, 0x00, 0x80, 0x03, 0x0b, 0x74, 0x81, 0x03, 0x00, 0x00, 0x2b, 0x00],
        },
        Self {
            architecture: "arm",
            variants: &["v7", "v6"],
            qemu: "arm",
            elf_machine: 40,
            bits: 32,
            big_endian: false,
            // mov r0, 0; mov r7, 1; svc 0
            exit_code: &[0x00, 0x00, 0xa0, 0xe3, 0x01, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef],
        },
    ];

    pub fn find(architecture: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|machine| machine.architecture == architecture)
    }

    /// Debian's name of the program.
    pub fn emulator_name(&self) -> String {
        format!("qemu-{}-static", self.qemu)
    }

    /// The emulator in the first directory that has one: BuildKit's own, or a static qemu. One that needs libraries would
    /// look for them in the step's root file system.
    pub fn emulator_in(&self, dirs: &[PathBuf]) -> Option<PathBuf> {
        let names = [format!("buildkit-qemu-{}", self.qemu), self.emulator_name()];
        let candidates = dirs.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
        candidates.into_iter().find(|path| path.is_file())
    }

    /// Line for a `binfmt_misc`'s `register` (kernel: admin-guide/binfmt-misc): the emulator is opened at once (F), gets the
    /// program opened (O) with its credentials (C), and its own argv 0 (P), which qemu knows from a flag of the kernel's.
    pub fn registration(&self, emulator: &Path) -> String {
        const ABI: usize = 7;
        const TYPE: usize = 16;
        let magic = &self.header(0)[..20];
        let mut mask = [0xffu8; 20];
        mask[ABI] = 0;
        // Both kinds of executables: fixed (2) and position-independent (3).
        mask[if self.big_endian { TYPE + 1 } else { TYPE }] = 0xfe;
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("\\x{b:02x}")).collect::<String>();
        format!(":kiln-{}:M:0:{}:{}:{}:OCPF", self.qemu, hex(magic), hex(&mask), emulator.display())
    }

    /// A program for this machine that does nothing but end with code 0.
    pub fn probe_program(&self) -> Vec<u8> {
        let wide = usize::from(self.bits == 64);
        let (header, entry) = (HEADER_BYTES[wide], ENTRY_BYTES[wide]);
        let size = u64::from(header + entry) + self.exit_code.len() as u64;
        let mut program = self.header(LOAD_ADDRESS + u64::from(header + entry));
        // One segment: all of the file, to be read and executed.
        const LOAD: u32 = 1;
        const READ_EXECUTE: u32 = 5;
        const PAGE: u64 = 0x1_0000;
        program.extend(self.word(LOAD));
        if wide == 1 {
            program.extend(self.word(READ_EXECUTE));
        }
        for value in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size] {
            program.extend(self.address(value));
        }
        if wide == 0 {
            program.extend(self.word(READ_EXECUTE));
        }
        program.extend(self.address(PAGE));
        program.extend(self.exit_code);
        program
    }

    fn header(&self, entry_point: u64) -> Vec<u8> {
        const EXECUTABLE: u16 = 2;
        const VERSION: u8 = 1;
        let wide = usize::from(self.bits == 64);
        let mut header = b"\x7fELF".to_vec();
        header.extend([wide as u8 + 1, u8::from(self.big_endian) + 1, VERSION, 0]);
        header.extend([0; 8]);
        header.extend(self.half(EXECUTABLE));
        header.extend(self.half(self.elf_machine));
        header.extend(self.word(u32::from(VERSION)));
        header.extend(self.address(entry_point));
        header.extend(self.address(u64::from(HEADER_BYTES[wide])));
        header.extend(self.address(0));
        header.extend(self.word(self.elf_flags()));
        for value in [HEADER_BYTES[wide], ENTRY_BYTES[wide], 1, 0, 0, 0] {
            header.extend(self.half(value));
        }
        header
    }

    /// `e_flags` without which a kernel refuses a program: ARM's EABI version 5, MIPS64 revision 2, ppc64's ABI 2.
    fn elf_flags(&self) -> u32 {
        match self.elf_machine {
            40 => 0x0500_0000,
            8 => 0x8000_0000,
            21 => 2,
            _ => 0,
        }
    }

    fn half(&self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn word(&self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// An address or offset, in the width of the machine's files.
    fn address(&self, value: u64) -> Vec<u8> {
        match (self.bits == 64, self.big_endian) {
            (true, true) => value.to_be_bytes().to_vec(),
            (true, false) => value.to_le_bytes().to_vec(),
            (false, true) => (value as u32).to_be_bytes().to_vec(),
            (false, false) => (value as u32).to_le_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_lines() {
        let line = |a: &str| Machine::find(a).expect("a machine").registration(Path::new("/q"));
        assert_eq!(
            line("arm64"),
            r":kiln-aarch64:M:0:\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/q:OCPF"
        );
        assert!(line("s390x").contains(r"\x00\x02\x00\x16:"));
        assert!(line("s390x").contains(r"\xff\xff\xff\xff\xff\xfe\xff\xff:/q"));
    }

    /// Every probing program runs under the emulator for it, so all of this machine's tables are right.
    #[test]
    fn probe_programs_run_under_their_emulators() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mut tried = 0;
        for machine in Machine::ALL {
            let Some(emulator) = machine.emulator_in(&super::super::default_dirs()) else { continue };
            let path = dir.path().join(machine.architecture);
            std::fs::write(&path, machine.probe_program()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let output = std::process::Command::new(&emulator).arg(&path).output().unwrap();
            assert!(output.status.success(), "{}: {output:?}", machine.architecture);
            tried += 1;
        }
        eprintln!("{tried} of {} machines tried", Machine::ALL.len());
    }
}
