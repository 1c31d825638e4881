//! Which devices a step may open: a BPF program in the unified hierarchy, lines of text in the old one.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};

use crate::spec::{DeviceRule, device_rules};
use crate::sys::{BpfInstruction, bpf_attach_device_program, bpf_load_device_program};

// `struct bpf_cgroup_dev_ctx` (linux/bpf.h): type in the lower half of the first word, access in the upper.
const CONTEXT_ACCESS_TYPE: i16 = 0;
const CONTEXT_MAJOR: i16 = 4;
const CONTEXT_MINOR: i16 = 8;
const TYPE_BLOCK: i32 = 1;
const TYPE_CHARACTER: i32 = 2;
/// Reading and writing; 1 is making a node.
const ACCESS_OPEN: i32 = 2 | 4;

/// Restricts a cgroup, and all below it, to the devices of sandboxed steps.
pub fn attach(cgroup: &Path) -> io::Result<()> {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    let program = match PROGRAM.get() {
        Some(program) => program,
        None => {
            let loaded = bpf_load_device_program(&program(&device_rules(false)))?;
            PROGRAM.get_or_init(|| loaded)
        }
    };
    let dir = rustix::fs::open(cgroup, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    bpf_attach_device_program(dir, program)
}

/// The same for a cgroup of the old devices hierarchy.
pub fn write_rules(cgroup: &Path, insecure: bool) -> io::Result<()> {
    fs::write(cgroup.join("devices.deny"), "a")?;
    for rule in device_rules(insecure) {
        let kind = if rule.block { 'b' } else { 'c' };
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let access = if rule.open { "rwm" } else { "m" };
        let line = format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor));
        fs::write(cgroup.join("devices.allow"), line)?;
    }
    Ok(())
}

fn program(rules: &[DeviceRule]) -> Vec<BpfInstruction> {
    // Registers: 1 the context, 2 type, 3 access, 4 major, 5 minor, 6 scratch, 0 the answer.
    let op = |code: u8, dst: u8, src: u8, offset: i16, immediate: i32| BpfInstruction {
        code,
        registers: src << 4 | dst,
        offset,
        immediate,
    };
    let load = |dst, offset| op(0x61, dst, 1, offset, 0);
    let copy = |dst, src| op(0xbc, dst, src, 0, 0);
    let and = |dst, value| op(0x54, dst, 0, 0, value);
    let shift_right = |dst, bits| op(0x74, dst, 0, 0, bits);
    let jump_if_not = |dst, value, over| op(0x56, dst, 0, over, value);
    let answer = |value| [op(0xb7, 0, 0, 0, value), op(0x95, 0, 0, 0, 0)];
    let mut program = vec![
        load(2, CONTEXT_ACCESS_TYPE),
        copy(3, 2),
        and(2, 0xffff),
        shift_right(3, 16),
        load(4, CONTEXT_MAJOR),
        load(5, CONTEXT_MINOR),
    ];
    for rule in rules {
        // Each test jumps to the next rule when it fails; the distances are known once the tests are.
        let mut tests = vec![(2, if rule.block { TYPE_BLOCK } else { TYPE_CHARACTER })];
        tests.extend(rule.major.map(|major| (4, major as i32)));
        tests.extend(rule.minor.map(|minor| (5, minor as i32)));
        if !rule.open {
            tests.push((6, 0));
            program.extend([copy(6, 3), and(6, ACCESS_OPEN)]);
        }
        let count = tests.len();
        for (i, (register, value)) in tests.into_iter().enumerate() {
            program.push(jump_if_not(register, value, (count - i - 1 + 2) as i16));
        }
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}
