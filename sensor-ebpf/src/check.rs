//! Check: may this request's lineage start this program? Asked before it is started, where the kernel has
//! BPF LSM: who asks for it gets `EPERM`, and lives.
//!
//! What is known by then is the file. A program that is allowed with certain arguments only, or whose start
//! cannot be read here (a 32-bit one), passes, and is judged by [`crate::decide`] once it is in place; so is what
//! a script's first line names, and all that is allowed.

use core::ffi::c_void;

use aya_ebpf::cty::c_long;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user, bpf_probe_read_user_str};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use clew_sensor_abi::policy::{ARGUMENTS_ANY, ARGUMENTS_SOME, ExecKey, SERVICE_ANY};
use clew_sensor_abi::record::{
    BLOCK_BYTES, DECISION_DENIED, Exec, TRUNCATED_ARGUMENTS, TRUNCATED_ENVIRONMENT,
};
use clew_sensor_abi::settings::{Counter, MODE_ENFORCE};
use clew_sensor_abi::{FileKey, record::TaskContext};

use crate::decide::effective_mode;
use crate::kernel::{Task, blur, identity, path_of, probe};
use crate::maps::{EVENTS, EXEC_ALLOW, TRAMPOLINES, count, offset, settings};
use crate::registers::exec_strings;
use crate::report::{Room, Urgency, has_room};
use crate::snapshot::{fill, flag};
use crate::stops::note_stop;
use crate::task::{context_of, current, nothing};

const PASS: i32 = 0;
const EPERM: i32 = 1;
/// First bytes of an executable, `\x7fELF`: nothing else is started by itself.
const ELF: u32 = u32::from_le_bytes(*b"\x7fELF");
/// Most bytes of one variable of the environment.
const VARIABLE_BYTES: u32 = 1024;

/// `lsm/bprm_check_security` (bprm, and what other programs here have said).
#[lsm(hook = "bprm_check_security")]
pub fn check(ctx: LsmContext) -> i32 {
    let said: i32 = ctx.arg(1);
    if said != PASS {
        return said;
    }
    // SAFETY: the hook's own argument; the running task.
    if unsafe { is_refused(ctx.arg(0), current()) } {
        -EPERM
    } else {
        PASS
    }
}

/// # Safety
///
/// `task` is the running task, `bprm` what it is to become.
#[inline(always)]
unsafe fn is_refused(bprm: *const c_void, task: Task) -> bool {
    let mut context = nothing();
    // SAFETY: the caller's word; kernel objects are probed.
    unsafe {
        if !context_of(task, &mut context) {
            return false;
        }
        blur(&mut context);
        let Some(settings) = settings() else {
            return false;
        };
        if effective_mode(settings) != MODE_ENFORCE || probe::<u32>(bprm, offset!(bprm_buf)) != ELF
        {
            return false;
        }
        let program: *const c_void = probe(bprm, offset!(bprm_file));
        let file = identity(program);
        if may_be_allowed(&context, file) {
            return false;
        }
        let Some((arguments, environment)) = exec_strings(task) else {
            return false;
        };
        count(Counter::Refused);
        let mut is_reported = false;
        if has_room(Room::Refused)
            && let Some(mut entry) = EVENTS.reserve_untyped::<Exec>(0)
        {
            let record = entry.as_mut_ptr();
            (*record).truncated = 0;
            (*record).decision = DECISION_DENIED;
            (*record).file = file;
            (*record).context = context;
            gather(record, arguments, environment);
            fill(task, bprm, path_of(program), record);
            entry.submit(Urgency::Now.flags());
            is_reported = true;
        } else {
            count(Counter::LostExec);
        }
        note_stop(is_reported);
        true
    }
}

/// Whether the file may be started, with whatever arguments.
#[inline(always)]
fn may_be_allowed(context: &TaskContext, file: FileKey) -> bool {
    // SAFETY: presence alone is read.
    unsafe {
        let has = |arguments, service| {
            let key = ExecKey {
                file,
                arguments,
                service,
                pad: 0,
            };
            EXEC_ALLOW.get(key).is_some()
        };
        TRAMPOLINES.get(file).is_some()
            || has(ARGUMENTS_ANY, SERVICE_ANY)
            || has(ARGUMENTS_ANY, context.service)
            || has(ARGUMENTS_SOME, SERVICE_ANY)
            || has(ARGUMENTS_SOME, context.service)
    }
}

/// Copies the strings that two vectors of the caller's point at, to where those of a new program go. The caller
/// may write over them meanwhile, with other threads: nothing is decided by them.
///
/// # Safety
///
/// `record` has room.
#[inline(always)]
unsafe fn gather(record: *mut Exec, arguments: u64, environment: u64) {
    // SAFETY: the caller's word; callbacks have the signature bpf_loop wants.
    unsafe {
        let most = BLOCK_BYTES as u32;
        (*record).arguments_len = 0;
        (*record).environment_len = 0;
        let mut strings = Strings {
            record,
            vector: arguments,
        };
        bpf_loop(most, argument as *mut c_void, (&raw mut strings).cast(), 0);
        let mut strings = Strings {
            record,
            vector: environment,
        };
        bpf_loop(most, variable as *mut c_void, (&raw mut strings).cast(), 0);
    }
}

struct Strings {
    record: *mut Exec,
    vector: u64,
}

/// One argument. It may reach into the block of the environment, which is filled later.
#[inline(never)]
extern "C" fn argument(index: u32, strings: *mut Strings) -> c_long {
    // SAFETY: bpf_loop passes what `gather` gave it.
    unsafe {
        let strings = &*strings;
        let record = strings.record;
        let Some(from) = pointer(strings.vector, index) else {
            return 1;
        };
        let at = (&raw const (*record).arguments_len).read_volatile();
        if at >= BLOCK_BYTES as u32 {
            flag(record, true, TRUNCATED_ARGUMENTS);
            return 1;
        }
        let to = (&raw mut (*record).arguments).cast::<u8>();
        let to = to.add(at as usize & (BLOCK_BYTES - 1));
        let got = bpf_probe_read_user_str(to.cast(), BLOCK_BYTES as u32, from);
        let (end, is_cut) = end_of(at, got, BLOCK_BYTES as u32);
        flag(record, is_cut, TRUNCATED_ARGUMENTS);
        (*record).arguments_len = end;
    }
    0
}

/// One variable of the environment. It may reach into what is filled later.
#[inline(never)]
extern "C" fn variable(index: u32, strings: *mut Strings) -> c_long {
    // SAFETY: bpf_loop passes what `gather` gave it.
    unsafe {
        let strings = &*strings;
        let record = strings.record;
        let Some(from) = pointer(strings.vector, index) else {
            return 1;
        };
        let at = (&raw const (*record).environment_len).read_volatile();
        if at >= BLOCK_BYTES as u32 {
            flag(record, true, TRUNCATED_ENVIRONMENT);
            return 1;
        }
        let to = (&raw mut (*record).environment).cast::<u8>();
        let to = to.add(at as usize & (BLOCK_BYTES - 1));
        let got = bpf_probe_read_user_str(to.cast(), VARIABLE_BYTES, from);
        let (end, is_cut) = end_of(at, got, VARIABLE_BYTES);
        flag(record, is_cut, TRUNCATED_ENVIRONMENT);
        (*record).environment_len = end;
    }
    0
}

/// The pointer at `index` of a vector, if it does not end there.
#[inline(always)]
unsafe fn pointer(vector: u64, index: u32) -> Option<*const c_void> {
    let mut pointer = 0_u64;
    let at = vector.wrapping_add(u64::from(index) * 8);
    // SAFETY: a word, checked by the helper.
    let failed = unsafe { bpf_probe_read_user((&raw mut pointer).cast(), 8, at as *const c_void) };
    (failed == 0 && pointer != 0).then_some(pointer as *const c_void)
}

/// Where a block ends after a string of `got` bytes, of which at most `most` were read, came to `at`; and whether
/// something is missing.
#[inline(always)]
fn end_of(at: u32, got: c_long, most: u32) -> (u32, bool) {
    if got <= 0 {
        return (at, true);
    }
    let end = at.wrapping_add(got as u32);
    if end > BLOCK_BYTES as u32 {
        (BLOCK_BYTES as u32, true)
    } else {
        (end, got as u32 >= most)
    }
}
