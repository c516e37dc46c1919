//! Clew's BPF programs: they follow a request from the socket into threads and children, and
//! stop what policy forbids.
//!
//! | step | program | hook |
//! |---|---|---|
//! | tag | [`tag::tag`] | `cgroup_skb/ingress` |
//! | bind | [`bind::bind`] | `tp_btf/tcp_rcv_space_adjust` |
//! | hop | [`hop::hop`], [`hop::answer`] | `tp_btf/sock_recv_length`, `tp_btf/sock_send_length` |
//! | send | [`send::send`] | `cgroup/sock_ops` |
//! | hop | [`hop::hop_exit`], [`hop::answer_exit`] | `fexit/unix_stream_recvmsg`, `fexit/unix_stream_sendmsg`, before those |
//! | send | [`send::adopt`] | `iter/tcp`, once (of use since Linux 6.12) |
//! | inherit | [`inherit::inherit`] | `tp_btf/sched_process_fork` |
//! | inherit | [`prepare::prepare`] | `tp_btf/sched_prepare_exec` (since Linux 6.10) |
//! | inherit | [`prepare::prepare_entry`] | `fentry/begin_new_exec`, before that |
//! | decide | [`decide::decide`] | `tp_btf/sched_process_exec` |
//! | decide | [`check::check`] | `lsm/bprm_check_security`, where there is BPF LSM |
//! | deny | [`deny::connect4`] and three more | `cgroup/connect4,6`, `cgroup/sendmsg4,6` |
//! | deny | [`raw::socket`] | `cgroup/sock_create` |
//! | file-open | [`open::open`], [`open::rename`], [`open::link`] | `lsm/file_open`, `lsm/inode_rename`, `lsm/inode_link` |
//! | file-open | [`open::open_exit`] and two more | `fexit/security_file_open`, ..., where there is no BPF LSM |
//! | file-open | [`open::open_call`] | `tp_btf/sys_exit`, where it is asked for |
//! | ban | [`ban::refuse`] | `xdp`, at interfaces that are named |
//!
//! Programs at cgroup hooks have a twin, `..._memory`, for kernels that have no `bpf_task_storage_get` there
//! ([`storage`]).
//!
//! None of them hooks a system call: a process that does no socket receive, fork or exec never
//! enters this code.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)]

mod ban;
mod bind;
mod check;
mod decide;
mod deny;
mod early;
mod hop;
mod inherit;
mod kernel;
mod maps;
mod null;
mod open;
mod packet;
mod path;
mod prepare;
mod raw;
mod registers;
mod report;
mod send;
mod snapshot;
mod stops;
mod storage;
mod tag;
mod task;
mod token;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
