//! A TAP link: what the test writes comes in by the link, what the kernel sends the test reads.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;

use model::LinkIndex;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::place::{index, tool};

/// The other end of a link.
pub(crate) struct Tap {
    file: File,
    pub(crate) link: LinkIndex,
    pub(crate) name: String,
}

impl Tap {
    /// Makes the link and brings it up, silent: without IPv6 addresses of the kernel's own.
    pub(crate) fn new(name: &str, mac: &str) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .unwrap();
        create(&file, name);
        tool(&format!("ip link set {name} address {mac} addrgenmode none"));
        tool(&format!("ip link set {name} up"));
        Self { file, link: index(name), name: name.to_owned() }
    }

    /// A frame comes in by the link.
    pub(crate) fn write(&mut self, frame: &[u8]) {
        self.file.write_all(frame).unwrap();
    }

    /// The next frame that the kernel sends by the link, tag included.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        let found = poll(&mut ready, PollTimeout::from(5000_u16)).unwrap();
        assert_eq!(found, 1, "no frame left by {} within 5 s", self.name);
        self.ready().unwrap()
    }

    /// A frame that has already left by the link.
    pub(crate) fn ready(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65_536];
        match self.file.read(&mut frame) {
            Ok(length) => {
                frame.truncate(length);
                Some(frame)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{}: {error}", self.name),
        }
    }
}

#[expect(unsafe_code, reason = "there is no safe TUNSETIFF")]
fn create(file: &File, name: &str) {
    nix::ioctl_write_int!(set_link, b'T', 202);
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request[16..18].copy_from_slice(&u16::try_from(flags).unwrap().to_ne_bytes());
    // SAFETY: the request is a `struct ifreq` of 40 bytes, which lives through the call.
    unsafe {
        set_link(file.as_raw_fd(), request.as_mut_ptr().expose_provenance().try_into().unwrap())
    }
    .unwrap();
}
