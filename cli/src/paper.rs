//! Standard output. Whoever reads it may have seen enough (`clew incidents list | head`): that is no failure.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Prints a line.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::paper::print(format_args!("{}\n", format_args!($($text)*)))
    };
}

/// Prints text as it is.
macro_rules! put {
    ($($text:tt)*) => {
        $crate::paper::print(format_args!($($text)*))
    };
}

pub(crate) use {put, say};

/// Prints; ends the process where nobody reads any more, or where it cannot be written.
pub(crate) fn print(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_fmt(text) else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("clew: cannot write to standard output: {error}");
    std::process::exit(1);
}
