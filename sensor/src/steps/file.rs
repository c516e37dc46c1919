//! File-open: what requests may open, what they write, and who runs it later. Only where files are watched.

use super::{Part, Provider, TRAMPOLINES};
use crate::attach::Hook;

/// What a hook of the security modules needs.
const LSM: &str = "BPF LSM (CONFIG_BPF_LSM, and bpf in lsm= of the command line)";

/// Who can see what is opened; the last only where it is asked for.
const OPEN: [Provider; 3] = [
    Provider {
        program: "open",
        hook: Hook::Lsm("file_open"),
        needs: LSM,
    },
    Provider {
        program: "open_exit",
        hook: Hook::Exit("security_file_open"),
        needs: TRAMPOLINES,
    },
    Provider {
        program: "open_call",
        hook: Hook::Tracepoint("sys_exit"),
        needs: "to be asked for (sensor.trace_opens): every system call of every process pays for it",
    },
];

/// Opening, and the two ways to put a file where it was not.
pub(crate) const PARTS: [Part; 3] = [
    Part {
        step: "file-open",
        providers: OPEN.split_at(2).0,
        without: Some(
            "what requests open is not seen (sensor.trace_opens has every system call looked at)",
        ),
    },
    Part {
        step: "file-open",
        providers: &[
            Provider {
                program: "rename",
                hook: Hook::Lsm("inode_rename"),
                needs: LSM,
            },
            Provider {
                program: "rename_exit",
                hook: Hook::Exit("security_inode_rename"),
                needs: TRAMPOLINES,
            },
        ],
        without: Some("what requests move to where it is watched is not seen"),
    },
    Part {
        step: "file-open",
        providers: &[
            Provider {
                program: "link",
                hook: Hook::Lsm("inode_link"),
                needs: LSM,
            },
            Provider {
                program: "link_exit",
                hook: Hook::Exit("security_inode_link"),
                needs: TRAMPOLINES,
            },
        ],
        without: Some("what requests link to where it is watched is not seen"),
    },
];

/// In place of the first, where it is asked for.
pub(crate) const BY_CALL: Part = Part {
    step: "file-open",
    providers: &OPEN,
    without: Some("what requests open is not seen"),
};
