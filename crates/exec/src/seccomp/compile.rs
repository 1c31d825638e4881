//! A seccomp filter of an OCI spec as classic BPF.
//!
//! One block an architecture; in it a binary search over ranges of call numbers that share an outcome, so that a call costs
//! some ten instructions however long the profile is.

use std::collections::BTreeMap;
use std::io;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op,
};

use super::Program;
use super::syscalls::{Table, X32_BIT};
use crate::sys::FilterInstruction;

// Instruction codes of linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const RETURN: u16 = 0x06;

// Offsets in `struct seccomp_data` (linux/seccomp.h).
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

const RETURN_KILL_THREAD: u32 = 0;
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;
const RETURN_TRAP: u32 = 0x0003_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_TRACE: u32 = 0x7ff0_0000;
const RETURN_LOG: u32 = 0x7ffc_0000;
const RETURN_ALLOW: u32 = 0x7fff_0000;

/// What happens to a call: alternatives by arguments, in order, then the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: u32,
}

impl Outcome {
    fn always(value: u32) -> Self {
        Self { conditional: Vec::new(), otherwise: value }
    }
}

pub fn compile(seccomp: &LinuxSeccomp) -> io::Result<Program> {
    let default = return_value(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut tables = Vec::new();
    for arch in seccomp.architectures().iter().flatten() {
        tables.push(Table::from_spec_arch(*arch).ok_or_else(|| invalid("unknown seccomp architecture"))?);
    }
    if tables.is_empty() {
        tables.extend(Table::native());
    }
    let mut program = vec![load(OFFSET_ARCH)];
    let mut blocks: Vec<(u32, Program)> = Vec::new();
    for table in tables.iter().filter(|t| **t != Table::X32) {
        let mut block = vec![load(OFFSET_NUMBER)];
        if *table == Table::X86_64 {
            let x32 = if tables.contains(&Table::X32) {
                search(&ranges(seccomp, Table::X32, default)?)
            } else {
                vec![ret(RETURN_KILL_THREAD)]
            };
            let native = search(&ranges(seccomp, Table::X86_64, default)?);
            block.extend(branch(JUMP_GE, X32_BIT, x32, native));
        } else {
            block.extend(search(&ranges(seccomp, *table, default)?));
        }
        blocks.push((table.audit_arch(), block));
    }
    let mut rest = vec![ret(RETURN_KILL_THREAD)];
    for (arch, block) in blocks.into_iter().rev() {
        rest = branch(JUMP_EQ, arch, block, rest);
    }
    program.extend(rest);
    if program.len() > libc::BPF_MAXINSNS as usize {
        return Err(invalid("seccomp filter is too long"));
    }
    Ok(program)
}

/// Outcomes by the first call number they hold for; each holds up to the next.
fn ranges(seccomp: &LinuxSeccomp, table: Table, default: u32) -> io::Result<Vec<(u32, Outcome)>> {
    let mut by_number: BTreeMap<u32, Outcome> = BTreeMap::new();
    for rule in seccomp.syscalls().iter().flatten() {
        let value = return_value(rule.action(), rule.errno_ret())?;
        for number in rule.names().iter().filter_map(|name| table.number(name)) {
            let outcome = by_number.entry(number).or_insert_with(|| Outcome::always(default));
            match rule.args() {
                Some(args) if !args.is_empty() => outcome.conditional.push((args.clone(), value)),
                // The first unconditional rule decides.
                _ if outcome.otherwise == default => outcome.otherwise = value,
                _ => {}
            }
        }
    }
    // A rule with arguments adds nothing where the call is let through anyway.
    for outcome in by_number.values_mut() {
        let otherwise = outcome.otherwise;
        outcome.conditional.retain(|(_, value)| *value != otherwise);
    }
    // A call that is newer than the profile is not there, rather than forbidden: programs then fall back to older calls.
    let after_last = by_number.keys().next_back().map_or(0, |last| last + 1);
    let mut ranges: Vec<(u32, Outcome)> = vec![(0, Outcome::always(default))];
    let mut next = 0;
    for (number, outcome) in by_number {
        if number > next {
            push(&mut ranges, next, Outcome::always(default));
        }
        push(&mut ranges, number, outcome);
        next = number + 1;
    }
    push(&mut ranges, after_last, Outcome::always(RETURN_ERRNO | libc::ENOSYS as u32));
    Ok(ranges)
}

fn push(ranges: &mut Vec<(u32, Outcome)>, start: u32, outcome: Outcome) {
    match ranges.last_mut() {
        Some((last, previous)) if *last == start => *previous = outcome,
        Some((_, previous)) if *previous == outcome => {}
        _ => ranges.push((start, outcome)),
    }
}

/// Binary search; the call number is in the accumulator.
fn search(ranges: &[(u32, Outcome)]) -> Program {
    if let [(_, outcome)] = ranges {
        return leaf(outcome);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    branch(JUMP_GE, high[0].0, search(high), search(low))
}

fn leaf(outcome: &Outcome) -> Program {
    let mut program = vec![ret(outcome.otherwise)];
    for (args, value) in outcome.conditional.iter().rev() {
        let mut matched = vec![ret(*value)];
        for arg in args.iter().rev() {
            matched = compare(arg, matched, program.clone());
        }
        program = matched;
    }
    program
}

/// Runs `matched` or `rest` as the argument, of 64 bits, compares.
fn compare(arg: &LinuxSeccompArg, matched: Program, rest: Program) -> Program {
    let low = OFFSET_ARGS + 8 * arg.index() as u32;
    let (low, high) = if cfg!(target_endian = "big") { (low + 4, low) } else { (low, low + 4) };
    let split = |value: u64| ((value >> 32) as u32, value as u32);
    let equal = |mask: u64, value: u64, matched: Program, rest: Program| {
        let ((mask_high, mask_low), (value_high, value_low)) = (split(mask), split(value));
        let mut second = vec![load(low), instruction(AND, mask_low)];
        second.extend(branch(JUMP_EQ, value_low, matched, rest.clone()));
        let mut first = vec![load(high), instruction(AND, mask_high)];
        first.extend(branch(JUMP_EQ, value_high, second, rest));
        first
    };
    // Above (or at) the value: high word above, or equal and low word above.
    let above = |code: u16, value: u64, matched: Program, rest: Program| {
        let (value_high, value_low) = split(value);
        let mut second = vec![load(low)];
        second.extend(branch(code, value_low, matched.clone(), rest.clone()));
        let mut first = vec![load(high)];
        first.extend(branch(JUMP_GT, value_high, matched, branch(JUMP_EQ, value_high, second, rest)));
        first
    };
    let value = arg.value();
    match arg.op() {
        Op::ScmpCmpEq => equal(u64::MAX, value, matched, rest),
        Op::ScmpCmpNe => equal(u64::MAX, value, rest, matched),
        Op::ScmpCmpMaskedEq => equal(value, arg.value_two().unwrap_or(0), matched, rest),
        Op::ScmpCmpGt => above(JUMP_GT, value, matched, rest),
        Op::ScmpCmpGe => above(JUMP_GE, value, matched, rest),
        Op::ScmpCmpLe => above(JUMP_GT, value, rest, matched),
        Op::ScmpCmpLt => above(JUMP_GE, value, rest, matched),
    }
}

/// A conditional jump over `if_false`, which follows it, to `if_true`; by way of a long jump where the distance needs it.
fn branch(code: u16, k: u32, if_true: Program, if_false: Program) -> Program {
    let distance = if_false.len();
    let mut program = Vec::with_capacity(distance + if_true.len() + 2);
    match u8::try_from(distance) {
        Ok(distance) => program.push(FilterInstruction { code, jump_true: distance, jump_false: 0, k }),
        Err(_) => {
            program.push(FilterInstruction { code, jump_true: 0, jump_false: 1, k });
            program.push(instruction(JUMP, distance as u32));
        }
    }
    program.extend(if_false);
    program.extend(if_true);
    program
}

fn instruction(code: u16, k: u32) -> FilterInstruction {
    FilterInstruction { code, jump_true: 0, jump_false: 0, k }
}

fn load(offset: u32) -> FilterInstruction {
    instruction(LOAD_WORD, offset)
}

fn ret(value: u32) -> FilterInstruction {
    instruction(RETURN, value)
}

fn return_value(action: Action, errno: Option<u32>) -> io::Result<u32> {
    let errno = errno.unwrap_or(libc::EPERM as u32) & 0xffff;
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => RETURN_KILL_THREAD,
        Action::ScmpActKillProcess => RETURN_KILL_PROCESS,
        Action::ScmpActTrap => RETURN_TRAP,
        Action::ScmpActErrno => RETURN_ERRNO | errno,
        Action::ScmpActTrace => RETURN_TRACE | errno,
        Action::ScmpActAllow => RETURN_ALLOW,
        Action::ScmpActLog => RETURN_LOG,
        Action::ScmpActNotify => return Err(invalid("seccomp notification is not supported")),
    })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::CapabilitySet;

    /// Runs a filter as the kernel would.
    fn run(program: &Program, arch: u32, number: u32, args: &[u64]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (i, arg) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
        }
        let (mut a, mut pc) = (0u32, 0usize);
        loop {
            let i = program[pc];
            pc += 1;
            let jump = |taken: bool| if taken { i.jump_true as usize } else { i.jump_false as usize };
            match i.code {
                LOAD_WORD => {
                    let at = i.k as usize;
                    a = u32::from_ne_bytes(data[at..at + 4].try_into().expect("four bytes"));
                }
                AND => a &= i.k,
                JUMP => pc += i.k as usize,
                JUMP_EQ => pc += jump(a == i.k),
                JUMP_GT => pc += jump(a > i.k),
                JUMP_GE => pc += jump(a >= i.k),
                RETURN => return i.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn filter() -> Program {
        let profile = super::super::profile::for_process(CapabilitySet::docker_default(), Table::X86_64);
        compile(&profile.expect("a profile")).expect("a program")
    }

    const EPERM: u32 = RETURN_ERRNO | 1;
    const ENOSYS: u32 = RETURN_ERRNO | 38;

    #[test]
    fn calls_by_number() {
        let f = filter();
        let x64 = Table::X86_64.audit_arch();
        let cases = [
            (0, RETURN_ALLOW, "read"),
            (161, RETURN_ALLOW, "chroot: the default capabilities have SYS_CHROOT"),
            (165, EPERM, "mount"),
            (250, EPERM, "keyctl"),
            (272, EPERM, "unshare"),
            (425, EPERM, "io_uring_setup"),
            (435, ENOSYS, "clone3"),
            (468, ENOSYS, "newer than the profile"),
            (X32_BIT, RETURN_ALLOW, "x32 read"),
            (X32_BIT | 165, EPERM, "x32 mount"),
        ];
        for (number, expected, name) in cases {
            assert_eq!(run(&f, x64, number, &[]), expected, "{name}");
        }
        assert_eq!(run(&f, Table::X86.audit_arch(), 21, &[]), EPERM, "x86 mount");
        assert_eq!(run(&f, Table::X86.audit_arch(), 4, &[]), RETURN_ALLOW, "x86 write");
        assert_eq!(run(&f, Table::Aarch64.audit_arch(), 64, &[]), RETURN_KILL_THREAD, "foreign architecture");
    }

    #[test]
    fn calls_by_argument() {
        let f = filter();
        let x64 = Table::X86_64.audit_arch();
        for family in 0..46u64 {
            let expected = if [38, 40].contains(&family) { EPERM } else { RETURN_ALLOW };
            assert_eq!(run(&f, x64, 41, &[family]), expected, "socket({family})");
        }
        assert_eq!(run(&f, x64, 41, &[(1 << 32) | 38]), RETURN_ALLOW, "the whole word is compared");
        assert_eq!(run(&f, x64, 56, &[0x11]), RETURN_ALLOW, "clone");
        assert_eq!(run(&f, x64, 56, &[libc::CLONE_NEWUSER as u64]), EPERM, "clone(NEWUSER)");
        assert_eq!(run(&f, x64, 135, &[0x8]), RETURN_ALLOW);
        assert_eq!(run(&f, x64, 135, &[0x9]), EPERM);
        assert_eq!(run(&f, x64, 135, &[0xffff_ffff]), RETURN_ALLOW);
    }
}
