//! Rights that a decoder gives up before it reads a payload, on Linux.
//!
//! Whoever takes a decoder over by a payload finds a process that can compute, speak through its two
//! pipes and write to its scratch file, and nothing else. A kernel that cannot take a right away
//! leaves it: [`crate::tried`] finds out what is left.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetError, Scope,
};
use seccompiler::{apply_filter, sock_filter};

/// Gives up the rights to open files, sockets and programs, for good: what it opened before stays
/// open.
pub(crate) fn give_up() {
    // Each of them refuses what the other one does not know: they are independent on purpose.
    let _ = no_paths();
    let _ = apply_filter(&filter());
}

/// Refuses every path and every connection, as far as the kernel's Landlock reaches.
fn no_paths() -> Result<(), RulesetError> {
    // An access that a kernel does not know yet is left out, which is the crate's default.
    let newest = ABI::V6;
    Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .restrict_self()?;
    Ok(())
}

/// Calls that computing, three open files and the end of a process take.
const NEEDED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "arm")]
    libc::SYS__llseek,
    #[cfg(target_arch = "arm")]
    libc::SYS_fstat64,
    #[cfg(target_arch = "arm")]
    libc::SYS_ftruncate64,
    #[cfg(target_arch = "arm")]
    libc::SYS_sigreturn,
    // futex_time64 and clock_gettime64, which libc does not name for every C library.
    #[cfg(target_arch = "arm")]
    422,
    #[cfg(target_arch = "arm")]
    403,
];

/// Calls that give memory, which may not be executable.
const MEMORY: &[libc::c_long] = &[
    #[cfg(not(target_arch = "arm"))]
    libc::SYS_mmap,
    #[cfg(target_arch = "arm")]
    libc::SYS_mmap2,
    libc::SYS_mprotect,
];

/// Name of this architecture's calls, as in the kernel's `linux/audit.h`; 0 where it is not known
/// here, which no kernel gives.
const CALLS: u32 = match () {
    () if cfg!(target_arch = "x86_64") => 0xC000_003E,
    () if cfg!(target_arch = "aarch64") => 0xC000_00B7,
    () if cfg!(target_arch = "arm") => 0x4000_0028,
    () if cfg!(target_arch = "riscv64") => 0xC000_00F3,
    () => 0,
};

// Offsets in `struct seccomp_data` of linux/seccomp.h: the number of a call, the architecture, and
// the low half of the third argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const THIRD: u32 = if cfg!(target_endian = "big") { 36 } else { 32 };

// Instructions of linux/bpf_common.h: load a word, jump if equal, jump if any of the bits is set,
// return.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOWED: u32 = 0x7FFF_0000;
/// The call fails with EPERM. A process that is ended for one that a library makes on some machines
/// and nobody needs would be blamed on its payload.
const REFUSED: u32 = 0x0005_0001;

/// The kernel's program that looks at each call.
fn filter() -> Vec<sock_filter> {
    let step = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let end = |verdict| step(RETURN, verdict, 0, 0);
    let mut steps = vec![
        step(LOAD, ARCHITECTURE, 0, 0),
        step(EQUAL, CALLS, 1, 0),
        end(REFUSED),
        step(LOAD, NUMBER, 0, 0),
    ];
    let is = |call: &libc::c_long, otherwise| {
        // A number that cannot be is never called.
        step(
            EQUAL,
            u32::try_from(*call).unwrap_or(u32::MAX),
            0,
            otherwise,
        )
    };
    for call in NEEDED {
        steps.extend([is(call, 1), end(ALLOWED)]);
    }
    let executable = 4;
    for call in MEMORY {
        let refused = step(ANY_BIT, executable, 0, 1);
        let load = step(LOAD, THIRD, 0, 0);
        steps.extend([is(call, 4), load, refused, end(REFUSED), end(ALLOWED)]);
    }
    steps.push(end(REFUSED));
    steps
}
