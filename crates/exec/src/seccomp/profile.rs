//! Docker's default seccomp profile as data: what is allowed always, what only with a capability or on an architecture,
//! and what depends on arguments. Everything else fails with `EPERM`.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator as Op, LinuxSyscall, LinuxSyscallBuilder,
};

use super::syscalls::Table;
use crate::capability::{Capability, CapabilitySet};

/// Allowed for every process.
const ALWAYS: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
    getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
    ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link
    linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
    munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe
    pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
    recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32
    setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
    socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
";

/// Allowed from Linux 4.8 on, where seccomp cannot be left by ptrace any more.
const SINCE_4_8: &str = "process_vm_readv process_vm_writev ptrace";

/// Allowed on some architectures.
const BY_TABLE: &[(&[Table], &str)] = &[
    (
        &[Table::Arm, Table::Aarch64],
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ),
    (&[Table::X86_64, Table::X32], "arch_prctl"),
    (&[Table::X86_64, Table::X32, Table::X86], "modify_ldt"),
];

/// Allowed when the process may have the capability.
const BY_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module init_module finit_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "settimeofday stime clock_settime clock_settime64"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Values of `personality` that change nothing of importance (linux/personality.h).
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `CLONE_NEW*` of namespaces, which only an administrator makes.
const CLONE_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

pub fn for_process(bounding: CapabilitySet, native: Table) -> Option<LinuxSeccomp> {
    let mut rules = vec![allow(ALWAYS)];
    if kernel_at_least(4, 8) {
        rules.push(allow(SINCE_4_8));
    }
    // Address families other than AF_ALG (38) and AF_VSOCK (40): both reach code of the host that images have no use for.
    rules.push(allow_if("socket", 0, Op::ScmpCmpLt, libc::AF_ALG as u64, None));
    rules.push(allow_if("socket", 0, Op::ScmpCmpEq, libc::AF_ALG as u64 + 1, None));
    rules.push(allow_if("socket", 0, Op::ScmpCmpGt, libc::AF_VSOCK as u64, None));
    rules.extend(PERSONALITIES.map(|value| allow_if("personality", 0, Op::ScmpCmpEq, value, None)));
    rules.extend(
        BY_TABLE.iter().filter(|(tables, _)| tables.contains(&native)).map(|(_, names)| allow(names)),
    );
    rules.extend(BY_CAPABILITY.iter().filter(|(c, _)| bounding.contains(*c)).map(|(_, names)| allow(names)));
    if !bounding.contains(Capability::SysAdmin) {
        rules.push(allow_if("clone", 0, Op::ScmpCmpMaskedEq, CLONE_NAMESPACES, Some(0)));
        // Its flags are out of a filter's reach; "not implemented" makes callers fall back to clone.
        rules.push(rule("clone3", Action::ScmpActErrno, Some(libc::ENOSYS as u32), None));
    }
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(native.with_compatible().iter().map(|t| t.spec_arch()).collect::<Vec<_>>())
        .syscalls(rules)
        .build()
        .ok()
}

fn allow(names: &str) -> LinuxSyscall {
    rule(names, Action::ScmpActAllow, None, None)
}

fn allow_if(name: &str, index: usize, op: Op, value: u64, value_two: Option<u64>) -> LinuxSyscall {
    let mut arg = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    if let Some(value_two) = value_two {
        arg = arg.value_two(value_two);
    }
    rule(name, Action::ScmpActAllow, None, Some(arg.build().expect("index, value and operator are set")))
}

fn rule(names: &str, action: Action, errno: Option<u32>, arg: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscallBuilder::default()
        .names(names.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .action(action);
    if let Some(errno) = errno {
        rule = rule.errno_ret(errno);
    }
    if let Some(arg) = arg {
        rule = rule.args(vec![arg]);
    }
    rule.build().expect("names and action are set")
}

fn kernel_at_least(major: u32, minor: u32) -> bool {
    crate::kernel::version() >= (major, minor)
}
