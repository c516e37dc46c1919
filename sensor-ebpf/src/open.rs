//! Open: may this request's lineage open this file? And what has it written, that another runs later?
//!
//! Files are watched by where they are: below a directory, or under a name in one. The way up is that of the file's
//! own file system: one that is mounted below has to be named for itself.
//!
//! Only where files are watched are these programs there: others' opens cost two looks into what the task carries.

use core::ffi::c_void;

use aya_ebpf::cty::c_long;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel_str};
use aya_ebpf::macros::{btf_tracepoint, fexit, lsm};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, LsmContext};
use clew_sensor_abi::FileKey;
use clew_sensor_abi::file::{
    NAME_BYTES, NameKey, RULE_CLOSED, RULE_NAMES, RULE_REMEMBER, RULE_SECRET, WatchKey,
};
use clew_sensor_abi::record::{
    ACCESS_READ, ACCESS_WRITE, DECISION_ALLOWED, DECISION_DENIED, DECISION_OBSERVED, File,
    KIND_FILE, TaskContext,
};
use clew_sensor_abi::settings::{Counter, MODE_ENFORCE};

use crate::decide::effective_mode;
use crate::kernel::{Task, blur, identity, identity_of_inode, member, path_of, probe};
use crate::maps::{EVENTS, WATCHED, WATCHED_NAMES, WRITTEN, count, offset, settings};
use crate::path::{Walk, walk};
use crate::registers::opens;
use crate::report::{Room, Urgency, has_room, header};
use crate::stops::note_stop;
use crate::task::{context_of, current, nothing};

const PASS: i32 = 0;
const EPERM: i32 = 1;
/// `FMODE_WRITE` (include/linux/fs.h).
const WRITE: u32 = 2;
/// `S_IFMT` and `S_IFREG`.
const KIND: u16 = 0o170_000;
const REGULAR: u16 = 0o100_000;
/// Most directories above a file that are looked at.
const DEPTH: u32 = 64;

/// What a program may do about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    /// Refuse.
    Refuse,
    /// Tell.
    Tell,
}

/// `lsm/file_open` (file, and what other programs here have said).
#[lsm(hook = "file_open")]
pub fn open(ctx: LsmContext) -> i32 {
    let said: i32 = ctx.arg(1);
    if said != PASS {
        return said;
    }
    // SAFETY: the hook's own file.
    verdict(unsafe { opened(ctx.arg(0), Power::Refuse) })
}

/// `fexit/security_file_open` (file, ret): the same, where there is no BPF LSM. It tells, and refuses nothing.
#[fexit(function = "security_file_open")]
pub fn open_exit(ctx: FExitContext) -> i32 {
    let said: i32 = ctx.arg(1);
    if said == PASS {
        // SAFETY: the function's own file.
        unsafe { opened(ctx.arg(0), Power::Tell) };
    }
    0
}

/// `tp_btf/sys_exit` (regs, ret): the same, where there is neither. Every system call of every process comes this way.
#[btf_tracepoint(function = "sys_exit")]
pub fn open_call(ctx: BtfTracePointContext) -> i32 {
    let fd: c_long = ctx.arg(1);
    if fd < 0 || !opens(ctx.arg(0)) {
        return 0;
    }
    // SAFETY: the running task; kernel objects are probed.
    unsafe {
        let files: *const c_void = probe(current(), offset!(task_files));
        let table: *const c_void = probe(files, offset!(files_fdt));
        let all: *const c_void = probe(table, offset!(fdtable_fd));
        let file: *const c_void = probe(all, fd as usize * size_of::<usize>());
        if !file.is_null() {
            opened(file, Power::Tell);
        }
    }
    0
}

/// `lsm/inode_rename` (old_dir, old_dentry, new_dir, new_dentry, and what others have said).
#[lsm(hook = "inode_rename")]
pub fn rename(ctx: LsmContext) -> i32 {
    let said: i32 = ctx.arg(4);
    if said != PASS {
        return said;
    }
    // SAFETY: the hook's own entries.
    verdict(unsafe { put(ctx.arg(1), ctx.arg(3), true, Power::Refuse) })
}

/// `lsm/inode_link` (old_dentry, dir, new_dentry, and what others have said).
#[lsm(hook = "inode_link")]
pub fn link(ctx: LsmContext) -> i32 {
    let said: i32 = ctx.arg(3);
    if said != PASS {
        return said;
    }
    // SAFETY: the hook's own entries.
    verdict(unsafe { put(ctx.arg(0), ctx.arg(2), false, Power::Refuse) })
}

/// `fexit/security_inode_rename` (old_dir, old_dentry, new_dir, new_dentry, flags, ret).
#[fexit(function = "security_inode_rename")]
pub fn rename_exit(ctx: FExitContext) -> i32 {
    let said: i32 = ctx.arg(5);
    if said == PASS {
        // SAFETY: the function's own entries.
        unsafe { put(ctx.arg(1), ctx.arg(3), true, Power::Tell) };
    }
    0
}

/// `fexit/security_inode_link` (old_dentry, dir, new_dentry, ret).
#[fexit(function = "security_inode_link")]
pub fn link_exit(ctx: FExitContext) -> i32 {
    let said: i32 = ctx.arg(3);
    if said == PASS {
        // SAFETY: the function's own entries.
        unsafe { put(ctx.arg(0), ctx.arg(2), false, Power::Tell) };
    }
    0
}

#[inline(always)]
fn verdict(is_refused: bool) -> i32 {
    if is_refused { -EPERM } else { PASS }
}

/// What is done to a file.
struct Deed {
    file: FileKey,
    access: u8,
    rules: u32,
    power: Power,
    path: Walk,
}

/// The running task opens `file`; whether that is refused.
///
/// # Safety
///
/// `file` is an open file of the kernel's.
#[inline(always)]
unsafe fn opened(file: *const c_void, power: Power) -> bool {
    let task = current();
    let mut context = nothing();
    // SAFETY: the running task; kernel objects are probed.
    unsafe {
        if !context_of(task, &mut context) {
            return false;
        }
        blur(&mut context);
        let inode: *const c_void = probe(file, offset!(file_f_inode));
        if probe::<u16>(inode, offset!(inode_i_mode)) & KIND != REGULAR {
            return false;
        }
        let writes = probe::<u32>(file, offset!(file_f_mode)) & WRITE != 0;
        let path = path_of(file);
        let fs: *const c_void = probe(task, offset!(task_fs));
        let root = fs.cast::<u8>().wrapping_add(offset!(fs_root)).cast();
        let key = identity(file);
        let deed = Deed {
            file: key,
            access: if writes { ACCESS_WRITE } else { ACCESS_READ },
            rules: rules_of(
                probe(path, offset!(path_dentry)),
                key.device,
                context.service,
            ),
            power,
            path: Walk::new(path, root),
        };
        judge(task, &context, deed)
    }
}

/// The running task gives the file at `from` the name of `to`, and takes away its own if it is `moved`; whether that
/// is refused.
///
/// # Safety
///
/// Both are directory entries of the kernel's.
#[inline(always)]
unsafe fn put(from: *const c_void, to: *const c_void, moved: bool, power: Power) -> bool {
    let task = current();
    let mut context = nothing();
    // SAFETY: the running task; kernel objects are probed.
    unsafe {
        if !context_of(task, &mut context) {
            return false;
        }
        blur(&mut context);
        let file = identity_of_inode(probe(from, offset!(dentry_d_inode)));
        let mut rules = rules_of(to, file.device, context.service);
        if moved {
            // What is taken away from where nothing may be written is written to.
            rules |= rules_of(from, file.device, context.service) & (RULE_SECRET | RULE_CLOSED);
        }
        let deed = Deed {
            file,
            access: ACCESS_WRITE,
            rules,
            power,
            path: Walk::within(to),
        };
        judge(task, &context, deed)
    }
}

/// # Safety
///
/// `task` is the running task.
#[inline(always)]
unsafe fn judge(task: Task, context: &TaskContext, deed: Deed) -> bool {
    let writes = deed.access == ACCESS_WRITE;
    let forbidden = if writes {
        RULE_SECRET | RULE_CLOSED
    } else {
        RULE_SECRET
    };
    let Some(settings) = settings() else {
        return false;
    };
    let (decision, room) = if deed.rules & forbidden == 0 {
        // SAFETY: presence alone is read.
        let is_known = unsafe { WRITTEN.get(deed.file) }.is_some();
        if writes && deed.rules & RULE_REMEMBER != 0 {
            if !is_known && WRITTEN.insert(deed.file, 1, 0).is_err() {
                count(Counter::NoStorage);
            }
        } else if !is_known {
            return false;
        }
        (DECISION_ALLOWED, Room::Harmless)
    } else if deed.power == Power::Refuse && effective_mode(settings) == MODE_ENFORCE {
        count(Counter::Denied);
        (DECISION_DENIED, Room::Refused)
    } else {
        (DECISION_OBSERVED, Room::Harmless)
    };
    let is_refused = decision == DECISION_DENIED;
    // SAFETY: the running task.
    let is_reported = has_room(room) && unsafe { report(task, context, deed, decision) };
    if !is_reported {
        count(Counter::LostFile);
    }
    if is_refused {
        note_stop(is_reported);
    }
    is_refused
}

/// Whether there was room for it.
///
/// # Safety
///
/// `task` is the running task.
#[inline(always)]
unsafe fn report(task: Task, context: &TaskContext, deed: Deed, decision: u8) -> bool {
    let Some(mut entry) = EVENTS.reserve_untyped::<File>(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: room for a whole record; the path is written from where it says that it starts.
    unsafe {
        (*record).header = header(KIND_FILE, member(task, offset!(task_pid)));
        (*record).context = *context;
        (*record).file = deed.file;
        (*record).pid = member(task, offset!(task_tgid));
        (*record).comm = bpf_get_current_comm().unwrap_or([0; 16]);
        (*record).decision = decision;
        (*record).access = deed.access;
        (*record).pad = [0; 6];
        (*record).path_start = walk(deed.path, &raw mut (*record).path).0;
    }
    let urgency = if decision == DECISION_ALLOWED {
        Urgency::Later
    } else {
        Urgency::Now
    };
    entry.submit(urgency.flags());
    true
}

/// A walk from a directory entry to the top of its file system.
#[derive(Clone, Copy)]
struct Climb {
    at: *const c_void,
    below: *const c_void,
    device: u64,
    service: u32,
    rules: u32,
}

/// The rules for `entry` and for all that it is below.
///
/// # Safety
///
/// `entry` is a directory entry of the kernel's.
#[inline(always)]
unsafe fn rules_of(entry: *const c_void, device: u64, service: u32) -> u32 {
    let mut climb = Climb {
        at: entry,
        below: core::ptr::null(),
        device,
        service,
        rules: 0,
    };
    blur(&mut climb);
    // SAFETY: `level` has the signature bpf_loop wants.
    unsafe { bpf_loop(DEPTH, level as *mut c_void, (&raw mut climb).cast(), 0) };
    blur(&mut climb);
    climb.rules
}

#[inline(never)]
extern "C" fn level(_: u32, climb: *mut Climb) -> c_long {
    // SAFETY: bpf_loop passes what `rules_of` gave it; kernel objects are probed; map values are read.
    unsafe {
        let climb = &mut *climb;
        let inode: *const c_void = probe(climb.at, offset!(dentry_d_inode));
        let mut key = NameKey {
            parent: WatchKey {
                file: FileKey {
                    device: climb.device,
                    inode: probe(inode, offset!(inode_i_ino)),
                },
                service: climb.service,
                pad: 0,
            },
            name: [0; NAME_BYTES],
        };
        if let Some(rules) = WATCHED.get(&key.parent) {
            climb.rules |= *rules & !RULE_NAMES;
            if *rules & RULE_NAMES != 0 && !climb.below.is_null() && name_of(climb.below, &mut key)
            {
                climb.rules |= WATCHED_NAMES.get(&key).copied().unwrap_or(0);
            }
        }
        let parent: *const c_void = probe(climb.at, offset!(dentry_d_parent));
        if parent == climb.at || parent.is_null() {
            return 1;
        }
        climb.below = climb.at;
        climb.at = parent;
    }
    0
}

/// Writes the name of `entry` to the key, which has none; false where it is too long.
///
/// # Safety
///
/// `entry` is a directory entry of the kernel's.
#[inline(always)]
unsafe fn name_of(entry: *const c_void, key: &mut NameKey) -> bool {
    // SAFETY: probes; room for the name.
    unsafe {
        let name = entry.cast::<u8>().wrapping_add(offset!(dentry_d_name));
        let name: *const c_void = probe(name.cast(), offset!(qstr_name));
        let to = key.name.as_mut_ptr().cast();
        let got = bpf_probe_read_kernel_str(to, NAME_BYTES as u32, name);
        got > 0 && got < NAME_BYTES as c_long
    }
}
