//! Tag: which request do the bytes belong to that arrive at a backend's socket?

use super::{Part, Provider};
use crate::attach::Hook;

pub(super) const PART: Part = Part {
    step: "tag",
    providers: &[Provider {
        program: "tag",
        hook: Hook::Ingress,
        needs: "bpf_loop (Linux 5.17)",
    }],
    without: None,
};
