//! What the loader tells the programs: offsets once, settings at any time.

/// Nothing is stopped; everything is reported.
pub const MODE_OBSERVE: u32 = 0;
/// As observe; the loader writes down what it sees.
pub const MODE_LEARN: u32 = 1;
/// What the policy does not allow is stopped.
pub const MODE_ENFORCE: u32 = 2;

/// The one element of the `SETTINGS` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// SipHash key, first word.
    pub key0: u64,
    /// SipHash key, second word.
    pub key1: u64,
    /// When the loader last said that it lives, `CLOCK_MONOTONIC` nanoseconds.
    pub heartbeat: u64,
    /// Older than this many nanoseconds, `fallback_mode` holds.
    pub heartbeat_limit: u64,
    /// One of the `MODE_*`.
    pub mode: u32,
    /// Mode when nobody tends the programs.
    pub fallback_mode: u32,
    /// The proxy whose tokens are accepted.
    pub proxy: u32,
    /// 1 where services have ports of the kind `PORT_OPAQUE`.
    pub has_opaque: u32,
}

/// Index in `STOPS` of all that the programs have stopped.
pub const STOPS_ALL: u32 = 0;
/// Index in `STOPS` of those whose record was lost.
pub const STOPS_UNREPORTED: u32 = 1;

/// Byte offsets of kernel structure members, resolved from the running kernel's BTF.
///
/// A read-only global of the programs; the verifier folds each into its instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // each is named for the member it finds: structure_member
pub struct Offsets {
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_group_leader: u32,
    pub task_real_parent: u32,
    pub task_start_boottime: u32,
    pub task_mm: u32,
    pub task_fs: u32,
    pub task_cgroups: u32,
    pub task_comm: u32,
    pub task_files: u32,
    pub files_fdt: u32,
    pub fdtable_fd: u32,
    pub mm_arg_start: u32,
    pub mm_arg_end: u32,
    pub mm_env_start: u32,
    pub mm_env_end: u32,
    pub mm_exe_file: u32,
    pub file_f_inode: u32,
    pub file_f_path: u32,
    pub file_f_mode: u32,
    pub inode_i_ino: u32,
    pub inode_i_sb: u32,
    pub inode_i_mode: u32,
    pub super_block_s_dev: u32,
    pub path_mnt: u32,
    pub path_dentry: u32,
    pub dentry_d_parent: u32,
    pub dentry_d_inode: u32,
    pub dentry_d_name: u32,
    pub qstr_len: u32,
    pub qstr_name: u32,
    pub mount_mnt: u32,
    pub mount_mnt_parent: u32,
    pub mount_mnt_mountpoint: u32,
    pub vfsmount_mnt_root: u32,
    pub fs_pwd: u32,
    pub fs_root: u32,
    pub bprm_filename: u32,
    pub bprm_file: u32,
    pub bprm_buf: u32,
    pub css_set_dfl_cgrp: u32,
    pub cgroup_kn: u32,
    pub kernfs_node_parent: u32,
    pub kernfs_node_name: u32,
    pub tcp_sock_copied_seq: u32,
    pub tcp_sock_write_seq: u32,
    pub sock_common_skc_family: u32,
    pub sock_common_skc_state: u32,
    pub sock_common_skc_daddr: u32,
    pub sock_common_skc_rcv_saddr: u32,
    pub sock_common_skc_dport: u32,
    pub sock_common_skc_num: u32,
    pub sock_common_skc_net: u32,
    pub sock_common_skc_v6_daddr: u32,
    pub sock_common_skc_v6_rcv_saddr: u32,
    pub sock_sk_lock_owned: u32,
    pub sock_sk_type: u32,
    pub unix_sock_addr: u32,
    pub socket_sk: u32,
    pub task_bpf_storage: u32,
    pub local_storage_list: u32,
    pub local_storage_elem_snode: u32,
    pub local_storage_elem_sdata: u32,
    pub local_storage_data_smap: u32,
    pub local_storage_data_data: u32,
    pub iter_meta_seq: u32,
    /// Number of the system call in `struct pt_regs`.
    pub registers_number: u32,
    /// Its second argument there.
    pub registers_second: u32,
    /// Its third.
    pub registers_third: u32,
    /// Its fourth.
    pub registers_fourth: u32,
    /// Not an offset: the number of `read(2)`.
    pub call_read: u32,
    /// As above, `readv(2)`.
    pub call_readv: u32,
    /// As above, `recvfrom(2)`.
    pub call_recvfrom: u32,
    /// As above, `recvmsg(2)`.
    pub call_recvmsg: u32,
    /// As above, `execve(2)`.
    pub call_execve: u32,
    /// As above, `execveat(2)`.
    pub call_execveat: u32,
    /// As above, `open(2)`; `openat(2)` again where there is none.
    pub call_open: u32,
    /// As above, `openat(2)`.
    pub call_openat: u32,
    /// As above, `openat2(2)`.
    pub call_openat2: u32,
}

/// Index into the `COUNTERS` map: one 64-bit sum per CPU each.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Tokens accepted.
    Accepted = 0,
    /// Token lines of this proxy whose MAC is wrong.
    Forged = 1,
    /// Tokens seen before, or too old to tell.
    Replayed = 2,
    /// Reads that found more than eight requests unread on their connection: the oldest are lost.
    QueueFull = 3,
    /// Segments with a gap before them on an inspected connection, dropped to be sent again.
    OutOfOrder = 4,
    /// Exec records lost.
    LostExec = 5,
    /// Connect records lost.
    LostConnect = 6,
    /// Programs killed.
    Killed = 7,
    /// Connections denied.
    Denied = 8,
    /// Contexts that could not be stored: no memory.
    NoStorage = 9,
    /// Tokens found again, where a request went on to another process.
    Hops = 10,
    /// Programs whose start was refused.
    Refused = 11,
    /// File records lost.
    LostFile = 12,
}

/// Number of counters.
pub const COUNTERS: u32 = 13;

const _: () = assert!(size_of::<Settings>() == 48);
const _: () = assert!(size_of::<Offsets>() == 79 * 4);
