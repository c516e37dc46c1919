//! Builds the BPF programs with the project's script, so that `cargo build` is enough.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    for watched in [
        "sensor-ebpf/src",
        "sensor-ebpf/Cargo.toml",
        "sensor/abi/src",
        "scripts/build-bpf",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let out = std::env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    let status = Command::new(root.join("scripts/build-bpf"))
        .arg(out.join("clew.bpf.o"))
        .status();
    if !status.as_ref().is_ok_and(|status| status.success()) {
        println!(
            "cargo::error=scripts/build-bpf failed ({status:?}); `make setup` installs what it needs"
        );
    }
}
