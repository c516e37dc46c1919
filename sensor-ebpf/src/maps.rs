//! Maps, and the two storage types aya-ebpf does not have in the width needed here.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xadd};
use core::marker::PhantomData;
use core::ptr::NonNull;

use aya_ebpf::bindings::{
    BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE,
    bpf_map_type::{BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_TASK_STORAGE},
};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_task_storage_get};
use aya_ebpf::macros::btf_map;
use clew_sensor_abi::FileKey;
use clew_sensor_abi::ban::{BANS as BAN_ENTRIES, Ban};
use clew_sensor_abi::file::{NameKey, WatchKey};
use clew_sensor_abi::ledger::{Accepted, ENTRIES, HOPS as HOP_ENTRIES, Reading};
use clew_sensor_abi::policy::{ExecKey, Service};
use clew_sensor_abi::record::TaskContext;
use clew_sensor_abi::settings::{COUNTERS as COUNTER_KINDS, Counter, Offsets, Settings};

use clew_sensor_abi::socket::{
    ANNOUNCED as ANNOUNCED_CAPACITY, Announced, EARLY as EARLY_CAPACITY, Early, Ends, Flow,
    HopContext, Sender, SocketContext,
};

/// Offsets of kernel members; overwritten by the loader, constant to the verifier.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = unsafe { core::mem::zeroed() };

/// One of [`OFFSETS`].
macro_rules! offset {
    ($member:ident) => {
        $crate::maps::read_offset(&raw const $crate::maps::OFFSETS.$member)
    };
}
pub(crate) use offset;

/// Volatile, so that the compiler does not take the zeros it sees for the truth.
#[inline(always)]
pub fn read_offset(member: *const u32) -> usize {
    // SAFETY: `offset!` hands over a member of a static.
    unsafe { core::ptr::read_volatile(member) as usize }
}

#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Replay window; the loader maps it.
#[btf_map]
pub static ACCEPTED: Array<Accepted, ENTRIES, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Who has read each request, and what became of it; the loader maps it.
#[btf_map]
pub static READINGS: Array<Reading, ENTRIES, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Who has read requests that went on to another process; the loader maps it.
#[btf_map]
pub static HOP_READINGS: Array<Reading, HOP_ENTRIES, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Entries of that log so far; the loader maps it.
#[btf_map]
pub static HOP_COUNT: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What was stopped: `STOPS_ALL` and `STOPS_UNREPORTED`; the loader maps it.
#[btf_map]
pub static STOPS: Array<u64, 2, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What arrived on connections that have no socket yet. Entries go when the socket is there; what
/// is left of connections that never came to be, the loader removes.
#[btf_map]
pub static EARLY: HashMap<Flow, Early, { EARLY_CAPACITY as usize }> = HashMap::new();

/// Which requests come next on connections whose bytes cannot be read; the proxy writes it.
#[btf_map]
pub static ANNOUNCED: HashMap<Ends, Announced, { ANNOUNCED_CAPACITY as usize }> = HashMap::new();

/// Not 0 once anything was early.
#[btf_map]
pub static EARLY_SEEN: Array<u32, 1> = Array::new();

/// Where a value of [`EARLY`] is made; per CPU, because softirqs do not nest.
#[btf_map]
pub static SPARE: PerCpuArray<Early, 1> = PerCpuArray::new();

/// Ports that services are entered by (host order); one of the `PORT_*` for each.
#[btf_map]
pub static PORTS: HashMap<u32, u32, 1024> = HashMap::new();

/// Ports that the proxy listens on (host order).
#[btf_map]
pub static FRONT_PORTS: HashMap<u32, u32, 1024> = HashMap::new();

/// Addresses that are banned: found at once, however many there are.
#[btf_map]
pub static BANS: HashMap<[u8; 16], Ban, { BAN_ENTRIES as usize }, BPF_F_NO_PREALLOC_USIZE> =
    HashMap::new();

/// Prefixes that are.
#[btf_map]
pub static BAN_PREFIXES: LpmTrie<[u8; 16], Ban, { BAN_ENTRIES as usize }, BPF_F_NO_PREALLOC_USIZE> =
    LpmTrie::new();

#[btf_map]
pub static SERVICES: Array<Service, 256> = Array::new();

#[btf_map]
pub static EXEC_ALLOW: HashMap<ExecKey, u32, 16_384> = HashMap::new();

/// Launchers that exec twice; the second exec is judged.
#[btf_map]
pub static TRAMPOLINES: HashMap<FileKey, u32, 1024> = HashMap::new();

/// Files and directories that are watched: `RULE_*`.
#[btf_map]
pub static WATCHED: HashMap<WatchKey, u32, 4096> = HashMap::new();

/// What is watched under a name, whichever file it is.
#[btf_map]
pub static WATCHED_NAMES: HashMap<NameKey, u32, 4096> = HashMap::new();

/// Files that requests have written where that is remembered. The least recently used are forgotten: nothing is decided
/// by them, and a service that takes uploads takes them for years.
#[btf_map]
pub static WRITTEN: LruHashMap<FileKey, u32, 16_384> = LruHashMap::new();

#[btf_map]
pub static CONNECT_ALLOW: LpmTrie<ConnectData, u32, 16_384, BPF_F_NO_PREALLOC_USIZE> =
    LpmTrie::new();

#[btf_map]
pub static EVENTS: RingBuf<[u8; 0], RING_BYTES> = RingBuf::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { COUNTER_KINDS as usize }> = PerCpuArray::new();

/// Where the segment being inspected is searched; per CPU, because softirqs do not nest.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Where the start of what was read from a unix socket is searched; per CPU, because programs on
/// tracepoints are not interrupted by each other.
#[btf_map]
pub static HOP_SCRATCH: PerCpuArray<HopScratch, 1> = PerCpuArray::new();

/// Bytes of it looked at; a power of two.
pub const HOP_WINDOW: u32 = 4096;

/// Value of [`HOP_SCRATCH`]; positions are kept here for the reason that [`Scratch`] gives.
#[repr(C)]
pub struct HopScratch {
    /// What was read, and as much again as a token line is long.
    pub window: [u64; (HOP_WINDOW as usize + 64) / 8],
    /// Next byte to look at.
    pub at: u32,
    /// Bytes in the window.
    pub end: u32,
    /// Where a token's digits start; 0: none found.
    pub found: u32,
    /// Index of the last byte to load next.
    pub last: u32,
}

/// Value of [`SCRATCH`].
#[repr(C)]
pub struct Scratch {
    /// A stretch of the payload.
    pub window: [u64; WINDOW_WORDS],
    /// Next payload byte to look at. Kept here, not on the stack: the verifier follows every
    /// value a stack slot takes through the loop, and gives up; what a map holds is unknown to
    /// it, so the loop looks the same each time round.
    pub at: u32,
    /// Payload offset of the window's first byte.
    pub base: u32,
    /// Bytes in the window.
    pub loaded: u32,
    /// Index of the last byte to load next. On its way through here the compiler loses what it knows of
    /// it, and leaves the bounds check that the verifier wants to see.
    pub last: u32,
}

const BPF_F_NO_PREALLOC_USIZE: usize = BPF_F_NO_PREALLOC as usize;

/// 8 MiB: 600 program starts with everything between two looks at it.
pub const RING_BYTES: usize = 8 << 20;

/// Words in a window: 512 bytes in which a step of 128 may start, and 64 more that a token line
/// may reach into or the search reads ahead.
pub const WINDOW_WORDS: usize = (512 + 128 + 64) / 8;

/// Key of `CONNECT_ALLOW` behind its prefix length; see `clew_sensor_abi::policy::ConnectKey`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ConnectData {
    pub service: u32,
    pub port: u16,
    pub protocol: u16,
    pub address: [u8; 16],
}

/// Where the reading of `sequence` is entered.
#[inline(always)]
pub fn reading_at(sequence: u64) -> Option<&'static mut Reading> {
    let reading = READINGS.get_ptr_mut(sequence as u32 & (ENTRIES as u32 - 1))?;
    // SAFETY: array elements live as long as the map; members are written one by one.
    Some(unsafe { &mut *reading })
}

/// A new entry of the log of further readings, and its number.
#[inline(always)]
pub fn new_hop_reading() -> Option<(u64, &'static mut Reading)> {
    let count = HOP_COUNT.get_ptr_mut(0)?;
    // SAFETY: an element of an array map; other CPUs add too.
    let nth = unsafe { atomic_xadd::<u64, u64, { SeqCst }>(count, 1) };
    let reading = HOP_READINGS.get_ptr_mut(nth as u32 & (HOP_ENTRIES as u32 - 1))?;
    // SAFETY: as above.
    Some((nth, unsafe { &mut *reading }))
}

#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    // SAFETY: written by the loader a field at a time; each field is read alone.
    SETTINGS.get_ptr(0).map(|settings| unsafe { &*settings })
}

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(sum) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's own element.
        unsafe { *sum += 1 };
    }
}

/// A `BPF_MAP_TYPE_SK_STORAGE` or `BPF_MAP_TYPE_TASK_STORAGE` definition (Linux 5.2 and 5.11).
#[repr(C)]
pub struct Storage<T, const TYPE: usize, const FLAGS: usize = { BPF_F_NO_PREALLOC as usize }> {
    r#type: *const [i32; TYPE],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
    owner: PhantomData<T>,
}

// SAFETY: the pointers are placeholders for the loader and never followed.
unsafe impl<T, const TYPE: usize, const FLAGS: usize> Sync for Storage<T, TYPE, FLAGS> {}

impl<T, const TYPE: usize, const FLAGS: usize> Storage<T, TYPE, FLAGS> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
            owner: PhantomData,
        }
    }

    /// # Safety
    ///
    /// `sk` is a socket pointer the verifier knows, and this a map of the type `SK_STORAGE`.
    #[inline(always)]
    unsafe fn of_socket(&'static self, sk: *mut c_void, create: bool) -> Option<&'static mut T> {
        // SAFETY: the caller's word; the value lives until the socket is freed, which cannot happen
        // while the program runs (RCU).
        unsafe {
            let value = bpf_sk_storage_get(
                (&raw const *self).cast_mut().cast(),
                sk,
                core::ptr::null_mut(),
                creation(create),
            );
            NonNull::new(value.cast::<T>()).map(|mut value| value.as_mut())
        }
    }
}

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SOCKETS")]
static SOCKETS: Storage<SocketContext, { BPF_MAP_TYPE_SK_STORAGE as usize }> = Storage::new();

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "HOPS")]
static HOPS: Storage<HopContext, { BPF_MAP_TYPE_SK_STORAGE as usize }> = Storage::new();

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SENDERS")]
static SENDERS: Storage<Sender, { BPF_MAP_TYPE_SK_STORAGE as usize }> = Storage::new();

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "FRONTS")]
static FRONTS: Storage<
    u32,
    { BPF_MAP_TYPE_SK_STORAGE as usize },
    { (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize },
> = Storage::new();

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "TASKS")]
static TASKS: Storage<TaskContext, { BPF_MAP_TYPE_TASK_STORAGE as usize }> = Storage::new();

/// What is known of a socket; `create` makes room for it.
///
/// # Safety
///
/// `sk` is a socket pointer the verifier knows.
#[inline(always)]
pub unsafe fn socket_context(sk: *mut c_void, create: bool) -> Option<&'static mut SocketContext> {
    // SAFETY: the caller's word.
    unsafe { SOCKETS.of_socket(sk, create) }
}

/// Whether the proxy's clients come in at the socket: the loader says so of those that it listens on, and
/// what is accepted there takes after them.
///
/// # Safety
///
/// `sk` is a socket pointer the verifier knows.
#[inline(always)]
pub unsafe fn is_front(sk: *mut c_void) -> bool {
    // SAFETY: the caller's word.
    unsafe { FRONTS.of_socket(sk, false) }.is_some()
}

/// What is known of a unix socket; `create` makes room for it.
///
/// # Safety
///
/// `sk` is a socket pointer the verifier knows.
#[inline(always)]
pub unsafe fn hop_context(sk: *mut c_void, create: bool) -> Option<&'static mut HopContext> {
    // SAFETY: the caller's word.
    unsafe { HOPS.of_socket(sk, create) }
}

/// For whom is sent what a backend sends at a socket of its own; `create` makes room for it.
///
/// # Safety
///
/// `sk` is a socket pointer the verifier knows.
#[inline(always)]
pub unsafe fn sender(sk: *mut c_void, create: bool) -> Option<&'static mut Sender> {
    // SAFETY: the caller's word.
    unsafe { SENDERS.of_socket(sk, create) }
}

/// What a task carries; `create` makes room for it.
///
/// # Safety
///
/// `task` is a `task_struct` pointer the verifier trusts.
#[inline(always)]
pub unsafe fn task_context(task: *mut c_void, create: bool) -> Option<&'static mut TaskContext> {
    // SAFETY: as above, for the task.
    unsafe {
        let value = bpf_task_storage_get(
            (&raw const TASKS).cast_mut().cast(),
            task.cast(),
            core::ptr::null_mut(),
            creation(create),
        );
        NonNull::new(value.cast::<TaskContext>()).map(|mut value| value.as_mut())
    }
}

/// Where the kernel has the map of what tasks carry.
#[inline(always)]
pub fn task_map() -> u64 {
    (&raw const TASKS) as u64
}

const fn creation(create: bool) -> u64 {
    if create {
        BPF_LOCAL_STORAGE_GET_F_CREATE as u64
    } else {
        0
    }
}
