//! Where this processor's system calls have their arguments, and which numbers they have: all that the
//! programs need to know of it.

use clew_sensor_abi::settings::Offsets;

use crate::btf::{Btf, BtfError};

/// `offsets` with what this processor calls for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn complete(offsets: Offsets, btf: &Btf) -> Result<Offsets, BtfError> {
    Ok(Offsets {
        registers_number: btf.offset("pt_regs", &["orig_ax"])?,
        registers_second: btf.offset("pt_regs", &["si"])?,
        registers_third: btf.offset("pt_regs", &["dx"])?,
        registers_fourth: btf.offset("pt_regs", &["r10"])?,
        // arch/x86/entry/syscalls/syscall_64.tbl
        call_read: 0,
        call_readv: 19,
        call_recvfrom: 45,
        call_recvmsg: 47,
        call_execve: 59,
        call_execveat: 322,
        call_open: 2,
        call_openat: 257,
        call_openat2: 437,
        ..offsets
    })
}

/// `offsets` with what this processor calls for.
#[cfg(target_arch = "aarch64")]
pub(crate) fn complete(offsets: Offsets, btf: &Btf) -> Result<Offsets, BtfError> {
    let first = btf.offset("pt_regs", &["regs"])?;
    Ok(Offsets {
        registers_number: btf.offset("pt_regs", &["syscallno"])?,
        registers_second: first + 8,
        registers_third: first + 16,
        registers_fourth: first + 24,
        // include/uapi/asm-generic/unistd.h
        call_read: 63,
        call_readv: 65,
        call_recvfrom: 207,
        call_recvmsg: 212,
        call_execve: 221,
        call_execveat: 281,
        call_open: 56,
        call_openat: 56,
        call_openat2: 437,
        ..offsets
    })
}
