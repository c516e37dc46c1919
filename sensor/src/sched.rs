//! How soon the kernel's scheduler runs a thread that has been woken.

use std::io;
use std::time::Duration;

/// Time slice of threads that are to run as soon as they are woken: the shortest there is.
const SLICE: Duration = Duration::from_micros(100);

/// Sets the nice value of the calling thread, and has it run soon when it is woken. Threads that it
/// starts inherit both.
///
/// A nice value alone is a share of the time: whoever runs when another is woken keeps the processor
/// until its own slice is over, whatever the values. Since Linux 6.12 a thread with a shorter slice
/// need not wait for that (`PREEMPT_SHORT` in `kernel/sched/features.h`); before, the slice is
/// ignored, and the nice value holds.
///
/// # Errors
///
/// A nice value below the thread's own takes `CAP_SYS_NICE`, or room in `RLIMIT_NICE`. Without, the
/// thread keeps its own; the slice takes no rights.
pub fn run_soon(nice: i32) -> io::Result<()> {
    let done = set(nice);
    if done.is_err() {
        set(rustix::process::getpriority_process(None)?)?;
    }
    done
}

fn set(nice: i32) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: SLICE.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr(2) reads `size` bytes of the attributes and keeps no address.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A higher nice value takes no rights; what the kernel says afterwards is in `stat(5)`.
    #[test]
    fn the_kernel_has_taken_it() -> io::Result<()> {
        std::thread::spawn(|| {
            run_soon(7)?;
            let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            // Field 19, counted from the state, which is field 3.
            assert_eq!(after_name.split_whitespace().nth(16), Some("7"));
            Ok(())
        })
        .join()
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }
}
