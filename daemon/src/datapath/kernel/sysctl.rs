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

/// Sets it. What takes the RTNL lock or resets others when it is written is left if it is right.
pub(crate) fn write(sysctl: &Sysctl, value: u8) -> io::Result<()> {
    let heavy =
        matches!(sysctl, Sysctl::DisableIpv6(_) | Sysctl::Ipv4Forward | Sysctl::Ipv6Forward);
    if heavy && read(sysctl)? == Some(value) {
        return Ok(());
    }
    fs::write(path(sysctl), value.to_string())
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
