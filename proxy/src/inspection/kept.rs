//! Memory for bodies that wait for a verdict, bounded over all requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all requests may keep together.
#[derive(Debug)]
pub(crate) struct Kept {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl Kept {
    pub(crate) fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
        })
    }

    /// A share of nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share {
            kept: self.clone(),
            bytes: 0,
        }
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }
}

/// What one request keeps; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    kept: Arc<Kept>,
    bytes: usize,
}

impl Share {
    /// Takes `bytes` more; false when all requests together have no more.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let used = self.kept.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = used.saturating_add(bytes) <= self.kept.limit_bytes;
        if fits {
            self.bytes += bytes;
        } else {
            self.kept.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Gives `bytes` back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.kept.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_have_one_bound() {
        let kept = Kept::new(100);
        let (mut one, mut other) = (kept.share(), kept.share());
        assert!(one.grow(60) && other.grow(40));
        assert!(!one.grow(1), "full");
        other.shrink(10);
        assert!(one.grow(10));
        drop(one);
        assert_eq!(kept.used(), 30);
        drop(other);
        assert_eq!(kept.used(), 0);
    }
}
