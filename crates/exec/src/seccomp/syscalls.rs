//! System call numbers by architecture.

use std::collections::HashMap;
use std::sync::LazyLock;

use oci_spec::runtime::Arch;

/// The number of an x32 call has this bit, and the same audit architecture as x86_64.
pub const X32_BIT: u32 = 0x4000_0000;

/// A system call table of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Table {
    /// The table of this program's architecture.
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// Tables that processes of this architecture can use, itself first.
    pub fn with_compatible(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86_64, Self::X86, Self::X32],
            Self::Aarch64 => &[Self::Aarch64, Self::Arm],
            Self::X86 => &[Self::X86],
            Self::X32 => &[Self::X32],
            Self::Arm => &[Self::Arm],
        }
    }

    pub fn spec_arch(self) -> Arch {
        match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::X86 => Arch::ScmpArchX86,
            Self::X32 => Arch::ScmpArchX32,
            Self::Aarch64 => Arch::ScmpArchAarch64,
            Self::Arm => Arch::ScmpArchArm,
        }
    }

    pub fn from_spec_arch(arch: Arch) -> Option<Self> {
        [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm]
            .into_iter()
            .find(|t| t.spec_arch() == arch)
    }

    /// `AUDIT_ARCH_*` of linux/audit.h.
    pub fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Number of a call by its name; for x32 with its bit.
    pub fn number(self, name: &str) -> Option<u32> {
        static NUMBERS: LazyLock<HashMap<&'static str, [Option<u32>; 5]>> = LazyLock::new(parse);
        let column = match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        };
        let number = NUMBERS.get(name)?[column]?;
        Some(if self == Self::X32 { number | X32_BIT } else { number })
    }
}

fn parse() -> HashMap<&'static str, [Option<u32>; 5]> {
    include_str!("syscalls.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let name = fields.next()?;
            let mut numbers = [None; 5];
            for number in &mut numbers {
                *number = fields.next()?.parse().ok();
            }
            Some((name, numbers))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers() {
        assert_eq!(
            Table::X86_64.number("mount"),
            Some(libc::SYS_mount as u32).filter(|_| cfg!(target_arch = "x86_64")).or(Some(165))
        );
        assert_eq!(Table::X86.number("socketcall"), Some(102));
        assert_eq!(Table::X32.number("ptrace"), Some(X32_BIT | 521));
        assert_eq!(Table::Aarch64.number("openat"), Some(56));
        assert_eq!(Table::Aarch64.number("open"), None);
        assert_eq!(Table::Arm.number("set_tls"), Some(0xf0005));
    }
}
