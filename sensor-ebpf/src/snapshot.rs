//! What a program is at the moment of its start, read from itself.

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use aya_ebpf::cty::c_long;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_uid_gid, bpf_loop, bpf_probe_read_kernel_str,
    bpf_probe_read_user,
};
use clew_sensor_abi::record::{
    ANCESTORS, BLOCK_BYTES, CGROUP_LEVELS, CGROUP_NAME_BYTES, Exec, KIND_EXEC, PATH_BYTES,
    TRUNCATED_ARGUMENTS, TRUNCATED_ENVIRONMENT, TRUNCATED_PATH,
};

use crate::kernel::{Task, blur, member, probe};
use crate::maps::offset;
use crate::path::{Walk, walk};
use crate::report::header;

/// Copies the argument block from the new memory map; its length, or 0 when it was cut.
///
/// # Safety
///
/// `task` is the running task; `record` has room.
#[inline(always)]
pub unsafe fn read_arguments(task: Task, record: *mut Exec) -> u32 {
    // SAFETY: reads of the running task's own memory into the record.
    unsafe {
        let (start, end) = argument_block(task);
        let (length, cut) = copy_block(start, end, addr_of_mut!((*record).arguments));
        (*record).arguments_len = length;
        (*record).truncated = 0;
        flag(record, cut, TRUNCATED_ARGUMENTS);
        let whole = &raw mut (*record).environment_len;
        whole.write_volatile(if cut { 0 } else { length });
        whole.read_volatile()
    }
}

/// Notes that something was cut. In the record, where the verifier does not know what is noted already.
///
/// # Safety
///
/// `record` is one, and its `truncated` was written.
#[inline(always)]
pub unsafe fn flag(record: *mut Exec, cut: bool, as_what: u32) {
    // SAFETY: the caller's record.
    unsafe {
        let truncated = &raw mut (*record).truncated;
        if cut {
            truncated.write_volatile(truncated.read_volatile() | as_what);
        }
    }
}

/// Where the arguments of a new program start and end.
///
/// # Safety
///
/// `task` is the running task.
#[inline(always)]
pub unsafe fn argument_block(task: Task) -> (u64, u64) {
    // SAFETY: the caller's word.
    unsafe {
        let mm: *const c_void = member(task, offset!(task_mm));
        (
            probe(mm, offset!(mm_arg_start)),
            probe(mm, offset!(mm_arg_end)),
        )
    }
}

/// Copies user memory from `start` to `end`, at most a block, the rest of its last word zero;
/// bytes copied, and whether some are missing.
#[inline(always)]
unsafe fn copy_block(start: u64, end: u64, to: *mut [u8; BLOCK_BYTES]) -> (u32, bool) {
    let whole = end.saturating_sub(start);
    let cut = whole > BLOCK_BYTES as u64;
    let length = if cut { BLOCK_BYTES as u64 } else { whole };
    if length == 0 || length > BLOCK_BYTES as u64 {
        return (0, whole != 0);
    }
    // SAFETY: at most a block, checked by the helper; the last word is cleared first so that
    // the hash over whole words does not see what lay there before.
    unsafe {
        let last = (length - 1) & (BLOCK_BYTES as u64 - 8);
        if last <= BLOCK_BYTES as u64 - 8 {
            core::ptr::write_volatile(to.cast::<u8>().add(last as usize).cast::<u64>(), 0);
        }
        let failed = bpf_probe_read_user(to.cast(), length as u32, start as *const c_void);
        if failed == 0 {
            (length as u32, cut)
        } else {
            (0, true)
        }
    }
}

/// Copies the environment block from the new memory map.
///
/// # Safety
///
/// `task` is the running task; `record` has room.
#[inline(always)]
pub unsafe fn read_environment(task: Task, record: *mut Exec) {
    // SAFETY: reads of the running task's own memory into the record.
    unsafe {
        let mm: *const c_void = member(task, offset!(task_mm));
        let start: u64 = probe(mm, offset!(mm_env_start));
        let end: u64 = probe(mm, offset!(mm_env_end));
        let (length, cut) = copy_block(start, end, addr_of_mut!((*record).environment));
        (*record).environment_len = length;
        flag(record, cut, TRUNCATED_ENVIRONMENT);
    }
}

/// Fills in everything but the strings, the context and the decision.
///
/// # Safety
///
/// `task` is the running task, `bprm` its `linux_binprm`, and the path of the `program` starts there; `record` has
/// room.
#[inline(always)]
pub unsafe fn fill(task: Task, bprm: *const c_void, program: *const c_void, record: *mut Exec) {
    // SAFETY: as the caller says; kernel objects are probed.
    unsafe {
        (*record).header = header(KIND_EXEC, member(task, offset!(task_pid)));
        (*record).pid = member(task, offset!(task_tgid));
        let ids = bpf_get_current_uid_gid();
        (*record).uid = ids as u32;
        (*record).gid = (ids >> 32) as u32;
        (*record).comm = probe(task, offset!(task_comm));
        (*record).cgroup_id = bpf_get_current_cgroup_id();
        (*record).pad = [0; 7];

        let filename: *const c_void = probe(bprm, offset!(bprm_filename));
        let got = bpf_probe_read_kernel_str(
            addr_of_mut!((*record).filename).cast(),
            PATH_BYTES as u32,
            filename,
        );
        if got <= 0 {
            (*record).filename[0] = 0;
        }
        flag(record, got >= PATH_BYTES as c_long, TRUNCATED_PATH);

        let fs: *const c_void = probe(task, offset!(task_fs));
        let root = fs.cast::<u8>().wrapping_add(offset!(fs_root)).cast();
        let pwd = fs.cast::<u8>().wrapping_add(offset!(fs_pwd)).cast();
        let (at, whole) = walk(Walk::new(program, root), addr_of_mut!((*record).executable));
        (*record).executable_start = at;
        flag(record, !whole, TRUNCATED_PATH);
        let (at, whole) = walk(Walk::new(pwd, root), addr_of_mut!((*record).directory));
        (*record).directory_start = at;
        flag(record, !whole, TRUNCATED_PATH);

        (*record).ancestors_len = climb(task, record, ancestor_step, ANCESTORS as u32);
        let cgroups: *const c_void = probe(task, offset!(task_cgroups));
        let cgroup: *const c_void = probe(cgroups, offset!(css_set_dfl_cgrp));
        let node: *const c_void = probe(cgroup, offset!(cgroup_kn));
        (*record).cgroups_len = climb(node, record, cgroup_step, CGROUP_LEVELS as u32);
    }
}

/// A walk up some tree, a level at a time.
#[derive(Clone, Copy)]
struct Climb {
    at: *const c_void,
    record: *mut Exec,
    levels: u32,
}

type Step = extern "C" fn(u32, *mut Climb) -> c_long;

#[inline(always)]
unsafe fn climb(at: *const c_void, record: *mut Exec, step: Step, limit: u32) -> u32 {
    let mut climb = Climb {
        at,
        record,
        levels: 0,
    };
    // SAFETY: `step` has the signature bpf_loop wants.
    unsafe { bpf_loop(limit, step as *mut c_void, (&raw mut climb).cast(), 0) };
    blur(&mut climb);
    climb.levels
}

#[inline(never)]
extern "C" fn ancestor_step(index: u32, climb: *mut Climb) -> c_long {
    // SAFETY: bpf_loop passes what `climb` gave it; kernel objects are probed.
    unsafe {
        let climb = &mut *climb;
        let parent: *const c_void = probe(climb.at, offset!(task_real_parent));
        if parent.is_null() || parent == climb.at || index >= ANCESTORS as u32 {
            return 1;
        }
        let pid: u32 = probe(parent, offset!(task_tgid));
        if pid == 0 {
            return 1;
        }
        let slot = addr_of_mut!((*climb.record).ancestors[index as usize & (ANCESTORS - 1)]);
        (*slot).pid = pid;
        (*slot).pad = 0;
        (*slot).comm = probe(parent, offset!(task_comm));
        climb.at = parent;
        climb.levels = index + 1;
    }
    0
}

#[inline(never)]
extern "C" fn cgroup_step(index: u32, climb: *mut Climb) -> c_long {
    // SAFETY: as above.
    unsafe {
        let climb = &mut *climb;
        if climb.at.is_null() || index >= CGROUP_LEVELS as u32 {
            return 1;
        }
        let name: *const c_void = probe(climb.at, offset!(kernfs_node_name));
        let slot = addr_of_mut!((*climb.record).cgroups[index as usize & (CGROUP_LEVELS - 1)]);
        if bpf_probe_read_kernel_str(slot.cast(), CGROUP_NAME_BYTES as u32, name) <= 0 {
            return 1;
        }
        climb.at = probe(climb.at, offset!(kernfs_node_parent));
        climb.levels = index + 1;
    }
    0
}
