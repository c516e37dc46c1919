//! An array map of the kernel's, as memory.

use std::io;
use std::ptr::NonNull;

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The elements of an array map with `BPF_F_MMAPABLE`, to read.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: NonNull<T>,
    count: usize,
}

// SAFETY: kernel memory that any thread may read; it is unmapped when the owner goes.
unsafe impl<T> Send for Table<T> {}
// SAFETY: as above; what is handed out are addresses.
unsafe impl<T> Sync for Table<T> {}

impl<T> Table<T> {
    /// Maps the `count` elements of `map`, each of which is a `T`.
    pub(crate) fn map(map: &MapData, count: usize) -> io::Result<Self> {
        // SAFETY: a new mapping of an array map with BPF_F_MMAPABLE, whose elements are `T`.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                count * size_of::<T>(),
                ProtFlags::READ,
                MapFlags::SHARED,
                map.fd(),
                0,
            )?
        };
        let entries = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { entries, count })
    }

    /// The element at `index` modulo their number. The kernel may be writing it.
    pub(crate) fn entry(&self, index: u64) -> *mut T {
        // SAFETY: inside the mapping.
        unsafe { self.entries.add(index as usize % self.count).as_ptr() }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; nothing borrows from it.
        let _ = unsafe { munmap(self.entries.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}
