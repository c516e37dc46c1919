//! Offsets of kernel structure members, from the running kernel's BTF.
//!
//! Format: Documentation/bpf/btf.rst. aya reads BTF too but keeps member lookup to itself.

use std::collections::HashMap;
use std::path::Path;

use clew_sensor_abi::settings::Offsets;
use thiserror::Error;

use crate::registers;

/// Where the kernel describes itself.
pub(crate) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Why offsets could not be found.
#[derive(Debug, Error)]
pub enum BtfError {
    /// No BTF.
    #[error("cannot read {VMLINUX}: {0}; a kernel built with CONFIG_DEBUG_INFO_BTF=y is needed")]
    Unreadable(std::io::Error),
    /// Not BTF.
    #[error("{VMLINUX} is not BTF of a version known here")]
    Malformed,
    /// The kernel differs from all that are known.
    #[error("this kernel's BTF has no member {member} in struct {structure}")]
    Missing {
        /// The structure.
        structure: &'static str,
        /// The member, or the last name tried.
        member: &'static str,
    },
}

/// One structure or union: where its members stand in the type section.
#[derive(Clone, Copy)]
struct Composite {
    at: usize,
    members: usize,
    bitfields: bool,
}

/// Parsed just far enough to find members.
pub(crate) struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Structures and unions by type id.
    composites: HashMap<u32, Composite>,
    /// What each `typedef` stands for.
    aliases: HashMap<u32, u32>,
    /// The first structure of each name.
    names: HashMap<String, u32>,
}

impl Btf {
    pub(crate) fn of_kernel() -> Result<Self, BtfError> {
        let data = std::fs::read(Path::new(VMLINUX)).map_err(BtfError::Unreadable)?;
        Self::parse(data).ok_or(BtfError::Malformed)
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        if data.get(..3)? != [0x9f, 0xeb, 1] {
            return None;
        }
        let field = |at: usize| word(&data, at).map(|word| word as usize);
        let header = field(4)?;
        let types = header.checked_add(field(8)?)?;
        let types_end = types.checked_add(field(12)?)?;
        let strings = header.checked_add(field(16)?)?;
        let mut btf = Self {
            data,
            strings,
            composites: HashMap::new(),
            aliases: HashMap::new(),
            names: HashMap::new(),
        };
        btf.index(types, types_end)?;
        Some(btf)
    }

    fn index(&mut self, mut at: usize, end: usize) -> Option<()> {
        let mut id = 1;
        while at < end {
            let name = word(&self.data, at)?;
            let info = word(&self.data, at + 4)?;
            let kind = info >> 24 & 0x1f;
            let count = (info & 0xffff) as usize;
            let body = at + 12;
            if kind == KIND_STRUCT || kind == KIND_UNION {
                let bitfields = info >> 31 == 1;
                self.composites.insert(
                    id,
                    Composite {
                        at: body,
                        members: count,
                        bitfields,
                    },
                );
                let name = self.string(name)?.to_owned();
                if kind == KIND_STRUCT && !name.is_empty() {
                    self.names.entry(name).or_insert(id);
                }
            }
            if kind == KIND_TYPEDEF {
                self.aliases.insert(id, word(&self.data, at + 8)?);
            }
            at = body + body_len(kind, count);
            id += 1;
        }
        Some(())
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let bytes = self.data.get(self.strings + offset as usize..)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }

    /// Byte offset of the first of `members` that `structure` has, also inside its unnamed parts.
    pub(crate) fn offset(
        &self,
        structure: &'static str,
        members: &[&'static str],
    ) -> Result<u32, BtfError> {
        let missing = || BtfError::Missing {
            structure,
            member: members.last().copied().unwrap_or(""),
        };
        let id = *self.names.get(structure).ok_or_else(missing)?;
        members
            .iter()
            .find_map(|member| self.bits_to(id, member, 0))
            .map(|bits| bits / 8)
            .ok_or_else(missing)
    }

    /// Byte offset of a member of a member that has a structure without a name of its own.
    fn offset_within(
        &self,
        structure: &'static str,
        outer: &'static str,
        member: &'static str,
    ) -> Result<u32, BtfError> {
        let missing = || BtfError::Missing { structure, member };
        let id = *self.names.get(structure).ok_or_else(missing)?;
        let within = self
            .type_of(id, outer)
            .and_then(|id| self.bits_to(id, member, 0));
        let bits = within.zip(self.bits_to(id, outer, 0));
        bits.map(|(one, other)| (one + other) / 8)
            .ok_or_else(missing)
    }

    /// The type of a member, behind one `typedef`.
    fn type_of(&self, id: u32, member: &str) -> Option<u32> {
        let composite = self.composites.get(&id)?;
        (0..composite.members).find_map(|index| {
            let at = composite.at + index * 12;
            let name = self.string(word(&self.data, at)?)?;
            let inner = word(&self.data, at + 4)?;
            (name == member).then(|| self.aliases.get(&inner).copied().unwrap_or(inner))
        })
    }

    fn bits_to(&self, id: u32, member: &str, depth: u32) -> Option<u32> {
        // Unnamed unions nest three deep at most in any kernel; the bound stops crafted input.
        let composite = *self.composites.get(&id).filter(|_| depth < 8)?;
        (0..composite.members).find_map(|index| {
            let at = composite.at + index * 12;
            let name = self.string(word(&self.data, at)?)?;
            let inner = word(&self.data, at + 4)?;
            let raw = word(&self.data, at + 8)?;
            let bits = if composite.bitfields {
                raw & 0x00ff_ffff
            } else {
                raw
            };
            match name {
                "" => Some(bits + self.bits_to(inner, member, depth + 1)?),
                name if name == member => Some(bits),
                _ => None,
            }
        })
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Bytes behind a type's 12-byte head.
fn body_len(kind: u32, count: usize) -> usize {
    match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count * 12,
        KIND_ENUM | KIND_FUNC_PROTO => count * 8,
        _ => 0,
    }
}

/// Everything the programs ask for.
pub(crate) fn offsets(btf: &Btf) -> Result<Offsets, BtfError> {
    let at = |structure, member| btf.offset(structure, &[member]);
    let offsets = Offsets {
        task_tgid: at("task_struct", "tgid")?,
        task_pid: at("task_struct", "pid")?,
        task_group_leader: at("task_struct", "group_leader")?,
        task_real_parent: at("task_struct", "real_parent")?,
        // real_start_time until 5.5.
        task_start_boottime: btf.offset("task_struct", &["start_boottime", "real_start_time"])?,
        task_mm: at("task_struct", "mm")?,
        task_fs: at("task_struct", "fs")?,
        task_cgroups: at("task_struct", "cgroups")?,
        task_comm: at("task_struct", "comm")?,
        mm_arg_start: at("mm_struct", "arg_start")?,
        mm_arg_end: at("mm_struct", "arg_end")?,
        mm_env_start: at("mm_struct", "env_start")?,
        mm_env_end: at("mm_struct", "env_end")?,
        mm_exe_file: at("mm_struct", "exe_file")?,
        file_f_inode: at("file", "f_inode")?,
        file_f_path: btf.offset("file", &["f_path", "__f_path"])?,
        inode_i_ino: at("inode", "i_ino")?,
        file_f_mode: at("file", "f_mode")?,
        inode_i_mode: at("inode", "i_mode")?,
        dentry_d_inode: at("dentry", "d_inode")?,
        task_files: at("task_struct", "files")?,
        files_fdt: at("files_struct", "fdt")?,
        fdtable_fd: at("fdtable", "fd")?,
        inode_i_sb: at("inode", "i_sb")?,
        super_block_s_dev: at("super_block", "s_dev")?,
        path_mnt: at("path", "mnt")?,
        path_dentry: at("path", "dentry")?,
        dentry_d_parent: at("dentry", "d_parent")?,
        // __d_name beside it since 6.15.
        dentry_d_name: btf.offset("dentry", &["d_name", "__d_name"])?,
        qstr_len: at("qstr", "len")?,
        qstr_name: at("qstr", "name")?,
        mount_mnt: at("mount", "mnt")?,
        mount_mnt_parent: at("mount", "mnt_parent")?,
        mount_mnt_mountpoint: at("mount", "mnt_mountpoint")?,
        vfsmount_mnt_root: at("vfsmount", "mnt_root")?,
        fs_pwd: at("fs_struct", "pwd")?,
        fs_root: at("fs_struct", "root")?,
        bprm_file: at("linux_binprm", "file")?,
        bprm_buf: at("linux_binprm", "buf")?,
        bprm_filename: at("linux_binprm", "filename")?,
        css_set_dfl_cgrp: at("css_set", "dfl_cgrp")?,
        cgroup_kn: at("cgroup", "kn")?,
        // __parent since 6.15.
        kernfs_node_parent: btf.offset("kernfs_node", &["parent", "__parent"])?,
        kernfs_node_name: at("kernfs_node", "name")?,
        tcp_sock_copied_seq: at("tcp_sock", "copied_seq")?,
        tcp_sock_write_seq: at("tcp_sock", "write_seq")?,
        sock_common_skc_family: at("sock_common", "skc_family")?,
        sock_common_skc_state: at("sock_common", "skc_state")?,
        sock_common_skc_daddr: at("sock_common", "skc_daddr")?,
        sock_common_skc_rcv_saddr: at("sock_common", "skc_rcv_saddr")?,
        sock_common_skc_dport: at("sock_common", "skc_dport")?,
        sock_common_skc_num: at("sock_common", "skc_num")?,
        sock_common_skc_net: at("sock_common", "skc_net")?,
        sock_common_skc_v6_daddr: at("sock_common", "skc_v6_daddr")?,
        sock_common_skc_v6_rcv_saddr: at("sock_common", "skc_v6_rcv_saddr")?,
        sock_sk_lock_owned: btf.offset_within("sock", "sk_lock", "owned")?,
        sock_sk_type: at("sock", "sk_type")?,
        unix_sock_addr: at("unix_sock", "addr")?,
        socket_sk: at("socket", "sk")?,
        task_bpf_storage: at("task_struct", "bpf_storage")?,
        local_storage_list: at("bpf_local_storage", "list")?,
        local_storage_elem_snode: at("bpf_local_storage_elem", "snode")?,
        local_storage_elem_sdata: at("bpf_local_storage_elem", "sdata")?,
        local_storage_data_smap: at("bpf_local_storage_data", "smap")?,
        iter_meta_seq: at("bpf_iter_meta", "seq")?,
        local_storage_data_data: at("bpf_local_storage_data", "data")?,
        ..Offsets::default()
    };
    registers::complete(offsets, btf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_members_of_the_running_kernel() {
        let btf = match Btf::of_kernel() {
            Ok(btf) => btf,
            Err(error) => panic!("{error}"),
        };
        let found = offsets(&btf).expect("every member");
        assert_ne!(found.task_tgid, found.task_pid);
        assert_eq!(found.path_mnt, 0);
        assert!(matches!(
            btf.offset("task_struct", &["no_such_member"]),
            Err(BtfError::Missing { .. })
        ));
    }

    #[test]
    fn refuses_what_is_not_btf() {
        assert!(Btf::parse(Vec::new()).is_none());
        assert!(Btf::parse(vec![0x9f, 0xeb, 1, 0, 24]).is_none());
        let mut long = vec![0x9f, 0xeb, 1, 0];
        long.extend([0xff; 64]);
        assert!(Btf::parse(long).is_none());
    }
}
