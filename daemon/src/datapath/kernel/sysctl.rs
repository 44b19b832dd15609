//! Switches under `/proc/sys`, in the namespace of the calling thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::types::Sysctl;

fn path(sysctl: &Sysctl) -> PathBuf {
    Path::new("/proc/sys").join(sysctl.to_string())
}

/// Its value; `None` if there is no such switch.
pub(crate) fn read(sysctl: &Sysctl) -> io::Result<Option<u8>> {
    match fs::read_to_string(path(sysctl)) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets it.
pub(crate) fn write(sysctl: &Sysctl, value: u8) -> io::Result<()> {
    fs::write(path(sysctl), value.to_string())
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
