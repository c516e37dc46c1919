//! Ban: what the banned send is dropped where it comes in.

use super::{Part, Provider};
use crate::attach::Hook;

/// Only where interfaces are named.
pub(crate) const BARRIER: Part = Part {
    step: "ban",
    providers: &[REFUSE],
    without: Some("banned sources are refused by the proxy alone"),
};

/// The program of [`BARRIER`].
pub(crate) const REFUSE: Provider = Provider {
    program: "refuse",
    hook: Hook::Interface,
    needs: "XDP (Linux 4.8) with bpf_loop (5.17)",
};
