//! Shared types as aya wants them.

use aya::Pod;

/// A shared ABI type on its way into or out of a map.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Raw<T>(pub(crate) T);

// SAFETY: only used with types of clew_sensor_abi: `repr(C)`, integers only, no implicit padding
// (checked there), every bit pattern valid.
unsafe impl<T: Copy + 'static> Pod for Raw<T> {}
