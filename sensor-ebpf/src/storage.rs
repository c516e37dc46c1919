//! What a task carries, without the helper: up to Linux 6.12 at least, programs at cgroup hooks may not look into task
//! storage, and reading memory is enough.

use core::ffi::c_void;

use clew_sensor_abi::record::TaskContext;

use crate::kernel::{Task, member, probe};
use crate::maps::{offset, task_map};

/// Most storages of one task, of whoever's programs, that are looked through.
const MOST: u32 = 16;

/// What the kernel has in its `TASKS` for `task` (`struct bpf_local_storage`); null: nothing.
///
/// # Safety
///
/// `task` is a task the verifier trusts. What is found is an address to be probed; it stays good while the
/// program runs (RCU).
#[inline(always)]
pub unsafe fn of_task(task: Task) -> *const TaskContext {
    // SAFETY: a member of the task; kernel objects are probed.
    unsafe {
        let all: *const c_void = member(task, offset!(task_bpf_storage));
        let mut node: *const c_void = probe(all, offset!(local_storage_list));
        let mut nth = 0;
        while nth < MOST && !node.is_null() {
            let element = node
                .cast::<u8>()
                .wrapping_sub(offset!(local_storage_elem_snode));
            let data = element.wrapping_add(offset!(local_storage_elem_sdata));
            if probe::<u64>(data.cast(), offset!(local_storage_data_smap)) == task_map() {
                return data.wrapping_add(offset!(local_storage_data_data)).cast();
            }
            node = probe(node, 0);
            nth += 1;
        }
        core::ptr::null()
    }
}
